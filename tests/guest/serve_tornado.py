# SPDX-License-Identifier: Apache-2.0
"""serve_tornado.py PORT: answers /NUMBER by the number's square, until killed."""

import asyncio
import sys

import tornado.web


class Square(tornado.web.RequestHandler):
    """One number, its square."""

    def get(self, number: str) -> None:
        """Answer in plain text."""
        self.set_header("Content-Type", "text/plain")
        self.write(f"{int(number) ** 2}\n")


async def main() -> None:
    """Serve forever."""
    tornado.web.Application([(r"/(\d+)", Square)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
