# SPDX-License-Identifier: Apache-2.0
"""Recipes built in the sandbox by doit in a small checkout: the steps that run again after each change, and the state
after a failure or a kill."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT, Checkout

TASKS = """\
from nabla.build import component
from nabla.core.paths import OUT
from nabla.core.artifacts import Tree

def task_hello():
    "Build hello."
    yield from component.steps("hello", "hello", {"bin": Tree(OUT / "hello")}, doc="build hello", with_musl=False)
"""
RECIPE = """\
name = "hello"
version = "1"
license = "Apache-2.0"
summary = "A program for tests"
[[source]]
name = "hello"
local = "hello"
[build]
configure = "echo configured >>$RECIPE_LOG"
build = "sh build.sh"
install = "mkdir $DESTDIR/bin; cp hello $DESTDIR/bin/"
env = { RECIPE_LOG = "/build/history" }
"""
BUILD = "echo built >>/build/history\ngcc -c hello.c -o hello.o\ngcc hello.o -o hello\n"
PATCH = """\
Subject: {subject}

--- a/hello.c
+++ b/hello.c
@@ -1 +1 @@
-int main(void) {{ return 0; }}
+int main(void) {{ return {status}; }}
"""


@pytest.fixture
def hello(checkout: Checkout, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Checkout:
    """A checkout with one recipe and its source; results of earlier tests are not in the cache."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    monkeypatch.setenv("NABLA_FRESH", "1")
    for area in ("sources", "sandbox"):
        shutil.copy(ROOT / "nabla" / area / "tasks.py", checkout.root / "nabla" / area)
    shutil.copytree(ROOT / "toolchain", checkout.root / "toolchain", symlinks=True)
    shutil.copytree(ROOT / "recipes" / "keys", checkout.root / "recipes" / "keys")
    checkout.task_module("hello", TASKS)
    checkout.write("recipes/hello/recipe.toml", RECIPE)
    checkout.write("hello/hello.c", "int main(void) { return 0; }\n")
    checkout.write("hello/build.sh", BUILD)
    return checkout


def ran(output: str) -> list[str]:
    """Return the steps of hello that ran, from doit's output."""
    return [line.split(":")[1] for line in output.splitlines() if line.startswith("hello:") and ": done in" in line]


def history(checkout: Checkout) -> list[str]:
    return (checkout.root / "out/work/hello/build/history").read_text().split()


def status(checkout: Checkout) -> int:
    return os.waitstatus_to_exitcode(os.system(f"'{checkout.root}/out/hello/hello'"))


ALL = ["unpack", "patch", "configure", "build", "install"]


def test_what_runs_again(hello: Checkout) -> None:
    assert ran(hello.doit("hello")) == ALL
    assert status(hello) == 0
    assert ran(hello.doit("hello")) == []

    hello.write("patches/hello/0001-x.patch", PATCH.format(subject="seven", status=7))
    assert ran(hello.doit("hello")) == ALL[1:]
    assert status(hello) == 7
    hello.write("patches/hello/0001-x.patch", PATCH.format(subject="other words, same change", status=7))
    assert ran(hello.doit("hello")) == ["patch"]
    (hello.root / "patches/hello/0001-x.patch").unlink()
    assert ran(hello.doit("hello")) == ALL[1:]
    assert status(hello) == 0

    hello.write("hello/hello.c", "int main(void) { return 3; }\n")
    assert ran(hello.doit("hello")) == ALL
    assert status(hello) == 3
    hello.write("recipes/hello/recipe.toml", RECIPE.replace("cp hello $DESTDIR", "cp -v hello $DESTDIR"))
    assert ran(hello.doit("hello")) == ["install"]
    hello.write("recipes/hello/recipe.toml", RECIPE.replace("A program", "The program"))
    assert ran(hello.doit("hello")) == ["install"]  # back to the previous state

    (hello.root / "out/hello/hello").write_text("damaged")
    assert ran(hello.doit("hello")) == ["install"]
    # Unused results may be removed; a result that is needed later is built again.
    shutil.rmtree(hello.root / "out/work/hello/build")
    shutil.rmtree(hello.root / "out/work/hello/source")
    assert ran(hello.doit("hello")) == []
    shutil.rmtree(hello.root / "out/hello")
    assert ran(hello.doit("hello")) == ["install"]
    assert status(hello) == 3


def test_result_out_of_the_cache(hello: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is unpacked for it; a later change then builds as if everything had been built here."""
    hello.write("hello/hello.c", f"int main(void) {{ return 0; }}\n// {time.time_ns()}\n")
    hello.doit("hello")
    shutil.rmtree(hello.root / "out")
    monkeypatch.delenv("NABLA_FRESH")
    assert ran(hello.doit("hello")) == ALL
    assert status(hello) == 0
    assert not (hello.root / "out/work/hello/source").exists()
    assert not (hello.root / "out/work/hello/build").exists()
    hello.write("patches/hello/0001-x.patch", PATCH.format(subject="seven", status=7))
    assert ran(hello.doit("hello")) == ALL[1:]
    assert status(hello) == 7


def test_patch_that_does_not_apply(hello: Checkout) -> None:
    hello.doit("hello")
    hello.write("patches/hello/0001-x.patch", PATCH.format(subject="x", status=7).replace("return 0", "return 9"))
    output = hello.doit("hello", status=2)
    assert "error: patches/hello/0001-x.patch does not apply (patch 1 of 1)" in output
    assert "hello.c: Hunk #1 FAILED" in output
    assert "Traceback" not in output
    assert status(hello) == 0


def test_failed_build_keeps_the_previous_result(hello: Checkout) -> None:
    hello.doit("hello")
    hello.write("hello/hello.c", "int main(void) { return zero; }\n")
    output = hello.doit("hello", status=2)
    assert "error: hello: build failed with exit status 1" in output
    assert "'zero' undeclared" in output
    assert "out/logs/hello-build.log" in output
    assert status(hello) == 0
    hello.write("hello/hello.c", "int main(void) { return 5; }\n")
    assert ran(hello.doit("hello")) == ALL
    assert status(hello) == 5


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_build_starts_over(hello: Checkout, number: signal.Signals) -> None:
    """A truncated object must not count as finished."""
    half = "if ! test -e /tools/second; then echo cut >hello.o; touch /build/half; sleep 60; fi\n"
    hello.write("hello/build.sh", f"{half}test -e hello.o && exit 9\n{BUILD}")
    with hello.popen("hello") as process:
        wait_for(hello.root / "out/work/hello/build/half")
        process.send_signal(number)
        process.wait(timeout=30)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130)
    assert not (hello.root / "out/hello").exists()
    (hello.root / "toolchain" / "second").touch()
    assert ran(hello.doit("hello")) == ["build", "install"]
    assert history(hello) == ["configured", "built"]
    assert status(hello) == 0


def test_two_doits_at_once(hello: Checkout) -> None:
    hello.doit("toolchain")
    with hello.popen("hello") as one, hello.popen("hello") as other:
        for process in (one, other):
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    assert status(hello) == 0
