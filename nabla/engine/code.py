# SPDX-License-Identifier: Apache-2.0
"""The code that a step depends on: the module of its action and all project modules that it imports, at any depth.

The imports are read from the source, including those in functions. `core` and `engine` are excluded: they run steps and
do not affect their results. Comments, layout and docstrings are excluded, too (nabla.core.digest).
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from nabla.core import digest
from nabla.core.paths import ROOT

_EXCLUDED = ("nabla.core", "nabla.engine")


@cache
def closure(module: str) -> Mapping[str, str]:
    """Return path -> digest of a module and of all modules that it imports."""
    digests: dict[str, str] = {}
    pending = [module]
    seen = {module}
    while pending:
        name = pending.pop()
        path = _file(name)
        if path is None:
            continue
        digests[str(path.relative_to(ROOT))] = _digest(path)
        new = {each for each in _imports(name, path) if not _is_excluded(each)} - seen
        seen |= new
        pending += new
    return dict(sorted(digests.items()))


@cache
def _file(module: str) -> Path | None:
    """Return the file of a module of this project; None for other modules."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _digest(path: Path) -> str:
    return digest.python_digest(path)


@cache
def _imports(module: str, path: Path) -> tuple[str, ...]:
    """Return the project modules that a file imports, and their parent packages."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = digest.cached("imports", path, lambda file: "\n".join(_names(file, package))).split()
    modules = {name for name in names if _file(name) is not None}
    return tuple(sorted(modules | {each for name in (*modules, module) for each in _packages(name)}))


def _names(path: Path, package: str) -> Iterator[str]:
    """Yield the names after each `import`; a name after `from … import` may be a module or an object in one."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _packages(module: str) -> Iterator[str]:
    while module := module.rpartition(".")[0]:
        yield module


def _is_excluded(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _EXCLUDED)
