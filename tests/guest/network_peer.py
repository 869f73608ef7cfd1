# SPDX-License-Identifier: Apache-2.0
"""network_peer.py PORT: the other end of network tests, on a TCP and a UDP port of the same number; runs until killed.

The first line of a TCP connection selects the mode: `echo` returns everything; `take` reads everything and returns its
SHA-256 in hexadecimal; `give SEED BYTES` sends this number of random bytes from the seed. UDP datagrams are echoed.
"""

import asyncio
import hashlib
import random
import sys
from collections.abc import Iterator

CHUNK = 1 << 18


def noise(seed: int, size: int) -> Iterator[bytes]:
    """Return the bytes that belong to a seed, in pieces."""
    source = random.Random(seed)
    for at in range(0, size, CHUNK):
        yield source.randbytes(min(CHUNK, size - at))


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Do what the first line says."""
    what, *numbers = (await reader.readline()).split()
    if what == b"echo":
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    elif what == b"take":
        digest = hashlib.sha256()
        while data := await reader.read(CHUNK):
            digest.update(data)
        writer.write(digest.hexdigest().encode())
    elif what == b"give":
        for piece in noise(*map(int, numbers)):
            writer.write(piece)
            await writer.drain()
    writer.close()


class Echo(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.DatagramTransport)
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer."""
        self.transport.sendto(data, address)


async def main() -> None:
    """Serve forever."""
    port = int(sys.argv[1])
    server = await asyncio.start_server(serve, "0.0.0.0", port, backlog=512)
    await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("0.0.0.0", port))
    print("serving", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
