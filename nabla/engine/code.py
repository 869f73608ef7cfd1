# SPDX-License-Identifier: Apache-2.0
"""The code that a step depends on: the module of its action and every project module imported from there, at any depth.

The imports are read from the source, also those inside functions. `core` and `engine` do not count: they run steps and
decide nothing about what a step makes. Comments, layout and docstrings do not count either (nabla.core.digest).
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from nabla.core import digest
from nabla.core.paths import ROOT

_APART = ("nabla.core", "nabla.engine")


@cache
def closure(module: str) -> Mapping[str, str]:
    """Return the digest of each module that the named module needs, itself included, by path below the checkout."""
    found: dict[str, str] = {}
    pending = [module]
    seen = {module}
    while pending:
        name = pending.pop()
        path = _file(name)
        if path is None:
            continue
        found[str(path.relative_to(ROOT))] = _digest(path)
        wanted = {each for each in _imports(name, path) if not _is_apart(each)} - seen
        seen |= wanted
        pending += wanted
    return dict(sorted(found.items()))


@cache
def _file(module: str) -> Path | None:
    """Return the file of a module of this checkout; None for modules of others."""
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _digest(path: Path) -> str:
    return digest.python_digest(path)


@cache
def _imports(module: str, path: Path) -> tuple[str, ...]:
    """Return the project modules that a file imports, and the packages around them."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = digest.remembered("imports", path, lambda file: "\n".join(_names(file, package))).split()
    found = {name for name in names if _file(name) is not None}
    return tuple(sorted(found | {each for name in (*found, module) for each in _packages(name)}))


def _names(path: Path, package: str) -> Iterator[str]:
    """Yield the names after each `import`; a name after `from … import` may be a module or what is in one."""
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


def _is_apart(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in _APART)
