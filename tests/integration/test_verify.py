# SPDX-License-Identifier: Apache-2.0
"""What was built, seen by the stand-alone checkers as `doit verify` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla import paths, tasklib
from nabla.tasklib import Job
from nabla.tasks import verify
from nabla.tasks.verify import VerifyError
from verify import kernel_code

CACHE = paths.cache_dir()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """What a task gets."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    made = Job("verify:test", tmp_path / "log")
    yield made
    tasklib.remove(made.scratch())


def test_everything_is_position_independent(job: Job) -> None:
    verify.check_pie(job)
    table = job.log.read_text()
    for name in ("ld-musl-x86_64.so.1", "busybox", "nabla-init", "nabla-run"):
        assert f"{name}" in table


def test_kernel_leaves_guest_registers_alone(job: Job) -> None:
    verify.check_kernel(job)
    assert " 0 forbidden, " in job.log.read_text()


def test_a_forbidden_instruction_fails_the_task(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(kernel_code.POLICY.read_text().replace('"um_host_exit"', '"um_host_exits"'))
    monkeypatch.setattr(kernel_code, "POLICY", policy)
    with pytest.raises(VerifyError, match=r"out/kernel/vmlinux: um_host_exit: syscall: syscall"):
        verify.check_kernel(job)
