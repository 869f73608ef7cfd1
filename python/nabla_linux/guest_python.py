# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: an interpreter that keeps its variables, on a socket.

A request is code in UTF-8, to the end of input. The answer is a line with four lengths in bytes, and as many bytes of
UTF-8: the value of the last expression, standard output, standard error, and the traceback of an exception.
"""

from __future__ import annotations

import ast
import contextlib
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import IO

FOLDER = "/run/nabla-python"


def execute(code: str, names: dict[str, object]) -> str:
    """Run code; return the text of the value of its last statement, if that is an expression."""
    tree = ast.parse(code, "<code>")
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, "<code>", "exec"), names)
        return ""
    exec(compile(ast.Module(tree.body[:-1], []), "<code>", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "<code>", "eval"), names)
    return "" if value is None else repr(value)


@contextlib.contextmanager
def captured() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield two files that get what this process and its children write to their standard streams."""
    saved = [os.dup(stream) for stream in (1, 2)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        for stream, file in ((1, out), (2, err)):
            os.dup2(file.fileno(), stream)
        try:
            yield out, err
        finally:
            for stream, old in zip((1, 2), saved, strict=True):
                os.dup2(old, stream)
                os.close(old)


def answer(code: str, names: dict[str, object]) -> list[bytes]:
    """Run code; return the four texts of the answer."""
    value = error = ""
    with captured() as files:
        try:
            value = execute(code, names)
        except BaseException as caught:  # SystemExit, too: the interpreter goes on
            lines = traceback.format_exception(type(caught), caught, caught.__traceback__)
            error = "".join(line for line in lines if __file__ not in line)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        texts = []
        for file in files:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    return [text.encode("utf-8", "replace") for text in (value, *texts, error)]


def serve() -> None:
    """Serve one request after the other."""
    names: dict[str, object] = {"__name__": "__main__", "__builtins__": __builtins__}
    listener = socket.socket(socket.AF_UNIX)
    path = FOLDER + "/new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener.bind(path)
    listener.listen(64)
    with open(FOLDER + "/process", "w") as file:
        file.write(str(os.getpid()))
    # it can be connected to as soon as it has this name
    os.rename(path, FOLDER + "/socket")
    while True:
        peer = listener.accept()[0]
        with peer, contextlib.suppress(OSError):
            parts = []
            while part := peer.recv(65536):
                parts.append(part)
            texts = answer(b"".join(parts).decode("utf-8", "replace"), names)
            peer.sendall(b"%d %d %d %d\n" % (*map(len, texts),))
            for text in texts:
                peer.sendall(text)


def main() -> None:
    """Import modules, and become a process of nobody's session."""
    os.makedirs(FOLDER, 0o700, exist_ok=True)
    for module in sys.argv[1:]:
        __import__(module)
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    serve()


main()
