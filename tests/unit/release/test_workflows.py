# SPDX-License-Identifier: Apache-2.0
"""The workflows of the hosting site: they parse, and call only existing tasks of this repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nabla.core.paths import ROOT, cache_dir
from verify.release.layout import keys_dir

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
NEEDED = {
    "ci.yml": ["test"],
    "release.yml": ["release", "verify:release"],
    "repro.yml": ["repro", "digests"],
    "weekly.yml": ["outdated", "package-test", "recipe:lint"],
}


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _steps(path: Path) -> list[Any]:
    return [step for job in _load(path)["jobs"].values() for step in job["steps"]]


def _tasks(path: Path) -> list[str]:
    """Return the words after ./doit.sh, in order, without variables of doit."""
    runs = "\n".join(step["run"] for step in _steps(path) if "run" in step)
    words = [word for line in re.findall(r"^\./doit\.sh (.*)$", runs, re.MULTILINE) for word in line.split()]
    return [word for word in words if "=" not in word]


@pytest.fixture(scope="module")
def known() -> set[str]:
    """Return all tasks, as listed by doit."""
    words = [sys.executable, "-m", "doit", "list", "--all", "--quiet"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_all_are_there() -> None:
    assert {path.name for path in WORKFLOWS} == NEEDED.keys()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_tasks_exist(path: Path, known: set[str]) -> None:
    named = [task for task in _tasks(path) if task != "doctor"]
    assert named == NEEDED[path.name]
    assert set(_tasks(path)) <= known


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_is_a_workflow(path: Path) -> None:
    data = _load(path)
    # YAML 1.1 reads the key `on` as a truth value.
    assert data.keys() == {"name", True, "permissions", "jobs"} | ({"concurrency"} if path.name == "ci.yml" else set())
    assert data["permissions"] == {"contents": "read"}
    for step in _steps(path):
        assert ("run" in step) != ("uses" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_shell_is_sound(path: Path) -> None:
    """The scripts as a shell receives them, with each expression of the site replaced by a word."""
    for step in _steps(path):
        if "run" in step:
            script = re.sub(r"\$\{\{[^}]*\}\}", "word", step["run"])
            words = [str(Path(sys.executable).parent / "shellcheck"), "--shell=bash", "-"]
            result = subprocess.run(words, input=script, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_expression_inside_of_scripts(path: Path) -> None:
    """A branch's name would become part of the script: values come as variables."""
    assert not [step["run"] for step in _steps(path) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_history_and_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, *_ = [step for step in _steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0  # the version comes from tags
    cached = [step["with"]["path"] for step in _steps(path) if step.get("uses", "").startswith("actions/cache@")]
    assert cached == ["~/.cache/nabla"]
    monkeypatch.delenv("NABLA_CACHE")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_dir() == Path("/home/somebody/.cache/nabla")


def test_keys_are_put_where_they_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert keys_dir() == Path("/home/somebody/.config/nabla/keys")
    scripts = [step["run"] for step in _steps(ROOT / ".github" / "workflows" / "release.yml") if "run" in step]
    assert any("tar -C ~/.config/nabla/keys -xf -" in script for script in scripts)
    assert any("rm -rf ~/.config/nabla/keys" in script for script in scripts)


def test_only_the_site_itself_attests() -> None:
    """A statement of the platform needs a token, which only the release's job has; it is about the stored archive."""
    granted = {
        path.name: job["permissions"]
        for path in WORKFLOWS
        for job in _load(path)["jobs"].values()
        if "permissions" in job
    }
    assert granted == {"release.yml": {"contents": "read", "id-token": "write", "attestations": "write"}}
    uses = {
        step["uses"].split("@")[0]: step["with"]
        for step in _steps(WORKFLOWS[0].with_name("release.yml"))
        if "uses" in step
    }
    attested, stored = uses["actions/attest-build-provenance"], uses["actions/upload-artifact"]
    assert attested["subject-path"] == stored["path"]


def test_tags_of_releases_are_those_of_versions() -> None:
    from nabla.core.version import _VERSION

    (pattern,) = _load(ROOT / ".github" / "workflows" / "release.yml")[True]["push"]["tags"]
    assert pattern == "v[0-9]+.[0-9]+.[0-9]+*"
    # In the site's patterns a dot is a dot, and a star matches anything but a slash.
    expression = pattern.replace(".", r"\.").replace("*", "[^/]*")
    for tag, fits in (("v1.2.3", True), ("v1.2.3-rc1", True), ("v1.2", False), ("vienna", False)):
        assert bool(re.fullmatch(expression, tag)) == fits
        assert bool(_VERSION.fullmatch(tag.removeprefix("v"))) == fits
