# SPDX-License-Identifier: Apache-2.0
"""The launcher with sanitizers, for tests that feed it hostile input; see test_fuzz_launcher.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nabla.core.paths import LAUNCHER_SRC, VMLINUX
from nabla.sandbox.bwrap import Bind, Sandbox

from .launcher import OWN_ERROR

SANITIZED = "-g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
COMPILE = f"""
make CC=gcc-12 call_names.inc
ls *.c | xargs -P "$JOBS" -n 1 ccache gcc-12 -std=c11 -D_GNU_SOURCE {SANITIZED} -c
gcc-12 {SANITIZED} -static-libasan -static-libubsan *.o -o nabla-run
"""
SANITIZER_FAILED = 99
# exit frees memory that is still reachable.
ENVIRONMENT = {
    **os.environ,
    "NABLA_KERNEL": str(VMLINUX),
    "ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_FAILED}:abort_on_error=0",
    "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={SANITIZER_FAILED}",
}


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher with sanitizers, dynamically linked with the host's C library."""
    folder = tmp_path_factory.mktemp("launcher")
    for source in (*LAUNCHER_SRC.glob("*.[ch]"), LAUNCHER_SRC / "Makefile"):
        if not source.match("client*.c"):  # another program
            shutil.copy(source, folder)
    Sandbox((Bind(folder, "/build", writable=True),), {"JOBS": str(os.cpu_count())}).run(
        COMPILE, title="the launcher with sanitizers"
    )
    return folder / "nabla-run"


@dataclass(frozen=True)
class Victim:
    """The launcher under test, with an image and a kernel."""

    launcher: Path
    image: Path
    kernel: Path

    def run(self, *words: str | bytes | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Start it with these arguments."""
        settings: dict[str, Any] = {"capture_output": True, "stdin": subprocess.DEVNULL, "timeout": 60}
        result: subprocess.CompletedProcess[bytes] = subprocess.run(
            [self.launcher, *words], check=False, env=ENVIRONMENT, **settings | options
        )
        return result

    def judge(self, *words: str | bytes | Path, allowed: tuple[int, ...] = (0,)) -> int:
        """Start it; assert that its status is one of these, or its own after one clear line. Returns the status."""
        result = self.run(*words)
        details = f"{words}\nstatus {result.returncode}\n{result.stderr.decode(errors='replace')}"
        if result.returncode != OWN_ERROR:
            assert result.returncode in allowed, details
            return result.returncode
        assert is_one_line(result.stderr), details
        assert result.stdout == b"", details
        return OWN_ERROR


def is_one_line(text: bytes) -> bool:
    return text.startswith(b"nabla-run: ") and text.endswith(b"\n") and not re.search(rb"[\x00-\x1f\x7f]", text[:-1])


@pytest.fixture
def victim(sanitized: Path, image: Path) -> Victim:
    return Victim(sanitized, image, VMLINUX)
