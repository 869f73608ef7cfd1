# SPDX-License-Identifier: Apache-2.0
"""The duration of a build in a fresh checkout: results from a store over loopback, against a warm local cache.

    python -m bench.stores [--tasks TASK…] [--with-downloads] [-n WORKERS]

The user's cache must already contain the results (`doit release`). They are uploaded to a store in a temporary folder,
which a static server serves. Then each of two copies of the checkout runs the tasks: one with the user's cache and no
store, one with an empty cache and the store. Both have the downloads and build roots, unless `--with-downloads` makes
the second one fetch these from the store, too.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from nabla.core.paths import ROOT, cache_dir
from nabla.engine.remote import settings

_SHARED = ("sha256", "buildroot", "apt", "wheels", "ccache")


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name of the overridden method)
        return


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def doit(root: Path, words: Sequence[str], **variables: str) -> float:
    """Run doit in a copy of the checkout; return its duration in seconds."""
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_PROXY": "127.0.0.1", **variables}
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "doit", *words], cwd=root, env=environment, check=True)
    return time.monotonic() - begin


def copy(base: Path, name: str) -> Path:
    """Return a copy of the checkout with nothing built."""
    root = base / name
    shutil.copytree(ROOT, root, symlinks=True, ignore=shutil.ignore_patterns("out", ".git", "__pycache__", ".*_cache"))
    return root


def main() -> None:
    """Measure both and print them with their ratio."""
    parser = argparse.ArgumentParser(prog="python -m bench.stores", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=["release"], metavar="TASK")
    parser.add_argument(
        "--with-downloads", action="store_true", help="sources and build roots come from the store, too"
    )
    parser.add_argument("-n", dest="workers", default="2", help="tasks at a time (2)")
    parser.add_argument("--store", type=Path, help="a folder that already is such a store")
    words = parser.parse_args()
    run = ["-n", words.workers, *words.tasks]
    with tempfile.TemporaryDirectory(prefix="nabla-bench-", dir=cache_dir().parent) as scratch:
        base = Path(scratch)
        folder = words.store or base / "store"
        if words.store is None:
            doit(ROOT, ["cache:push"], NABLA_STORE=f"file://{folder}", NABLA_STORE_PUSH="1")
        empty = base / "cache"
        empty.mkdir()
        for name in _SHARED if not words.with_downloads else ("wheels",):
            if (cache_dir() / name).exists():
                (empty / name).symlink_to(cache_dir() / name)
        warm = doit(copy(base, "warm"), run, NABLA_STORE="off")
        with serving(folder) as address:
            signers = str(settings.default_signers())
            variables = {"NABLA_STORE": address, "NABLA_STORE_SIGNERS": signers, "NABLA_CACHE": str(empty)}
            cold = doit(copy(base, "cold"), run, **variables)
    print(f"warm local cache {warm:.0f} s, store over loopback {cold:.0f} s: {cold / warm:.2f} times")


if __name__ == "__main__":
    main()
