# SPDX-License-Identifier: Apache-2.0
"""An unmodified CPython at work inside the guest: each check prints one TAP line, the exit status covers all."""

import asyncio
import hashlib
import json
import multiprocessing
import os
import queue
import select
import selectors
import shelve
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Register a check."""
    CHECKS.append(function)
    return function


@check
def fork() -> None:
    """A child has a copy of everything that its parent has; neither sees the other's changes."""
    items = list(range(1000))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        items.reverse()
        os.write(writing, json.dumps(items).encode())
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert json.loads(os.read(reading, 1 << 16)) == items[::-1] == list(range(999, -1, -1))
    os.close(reading)
    os.close(writing)


@check
def threads() -> None:
    """Threads share a queue and a lock."""
    jobs: queue.Queue[int | None] = queue.Queue()
    total, lock = [0], threading.Lock()

    def work() -> None:
        while (job := jobs.get()) is not None:
            with lock:
                total[0] += job

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for number in range(2000):
        jobs.put(number)
    for _ in workers:
        jobs.put(None)
    for worker in workers:
        worker.join()
    assert total[0] == sum(range(2000))


@check
def thread_pool() -> None:
    """A pool of threads with real work that leaves the interpreter lock."""
    block = b"x" * 1_000_000
    with ThreadPoolExecutor(4) as pool:
        sums = set(pool.map(lambda _: hashlib.sha256(block).hexdigest(), range(20)))
    assert len(sums) == 1


@check
def thread_local_and_deep() -> None:
    """Thread-local data, and recursion in a thread."""
    data = threading.local()
    results = []

    def work(number: int) -> None:
        data.value = number
        time.sleep(0.01)
        results.append(data.value == number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 10


@check
def run_programs() -> None:
    """subprocess in its forms."""
    assert subprocess.run(["/bin/echo", "hello"], capture_output=True, check=True).stdout == b"hello\n"
    assert (
        subprocess.run("cat | tr a-z A-Z", shell=True, input=b"shout", capture_output=True, check=True).stdout
        == b"SHOUT"
    )
    assert subprocess.run(["/bin/sh", "-c", "exit 7"], check=False).returncode == 7
    assert subprocess.run(["/bin/sh", "-c", "kill -9 $$"], check=False).returncode == -9
    environment = subprocess.run(["/usr/bin/env"], env={"ONLY": "this"}, capture_output=True, check=True)
    assert environment.stdout == b"ONLY=this\n"
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        answer, _ = child.communicate(b"y" * 300_000)
    assert answer == b"y" * 300_000
    try:
        subprocess.run(["/bin/sleep", "60"], timeout=0.2, check=False)
    except subprocess.TimeoutExpired:
        pass
    else:
        raise AssertionError("no timeout")
    try:
        subprocess.run(["/no/such/program"], check=False)
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("a missing program started")
    children = [subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({n})"]) for n in range(5)]
    assert [child.wait() for child in children] == list(range(5))


@check
def processes() -> None:
    """multiprocessing by each of its start methods."""
    for method in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(method).Pool(3) as pool:
            assert pool.map(abs, range(-100, 0)) == list(range(100, 0, -1)), method


@check
def shared_mappings() -> None:
    """Files mapped for writing are coherent with the file, for this process and its children."""
    import numpy

    with tempfile.TemporaryDirectory(dir="/root") as folder:
        file = Path(folder) / "array"
        array = numpy.memmap(file, dtype=numpy.int64, mode="w+", shape=(1000, 10))
        array[:] = numpy.arange(10000).reshape(1000, 10)
        pid = os.fork()
        if pid == 0:
            array[500] = -1
            os._exit(0)
        os.waitpid(pid, 0)
        assert array[500].sum() == -10
        array.flush()
        assert numpy.fromfile(file, dtype=numpy.int64).reshape(1000, 10)[500].tolist() == [-1] * 10
        assert int(numpy.memmap(file, dtype=numpy.int64, mode="r")[4]) == 4
        with shelve.open(Path(folder) / "shelf") as shelf:
            shelf["key"] = {"a": [1, 2, 3]}
        with shelve.open(Path(folder) / "shelf") as shelf:
            assert shelf["key"] == {"a": [1, 2, 3]}


@check
def signals() -> None:
    """Handlers, timers, wake-up descriptors, interrupted and resumed calls."""
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    assert seen == [signal.SIGUSR1]
    signal.signal(signal.SIGALRM, lambda number, _: seen.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    began = time.monotonic()
    time.sleep(0.2)  # continues after the signal
    assert time.monotonic() - began >= 0.2
    assert seen[-1] == signal.SIGALRM
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while len(seen) < 3:  # a handler breaks into a busy loop
        pass

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        threading.Event().wait(30)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("an exception from a handler got lost")
    assert signal.sigtimedwait([signal.SIGUSR2], 0.02) is None


@check
def files() -> None:
    """Files, folders, locks, mapped files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(os.urandom(1_000_000))
        copy = Path(folder) / "copy"
        copy.write_bytes(path.read_bytes())
        assert hashlib.md5(copy.read_bytes()).digest() == hashlib.md5(path.read_bytes()).digest()
        path.rename(Path(folder) / "renamed")
        assert sorted(os.listdir(folder)) == ["copy", "renamed"]


@check
def sockets() -> None:
    """TCP between threads, select and selectors."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        thread = threading.Thread(target=echo)
        thread.start()
        payload = os.urandom(2_000_000)
        with socket.create_connection(server.getsockname()) as client:

            def send() -> None:
                client.sendall(payload)
                client.shutdown(socket.SHUT_WR)

            sender = threading.Thread(target=send)
            sender.start()
            received = bytearray()
            while data := client.recv(65536):
                received += data
            sender.join()
        thread.join()
        assert bytes(received) == payload
    left, right = socket.socketpair()
    with left, right, selectors.DefaultSelector() as selector:
        selector.register(right, selectors.EVENT_READ)
        assert selector.select(0.01) == []
        left.send(b"x")
        assert len(selector.select(1)) == 1
        assert select.select([right], [], [], 1)[0] == [right]


@check
def asyncio_everything() -> None:
    """Tasks, streams, sub-processes, timeouts, signals in the event loop."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]

        async def talk(number: int) -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(20):
                writer.write(f"client {number}\n".encode())
                if await reader.readline() != f"CLIENT {number}\n".encode():
                    return False
            writer.close()
            return True

        assert all(await asyncio.gather(*(talk(n) for n in range(20))))
        server.close()
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", "read x; echo got $x; exit 4", stdin=-1, stdout=-1
        )
        out, _ = await child.communicate(b"line\n")
        assert (out, child.returncode) == (b"got line\n", 4)
        try:
            await asyncio.wait_for(asyncio.sleep(30), 0.05)
        except TimeoutError:
            pass
        else:
            raise AssertionError("no timeout")
        event = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, event.set)
        os.kill(os.getpid(), signal.SIGUSR2)
        await asyncio.wait_for(event.wait(), 5)

    asyncio.run(main())


@check
def uvloop_too() -> None:
    """The same kind of work on uvloop, a separate C library."""
    import uvloop

    async def main() -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        good = 0
        for n in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"%d\n" % n)
            good += await reader.readline() == b"%d\n" % n
            writer.close()
        return good

    assert uvloop.run(main()) == 50


@check
def zmq_messages() -> None:
    """ZeroMQ, with its own I/O threads."""
    import zmq

    context = zmq.Context()
    server, client = context.socket(zmq.REP), context.socket(zmq.REQ)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    client.connect(f"tcp://127.0.0.1:{port}")
    for n in range(500):
        client.send(b"%d" % n)
        server.send(server.recv() + b"!")
        assert client.recv() == b"%d!" % n
    client.close()
    server.close()
    context.term()


@check
def digests() -> None:
    """hashlib on openssl's assembly, against known answers."""
    assert hashlib.sha256(b"abc").hexdigest().startswith("ba7816bf8f01cfea")
    assert hashlib.sha512(b"abc").hexdigest().startswith("ddaf35a193617aba")
    assert hashlib.sha1(b"a" * 1_000_000).hexdigest() == "34aa973cd4c4daa4f61eeb2bdbad27316534016f"
    assert hashlib.blake2b(b"abc").hexdigest().startswith("ba80a53f981c4d0d")
    assert zlib.crc32(zlib.decompress(zlib.compress(b"n" * 1_000_000))) == zlib.crc32(b"n" * 1_000_000)
    assert ssl.OPENSSL_VERSION.startswith("OpenSSL 3.")
    assert json.loads(json.dumps({"a": [1.5, None, "ä"]})) == {"a": [1.5, None, "ä"]}


@check
def numpy_products() -> None:
    """numpy with OpenBLAS, its kernels for this processor and its own threads."""
    import numpy

    random = numpy.random.default_rng(1)
    a, b = random.standard_normal((400, 300)), random.standard_normal((300, 200))
    assert numpy.allclose(a @ b, sum(numpy.outer(a[:, k], b[k]) for k in range(300)))
    square = random.standard_normal((200, 200))
    assert numpy.allclose(square @ numpy.linalg.inv(square), numpy.eye(200), atol=1e-8)
    assert numpy.allclose(numpy.fft.ifft(numpy.fft.fft(a[0])).real, a[0])
    assert numpy.sort(random.integers(0, 1000, 100_000)).sum() > 0


@check
def numpy_in_threads() -> None:
    """Vector registers under preemption: the same product in many threads at once."""
    import numpy

    a = numpy.arange(40_000, dtype=float).reshape(200, 200) / 1000
    expected = a @ a
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not numpy.array_equal(a @ a, expected):
                wrong.append(number)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def main() -> int:
    """Run all checks, or those named."""
    failures = 0
    chosen = [function for function in CHECKS if not sys.argv[1:] or function.__name__ in sys.argv[1:]]
    for number, function in enumerate(chosen, 1):
        try:
            function()
        except BaseException:
            failures += 1
            print(f"not ok {number} - {function.__doc__}", flush=True)
            print(f"# {function.__name__}: {traceback.format_exc(limit=-3)!r}", flush=True)
        else:
            print(f"ok {number} - {function.__doc__}", flush=True)
    print(f"1..{len(chosen)}", flush=True)
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
