# SPDX-License-Identifier: Apache-2.0
"""The built artifacts, checked by the stand-alone checkers as in `doit verify`."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from nabla.build import kernel_check
from nabla.core import artifacts, files, paths
from nabla.core.artifacts import verify_reports
from nabla.core.errors import VerifyError
from nabla.engine.action import Job
from nabla.images import descriptions, program_check
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind, Sandbox
from verify import contents, kernel_code, pie, syscalls

CACHE = paths.cache_dir()


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job as tasks receive it."""
    monkeypatch.setenv("NABLA_CACHE", str(CACHE))
    job = Job("verify:test", tmp_path / "log")
    yield job
    files.remove(job.scratch())


def test_everything_is_position_independent(job: Job) -> None:
    program_check.check_pie(job)
    table = job.log.read_text()
    for name in ("ld-musl-x86_64.so.1", "busybox", "nabla-init", "nabla-run"):
        assert f"{name}" in table


@pytest.mark.parametrize("name", ["minimal", "alpine", "python"])
def test_images_hold_only_what_can_run(job: Job, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "VERIFY_REPORTS", tmp_path)
    job.outputs = tuple(verify_reports(name))
    program_check.check_image(job, name)
    findings = json.loads(job.out(tmp_path / f"{name}-pie.json").read_text())
    suite = ET.fromstring(job.out(tmp_path / f"{name}-pie.xml").read_text())
    assert suite.get("failures") == "0"
    assert len(suite) == len(findings) > 2
    if name == "alpine":
        owners = {finding["path"]: finding["owner"] for finding in findings}
        assert owners["/sbin/apk"] == "apk-tools"
    else:
        calls = json.loads(job.out(tmp_path / f"{name}-syscalls.json").read_text())
        assert [call["path"] for call in calls if call["uses"]] == []


@pytest.mark.parametrize("image", descriptions.names())
def test_image_agrees_with_readelf(job: Job, image: str, tmp_path: Path) -> None:
    """An independent check finds the same files and verdicts: debugfs extracts the image, readelf examines it."""
    tree, out = tmp_path / "tree", tmp_path / "readelf"
    tree.mkdir()
    tools = paths.WORK / "image-tools"
    base = [*bwrap.base(tools, user=0), "--bind", str(tmp_path), "/scratch"]
    bind = ["--ro-bind", str(paths.IMAGES / f"{image}.ext3"), "/tmp/image"]
    subprocess.run(
        [*base, *bind, "debugfs", "-R", "rdump / /scratch/tree", "/tmp/image"], capture_output=True, check=True
    )
    files = (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())
    programs = [str(path.relative_to(tmp_path)) for path in files if path.read_bytes()[:4] == b"\x7fELF"]
    (tmp_path / "programs").write_text("".join(f"{name}\n" for name in programs))
    script = 'while read -r x; do echo "@@$x"; readelf -lhdW "$x"; done <programs >readelf'
    Sandbox((Bind(tmp_path, "/build", writable=True),)).run(script, title="readelf")
    theirs = {}
    for part in out.read_text(errors="replace").split("@@tree")[1:]:
        name, text = part.split("\n", 1)
        program = "Requesting program interpreter" in text and "(SONAME)" not in text
        if re.search(r"Type:\s+REL ", text):  # no program yet
            theirs[name] = True
            continue
        theirs[name] = bool(re.search(r"Type:\s+DYN", text)) and (("Flags:" in text and "PIE" in text) or not program)
    ours = {f.path: not any(p.startswith(("fixed", "no DF")) for p in f.problems) for f in _findings(image)}
    assert ours.keys() >= {"/sbin/nabla-init"}
    assert ours == theirs
    assert all(ours.values())


def test_committed_table_of_raw_system_calls() -> None:
    """docs/raw-syscalls.md lists the findings in the released images."""
    rows = []
    for name in ("minimal", "alpine", "python"):
        for finding in syscalls.examine_all(contents.read(paths.IMAGES / f"{name}.ext3")):
            assert not finding.problem
            counted = Counter((use.function, use.instruction) for use in finding.uses)
            for (function, instruction), number in counted.items():
                rows.append(f"| {name} | {finding.path} | {finding.owner} | {function} | {number} | {instruction} |")
    page = (paths.ROOT / "docs" / "raw-syscalls.md").read_text()
    assert page.split("|---|---|---|---|---|---|\n")[1].splitlines() == rows


def _findings(name: str) -> list[pie.Finding]:
    return pie.examine_all(contents.read(paths.IMAGES / f"{name}.ext3"))


def test_kernel_leaves_guest_registers_alone(job: Job) -> None:
    kernel_check.check_kernel(job)
    assert " 0 forbidden, " in job.log.read_text()


def test_a_forbidden_instruction_fails_the_task(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(kernel_code.POLICY.read_text().replace('"um_host_exit"', '"um_host_exits"'))
    monkeypatch.setattr(kernel_code, "POLICY", policy)
    with pytest.raises(VerifyError, match=r"out/kernel/vmlinux: um_host_exit: syscall: syscall"):
        kernel_check.check_kernel(job)
