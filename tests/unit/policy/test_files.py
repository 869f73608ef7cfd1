# SPDX-License-Identifier: Apache-2.0
"""The committed files generated from the policy are up to date: the kernel patch and the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nabla.core.errors import ConfigError, PatchError
from nabla.core.paths import ROOT
from nabla.engine.action import Job
from nabla.policy import document, header, model, patch_text
from nabla.policy import tasks as task
from nabla.policy.model import Rule
from nabla.sources import recipe

RENEW = "run: doit lock:policy"


def series() -> tuple[Path, ...]:
    return recipe.load("linux").patches


def test_the_kernels_header_is_up_to_date() -> None:
    added = patch_text.find(series(), task.HEADER)
    assert added.text == header.render(model.load()), RENEW


def test_the_page_is_up_to_date() -> None:
    page = document.PAGE.read_text(encoding="utf-8")
    assert page == document.render(model.load(), document.read_rates()), RENEW


def test_the_page_tells_everything() -> None:
    rates, page = document.read_rates(), document.PAGE.read_text(encoding="utf-8")
    assert {load.name for load in rates.loads} >= {"idle", "console", "processes", "disk", "network"}
    for call in model.load().calls:
        assert f"| `{call.name}` | `{call.file}` | {', '.join(call.features)} | {call.reason} |" in page
        rates_of = next(line for line in page.splitlines() if re.match(rf"\| `{call.name}` \| [\d–]", line))
        assert rates_of.count("|") == 2 + len(rates.loads)
        for allow in call.allow:
            assert allow.what in page
            for name, rule in zip(call.arguments, allow.rules, strict=True):
                assert f"`{name}`: {document.describe(rule)}" in page
    assert all(load.calls.keys() == {call.name for call in model.load().calls} for load in rates.loads)


def test_words_for_rules() -> None:
    assert document.describe(Rule(one_of=(0, 0x1001))) == "one of 0, 0x1001"
    assert document.describe(Rule(equals="TIMER")) == "the VM's timer"


@pytest.mark.parametrize("text", ["", "{}", '{"cpu": "x", "kernel": "y", "loads": [{"name": "idle"}]}'])
def test_malformed_rates_are_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"rates\.json: "):
        document.read_rates(path)
    with pytest.raises(ConfigError, match="there is no"):
        document.read_rates(tmp_path / "none.json")


# --- a patch that adds a file, against git itself


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=n@example", "-c", "init.defaultBranch=main"]
    argv = ["git", *identity, "-C", str(folder), *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def export(folder: Path, text: str) -> Path:
    """Let git write the patch that adds the file beside another change."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "other.c").write_text("".join(f"line {n}\n" for n in range(40)))
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "other.c").write_text("".join(f"line {n}\n" for n in range(10, 40)) + "new\n" * 70)
    (folder / "dir").mkdir()
    (folder / "dir" / "added.h").write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "second")
    git(folder, "format-patch", "-q", "--zero-commit", "--no-signature", "-N", "--abbrev=9", "-1")
    return next(folder.glob("0001-*.patch"))


TEXTS = ["one\n", "one\ntwo\n", "\n\n+++ b/x\n-- \n", "".join(f"row {n}\n" for n in range(20)), "x\n" * 400]


@pytest.mark.parametrize("before", TEXTS)
@pytest.mark.parametrize("after", TEXTS)
def test_a_replaced_file_gives_the_patch_that_git_would_write(tmp_path: Path, before: str, after: str) -> None:
    old = export(tmp_path / "old", before)
    added = patch_text.find([old], "dir/added.h")
    assert added.text == before
    assert patch_text.replace(added, before) == old.read_text()
    new = export(tmp_path / "new", after).read_text()
    # Dates of the two commits may differ by a second.
    undated = [re.sub(r"^Date: .*$", "", text, flags=re.M) for text in (patch_text.replace(added, after), new)]
    assert undated[0] == undated[1]


def test_a_series_without_the_file_or_with_two_is_refused(tmp_path: Path) -> None:
    old = export(tmp_path / "old", "text\n")
    with pytest.raises(PatchError, match=r"exactly one patch must add no/such; patches that change it: none"):
        patch_text.find([old], "no/such")
    with pytest.raises(PatchError, match=r"patches that change it: 0001-second\.patch, 0001-second\.patch"):
        patch_text.find([old, old], "dir/added.h")
    with pytest.raises(PatchError, match=r"does not add other\.c as a new file"):
        patch_text.find([old], "other.c")
    old.write_text(old.read_text().replace("@@ -0,0 +1 @@", "@@ -0,0 +1,2 @@"))
    with pytest.raises(PatchError, match=r"dir/added\.h has 1 lines, its hunk says 2"):
        patch_text.find([old], "dir/added.h")


def test_the_task_writes_what_differs_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    originals = series()
    patches = [Path(shutil.copy(patch, tmp_path)) for patch in originals]
    page, policy_file = tmp_path / "page.md", Path(shutil.copy(model.POLICY, tmp_path))
    monkeypatch.setattr(document, "PAGE", page)
    monkeypatch.setattr(model, "load", lambda real=model.load: real(policy_file))
    monkeypatch.setattr(recipe, "load", lambda _: type("Recipe", (), {"patches": tuple(patches)}))
    job = Job("lock:policy", tmp_path / "log")
    task.update(job)
    assert page.read_text() == (ROOT / "docs" / "host-syscalls.md").read_text()
    assert [patch.read_text() for patch in patches] == [patch.read_text() for patch in originals]
    policy_file.write_text(policy_file.read_text().replace("at_most = 16 }", "at_most = 15 }"))
    task.update(job)
    changed = [new for new, old in zip(patches, originals, strict=True) if new.read_text() != old.read_text()]
    assert len(changed) == 1
    assert "/* ppoll: nfds <= 15 */" in changed[0].read_text()
    assert "`nfds`: 0 … 15" in page.read_text()
    said = [line.rpartition(": ")[2] for line in job.log.read_text().splitlines()]
    assert said == ["unchanged", "written", "written", "written"]
