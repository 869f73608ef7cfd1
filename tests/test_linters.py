# SPDX-License-Identifier: Apache-2.0
"""Linters and rules of the repository, as tests: running the tests is running everything."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from nabla.engine import discovery
from tests import prose
from tests.conftest import ROOT
from tests.repository import committed

SOURCE_SUFFIXES = {".py", ".c", ".h", ".S", ".sh", ".toml", ".in"}
MAX_LINES = 400
MAX_MODULES = 12


def python_files() -> list[Path]:
    return [path for path in committed() if path.suffix == ".py"]


def shell_scripts() -> list[Path]:
    paths = []
    for path in committed():
        with path.open("rb") as stream:
            if re.match(rb"#!\s*/(usr/)?bin/(env )?(ba|da)?sh\b", stream.readline()):
                paths.append(path)
    return paths


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(text_of(path))


def check(*argv: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(map(str, argv[:4]))} …\n{result.stdout}{result.stderr}"


def tool(name: str) -> Path:
    """A program of the virtual environment."""
    return Path(sys.executable).parent / name


def test_ruff() -> None:
    check(tool("ruff"), "check", ROOT)


def test_ruff_format() -> None:
    check(tool("ruff"), "format", "--check", ROOT)


def test_mypy() -> None:
    roots = [name for name in ("dodo.py", "nabla", "verify", "bench", "demo", "tests") if (ROOT / name).exists()]
    present = [name for name in roots if name.endswith(".py") or any((ROOT / name).rglob("*.py"))]
    check(sys.executable, "-m", "mypy", *present)


def test_import_contracts() -> None:
    """The layers of nabla, no cycles, and the independence of verify/ (pyproject.toml)."""
    check(tool("lint-imports"))


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("nabla/core/files.py", "from nabla.engine import task", "areas of nabla import those of lower layers only"),
        ("nabla/sources/apt.py", "def late():\n    from nabla.images import compose", "areas of nabla import"),
        ("nabla/sbom/inventory.py", "import nabla.sbom.collect", "no area has an import cycle"),
        ("verify/elf.py", "import nabla.core.log", "the checkers share no code with what makes the artifacts"),
        ("nabla/core/log.py", "import tests.prose", "the build system needs neither"),
    ],
)
def test_import_contracts_refuse(tmp_path: Path, module: str, statement: str, contract: str) -> None:
    """An import upward, also inside a function; a cycle within an area; an import by a checker; one of the tests."""
    for path in [*python_files(), ROOT / "pyproject.toml"]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    with (tmp_path / module).open("a") as stream:
        stream.write(f"\n{statement}\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [tool("lint-imports"), "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [line for line in result.stdout.splitlines() if line.endswith(" BROKEN")]
    assert any(line.startswith(contract) for line in broken), result.stdout


def test_folders_are_small() -> None:
    """An area has at most a dozen modules. Tests are separate programs, one beside the other."""
    modules = [path for path in python_files() if path.name != "__init__.py"]
    numbers = Counter(path.parent for path in modules if path.relative_to(ROOT).parts[0] != "tests")
    assert {str(folder): number for folder, number in numbers.items() if number > MAX_MODULES} == {}


def test_shellcheck() -> None:
    # The guest's scripts try out the very constructs that shellcheck advises against.
    scripts = [path for path in shell_scripts() if not path.is_relative_to(ROOT / "tests" / "guest")]
    assert ROOT / "doit.sh" in scripts
    check(tool("shellcheck"), *scripts)


def test_sources_name_their_license() -> None:
    nameless = [
        path.relative_to(ROOT)
        for path in committed()
        if path.suffix in SOURCE_SUFFIXES
        and path.stat().st_size
        and "SPDX-License-Identifier:" not in "".join(text_of(path).splitlines(keepends=True)[:5])
        and path.name not in ("requirements.in", "requirements-farm.in")
    ]
    assert nameless == []


def test_modules_are_short() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in committed()
        if path.suffix in (".py", ".c", ".h", ".sh") and (lines := text_of(path).count("\n")) > MAX_LINES
    }
    assert long == {}
    assert text_of(ROOT / "dodo.py").count("\n") < 100


def test_public_things_have_a_docstring() -> None:
    bare = []
    for path in python_files():
        if path.is_relative_to(ROOT / "tests"):
            continue
        tree = tree_of(path)
        for node in [tree, *ast.walk(tree)]:
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            name = getattr(node, "name", "")
            if not name.startswith("_") and ast.get_docstring(node) is None and _is_outermost(node, tree):
                bare.append(f"{path.relative_to(ROOT)}: {name or 'module'}")
    assert bare == []


def test_variables_are_named_by_their_contents() -> None:
    vague = []
    for path in python_files():
        for node in ast.walk(tree_of(path)):
            name = node.arg if isinstance(node, ast.arg) else getattr(node, "id", getattr(node, "name", None))
            if name in prose.VAGUE:
                vague.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")  # type: ignore[attr-defined]
    assert vague == []


def _is_outermost(node: ast.AST, tree: ast.Module) -> bool:
    """A module, what it defines itself, or a method of a public class."""
    outer = [tree, *tree.body]
    public = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    return any(node is n for n in outer) or any(node is n for c in public for n in c.body)


def test_no_command_is_started_elsewhere() -> None:
    """nabla/core/process.py is the one place; the build's own scripts run inside its sandbox."""
    pattern = re.compile(r"\bsubprocess\b|\bos\.(system|popen|exec\w+|spawn\w+|posix_spawn)\b")
    guilty = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in python_files()
        if path.is_relative_to(ROOT / "nabla") and path.name != "process.py"
        for line in text_of(path).splitlines()
        if pattern.search(line) and not line.lstrip().startswith(("#", '"'))
    ]
    assert guilty == []


def test_no_host_of_a_package_archive_is_named() -> None:
    """Mirrors come from the host's own apt and pip settings."""
    hosts = {"deb.debian" + ".org", "pypi" + ".org", "files.pythonhosted" + ".org", "registry.npmjs" + ".org"}
    commands = (
        ["apt-get", "indextargets", "--format", "$(SITE)"],
        [sys.executable, "-m", "pip", "config", "list"],
    )
    for argv in commands:
        try:
            output = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        except FileNotFoundError:
            continue
        hosts |= {host for url in re.findall(r"https?://[^\s'\"]+", output) if (host := urlsplit(url).hostname)}
    named = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, sorted(hosts)))})")
    guilty = [
        f"{path.relative_to(ROOT)} names {match[1]}" for path in committed() for match in named.finditer(text_of(path))
    ]
    assert guilty == []


def test_only_text_is_committed() -> None:
    binary = [
        str(path.relative_to(ROOT))
        for path in committed()
        if path.suffix != ".png" and b"\0" in path.read_bytes()[:8192]
    ]
    assert binary == []


@pytest.mark.parametrize("file", ["requirements", "requirements-farm"])
def test_python_packages_are_locked(file: str) -> None:
    lines = text_of(ROOT / f"{file}.in").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-c "))]
    lock = text_of(ROOT / f"{file}.txt")
    for name in (line.split("[")[0] for line in wanted):
        normal = re.sub(r"[-_.]+", "-", name).lower()
        assert re.search(rf"^{re.escape(normal)}==[^ ]+ \\$", lock, re.MULTILINE), f"{name}: run pip-compile again"
    assert lock.count("==") <= lock.count("--hash=sha256:")
    assert "http" not in lock


def test_tasks_are_found_and_documented() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "doit", "list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = dict(re.split(r"\s+", line, maxsplit=1) for line in result.stdout.splitlines())
    assert {"all", "fetch", "musl", "busybox", "kernel", "launcher", "test", "doctor"} <= set(listed)
    assert [name for name, doc in listed.items() if not doc.strip()] == []
    for name, creator in discovery.discover().items():
        assert name.startswith("task_")
        assert creator.__module__.startswith(discovery.PACKAGES)


@pytest.mark.parametrize("words", [(".ci/run",), ("README.md",)])
def test_one_command_for_all_tests(words: tuple[str]) -> None:
    assert "./doit.sh test" in text_of(ROOT / words[0])
