# SPDX-License-Identifier: Apache-2.0
"""Sandboxes for asyncio: the same behavior as of the others, many at once, and cancellation."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from nabla.core.paths import NABLA_RUN

from .conftest import image_of
from .instant import Cache
from .instant import cache as cache
from .sandboxes import aio, commands, files, nabla_linux
from .vm import Vm

AsyncSandbox = nabla_linux.AsyncSandbox
MANY = 100


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test; asyncio reports sockets and coroutines that are left."""
    asyncio.run(main(), debug=True)


def test_same_names() -> None:
    """Each public method has the name, the parameters and the result of its counterpart."""
    pairs = [
        (nabla_linux.Sandbox, AsyncSandbox),
        (nabla_linux.CommandHandle, nabla_linux.AsyncCommandHandle),
        (commands.Commands, aio.AsyncCommands),
        (files.Files, aio.AsyncFiles),
    ]
    for usual, other in pairs:
        names = {name for name in vars(usual) if not name.startswith("_")}
        assert names == {name for name in vars(other) if not name.startswith("_")}
        for name in names:
            signatures = [inspect.signature(getattr(each, name)) for each in (usual, other)]
            assert signatures[0].parameters == signatures[1].parameters, name
            results = [str(each.return_annotation) for each in signatures]
            assert results[1].replace("Async", "") == results[0], name


def test_commands_and_files(minimal: Vm) -> None:
    async def main() -> None:
        async with await AsyncSandbox.create(minimal.image, memory="64M", env={"A": "1"}, nabla_run=NABLA_RUN) as box:
            seen: list[str] = []
            result = await box.commands.run(
                "pwd; echo $A$B; echo e >&2; exit 3", cwd="/tmp", env={"B": "2"}, on_stdout=seen.append
            )
            assert (result.exit_code, result.stdout, result.stderr) == (3, "/tmp\n12\n", "e\n")
            assert "".join(seen) == result.stdout
            text = "0123456789abcde\n" * 100_000
            assert (await box.commands.run(["cat"], stdin=text)).stdout == text
            content = os.urandom(700_000)
            await box.files.make_dir("/tmp/a/b")
            await box.files.write("/tmp/a/x", content, 0o600)
            assert await box.files.read("/tmp/a/x") == content
            assert await box.files.list("/tmp/a") == ["b", "x"]
            await box.files.rename("/tmp/a/x", "/tmp/a/y")
            assert await box.files.exists("/tmp/a/y") and not await box.files.exists("/tmp/a/x")
            await box.files.remove("/tmp/a")
            with pytest.raises(nabla_linux.GuestFileError, match="/tmp/a"):
                await box.files.read("/tmp/a")
            with pytest.raises(nabla_linux.CommandStartError, match="nothing"):
                await box.commands.run(["nothing"])
            with pytest.raises(nabla_linux.OutputLimit):
                await box.commands.run("yes", max_output=1000)
            assert (await box.metrics())["memory_limit_kib"] == 65536
            await box.pause()
            with pytest.raises(nabla_linux.ProtocolError, match="paused"):
                await box.commands.run("true")
            await box.resume()
            async with await box.commands.start(["cat"], stdin=True) as handle:
                await handle.send_stdin("a")
                assert (await handle.wait(30)).stdout == "a"
            async with await box.commands.start("exec sleep 1000") as handle:
                await handle.kill()
                assert (await handle.wait(30)).exit_code == 128 + 9
        assert not box.is_running()
        with pytest.raises(nabla_linux.ProtocolError, match="has ended"):
            await box.commands.run("true")

    run(main)


def test_timeout_and_cancellation(minimal: Vm) -> None:
    """A program whose caller is cancelled gets SIGHUP; one that takes too long is killed."""

    async def main() -> None:
        async with await AsyncSandbox.create(minimal.image, memory="64M", nabla_run=NABLA_RUN) as box:
            with pytest.raises(nabla_linux.SandboxTimeout, match=r"within 0\.2 s"):
                await box.commands.run("exec sleep 98765", timeout=0.2)
            # a shell reports on a standard error that nobody reads any more how sleep ended
            script = 'exec 2>/dev/null; trap "echo >/tmp/hup; exit" HUP; echo >/tmp/up; while :; do sleep 0.01; done'
            task = asyncio.create_task(box.commands.run(script))
            while not await box.files.exists("/tmp/up"):
                pass
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while not await box.files.exists("/tmp/hup"):
                pass
            assert (await box.commands.run(["pidof", "sleep"])).stdout.split() != []

    run(main)


def test_bad_start(minimal: Vm) -> None:
    async def main() -> None:
        with pytest.raises(nabla_linux.StartError, match="no-such-image"):
            await AsyncSandbox.create("/no-such-image", nabla_run=NABLA_RUN)
        with pytest.raises(nabla_linux.StartError, match="no-such-program"):
            await AsyncSandbox.create(minimal.image, nabla_run="/no-such-program")

    run(main)


def test_hundred_at_once(cache: Cache) -> None:
    """From one snapshot; each runs code, has files of its own, and ends."""
    image = image_of("python")

    async def one(snapshot: Path, number: int) -> str:
        async with await AsyncSandbox.create(image, snapshot=snapshot, nabla_run=NABLA_RUN) as box:
            await box.files.write("/tmp/number", str(number))
            await box.run_code("import random\nx = open('/tmp/number').read()")
            assert (await box.run_code("x")).text == f"'{number}'"
            return (await box.run_code("open('/proc/sys/kernel/random/uuid').read()")).text

    async def main() -> None:
        snapshot = nabla_linux.warm_python(image, memory="128M", nabla_run=NABLA_RUN)
        numbers = await asyncio.gather(*(one(snapshot, number) for number in range(MANY)))
        assert len(set(numbers)) == MANY
        async with await AsyncSandbox.create(image, snapshot=snapshot, nabla_run=NABLA_RUN) as box:
            await box.run_code("y = 1")
            forks = await box.fork(3)
            texts = await asyncio.gather(*(each.run_code("y") for each in forks))
            await asyncio.gather(*(each.kill() for each in forks))
            assert [each.text for each in texts] == ["1"] * 3
            with pytest.raises(nabla_linux.SandboxTimeout, match="code did not end"):
                await box.run_code("while True: pass", timeout=0.3)
            assert "NameError" in (await box.run_code("y")).error

    run(main)
