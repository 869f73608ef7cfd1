# SPDX-License-Identifier: Apache-2.0
"""Nabla's package of Python and the packages on top of it, in the guest."""

from __future__ import annotations

import json

import pytest

from nabla.packages.catalog import read_build_record

from .conftest import image_of
from .networked import free_port, ordinary_installation, page, until
from .vm import Vm

MODULES = "asyncio bz2 ctypes curses curses.panel decimal hashlib lzma pyexpat readline sqlite3 ssl zlib zoneinfo"

# A server that multiplies matrices: for a number N it answers with the trace of an N-by-N product.
SERVER = """
import asyncio, numpy, tornado.web
class Product(tornado.web.RequestHandler):
    def get(self, n):
        a = numpy.arange(int(n) ** 2, dtype=float).reshape(int(n), int(n))
        self.write({"trace": float(numpy.trace(a @ a.T)), "size": int(n)})
async def main():
    tornado.web.Application([(r"/([0-9]+)", Product)]).listen(8000)
    await asyncio.Event().wait()
asyncio.run(main())
"""

# Code that would overrun the stack with the limit of systems that have a guard page.
DEEP = """
import sys, threading
sys.setrecursionlimit(100_000)
def nested(n):
    x = []
    for _ in range(n): x = [x]
    return x
class Sum:
    def __add__(self, other): return Sum() + other
class Missing(dict):
    def __missing__(self, key): return self[key + 1]
class Meta(type):
    def __call__(cls): return cls()
class Made(metaclass=Meta): pass
def evaluate(): return eval("evaluate()")
ways = [lambda: repr(nested(100_000)), lambda: __import__("json").loads("[" * 100_000), lambda: Sum() + 1,
        lambda: Missing()[0], Made, evaluate, lambda: __import__("pickle").dumps(nested(100_000))]
ended = []
def attempt(way):
    try: way()
    except RecursionError: ended.append(way)
for way in ways:
    attempt(way)
    thread = threading.Thread(target=attempt, args=(way,))
    thread.start(); thread.join()
print(len(ended), 2 * len(ways))
"""


@pytest.fixture(scope="module")
def python() -> Vm:
    """The image with the larger packages."""
    return Vm(image_of("packages"), memory="512M", ephemeral=True)


def run(vm: Vm, script: str, *arguments: str) -> str:
    """Run a Python script in the guest; returns its output."""
    result = vm.run("/usr/bin/python3", "-c", script, *arguments)
    assert result.status == 0, result.describe()
    return result.output


def test_is_ours(python: Vm) -> None:
    script = "import sys, sysconfig; print(sys.version.split()[0], sysconfig.get_config_var('SOABI'), sys.prefix)"
    version = read_build_record("python3").parts[0].version.split("-")[0]
    assert run(python, script).split() == [version, "cpython-313-x86_64-linux-musl", "/usr"]


def test_modules(python: Vm) -> None:
    """All modules that need another library, and a use of each."""
    script = """
import bz2, ctypes, curses, lzma, pyexpat, sqlite3, ssl, sys, zlib
for name in sys.argv[1:]: __import__(name)
data = b"some data " * 1000
assert zlib.decompress(zlib.compress(data)) == bz2.decompress(bz2.compress(data)) == data
assert lzma.decompress(lzma.compress(data, preset=1)) == data
base = sqlite3.connect(":memory:")
base.execute("create table t (n)")
base.executemany("insert into t values (?)", [(n,) for n in range(1000)])
assert base.execute("select sum(n) from t").fetchone() == (499500,)
order = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 5)(5, 3, 1, 4, 2)
ctypes.CDLL(None).qsort(numbers, 5, 4, order(lambda a, b: a[0] - b[0]))
assert list(numbers) == [1, 2, 3, 4, 5]
curses.setupterm("xterm", 1)
assert curses.tigetnum("colors") == 8
addresses = []
parser = pyexpat.ParserCreate()
parser.StartElementHandler = lambda name, attributes: addresses.append((name, attributes))
parser.Parse("<a><b c='d'/></a>", True)
assert addresses == [("a", {}), ("b", {"c": "d"})]
assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
print("good")
"""
    assert run(python, script, *MODULES.split()) == "good\n"


def test_library_is_compiled(python: Vm) -> None:
    """Each module's compiled form fits its source by size and time, so that nothing is compiled at a start."""
    script = """
import importlib.util, pathlib, struct
stale = compiled = 0
for source in pathlib.Path("/usr/lib/python3.13").rglob("*.py"):
    cached = pathlib.Path(importlib.util.cache_from_source(source))
    if "test" in str(source) or "lib2to3" in str(source): continue
    compiled += 1
    magic, flags, time, size = struct.unpack("<4sIII", cached.read_bytes()[:16]) if cached.exists() else (b"", 1, 0, 0)
    status = source.stat()
    if (magic, flags, time, size) != (importlib.util.MAGIC_NUMBER, 0, int(status.st_mtime), status.st_size):
        stale += 1
        print(source)
print(stale, compiled > 500)
"""
    assert run(python, script) == "0 True\n"


def test_no_tests_in_main_package() -> None:
    parts = {part.name: part for part in read_build_record("python3").parts}
    assert not [path for path in parts["python3"].files if "/test/" in path or "_test" in path.rpartition("/")[2]]
    assert "usr/lib/python3.13/test/test_int.py" in parts["python3-tests"].files


def test_processes(python: Vm) -> None:
    """fork, subprocess, and multiprocessing with its default start method, which is fork."""
    script = """
cat >/tmp/pool.py <<'END'
import multiprocessing, os, subprocess
def square(n): return n * n
if __name__ == "__main__":
    if not (pid := os.fork()): os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), multiprocessing.get_start_method())
    with multiprocessing.Pool(2) as pool: print(pool.map(square, range(5)))
    print(subprocess.run("echo from a shell", shell=True, capture_output=True, text=True).stdout, end="")
END
python3 /tmp/pool.py
"""
    assert python.check(script).splitlines() == ["7 fork", "[0, 1, 4, 9, 16]", "from a shell"]


def test_deep_recursion(python: Vm) -> None:
    """It raises an exception before the stack ends, in the main program and in threads."""
    ended, wanted = run(python, DEEP).split()
    assert ended == wanted


def test_pip(python: Vm) -> None:
    assert python.check("pip --version").startswith("pip ")
    refused = python.shell("pip install --no-index anything 2>&1")
    assert refused.status != 0
    assert "externally-managed-environment" in refused.output


def test_environment_of_its_own(python: Vm) -> None:
    """A virtual environment with its own pip, created without a network."""
    script = """
        python3 -m venv /tmp/own && /tmp/own/bin/pip list --format json &&
            /tmp/own/bin/python -c 'import sys; print(sys.prefix)'
    """
    listed, prefix = python.check(script, timeout=240).splitlines()[-2:]
    assert [package["name"] for package in json.loads(listed)] == ["pip"]
    assert prefix == "/tmp/own"


def test_numpy(python: Vm) -> None:
    script = """
import numpy
a = numpy.random.default_rng(1).random((300, 300))
print(numpy.allclose(numpy.linalg.inv(a) @ a, numpy.eye(300)), numpy.__version__)
"""
    assert run(python, script).split() == ["True", read_build_record("py3-numpy").parts[0].version.split("-")[0]]


def test_wheels_are_upstreams(python: Vm) -> None:
    """Each installed file is the wheel's, libraries included; only tests are in separate packages."""
    script = """
import base64, hashlib, importlib.metadata
for name in ("numpy", "tornado", "pip"):
    missing = wrong = right = 0
    for file in importlib.metadata.files(name):
        path = file.locate()
        if file.hash is None: continue
        if not path.exists(): missing += not {"test", "tests"} & set(file.parts); continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
        right, wrong = right + (digest == file.hash.value), wrong + (digest != file.hash.value)
    print(name, missing, wrong, right > 25)
"""
    assert run(python, script).splitlines() == ["numpy 0 0 True", "tornado 0 0 True", "pip 0 0 True"]


def test_tornado_and_numpy_for_the_host() -> None:
    """A VM of an ordinary user answers the host through a published port."""
    port = free_port()
    command, options = ("/usr/bin/python3", "-c", SERVER), ["--publish", f"{port}:8000"]
    with (
        ordinary_installation("packages") as installation,
        installation.running("packages", *command, options=options, memory="512M"),
    ):
        until(lambda: page(port, "/1"), "an answer")
        for size in (1, 10, 200):
            answer = json.loads(page(port, f"/{size}") or b"{}")
            assert answer == {"trace": float(sum(n * n for n in range(size**2))), "size": size}


def test_sqlite_program(python: Vm) -> None:
    script = """
        sqlite3 /root/base 'create table t (n); insert into t select value from generate_series(1, 1000)'
        sqlite3 /root/base 'select count(*), sum(n) from t; pragma integrity_check'
    """
    assert python.check(script).split() == ["1000|500500", "ok"]
