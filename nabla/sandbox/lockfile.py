# SPDX-License-Identifier: Apache-2.0
"""The two committed files of a build root: its requirements (packages.toml) and their resolution (buildroot.lock).

A lock has one line for each package, `name version architecture size sha256 path`, sorted, after a header with the
digests of the requirements that it resolves and of the tree that it unpacks to. Both are checked, so a stale file is
noticed.

Builds use three such pairs: `BASE` for kernel, libc and all of nabla's programs; `PACKAGING`, which extends it by the
tools that other projects need (C++, perl, cmake …), so that an added tool does not rebuild the kernel; and `VARY`,
which is not a build root but contains the tools that vary second builds. The sets of programs in tests/programs have
the same format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from nabla.core import toml
from nabla.core.errors import LockError
from nabla.core.paths import TOOLCHAIN, relative
from nabla.sources.apt import DebFile

PACKAGES = TOOLCHAIN / "packages.toml"
LOCK = TOOLCHAIN / "buildroot.lock"

_InTree = Annotated[
    str, msgspec.Meta(pattern=r"^(?!/)(?!(.*/)?\.\.(/|$)).+$", description="a path inside the tree, without leading /")
]
_Beside = Annotated[
    str, msgspec.Meta(pattern=r"^(\.\./)?[^/]+$", description="a file beside this one, or in the folder above")
]


@dataclass(frozen=True)
class Pins:
    """The files of one build root."""

    requirements: Path
    lock: Path


BASE = Pins(PACKAGES, LOCK)
PACKAGING = Pins(TOOLCHAIN / "packaging.toml", TOOLCHAIN / "packaging.lock")
VARY = Pins(TOOLCHAIN / "vary.toml", TOOLCHAIN / "vary.lock")

_RENEW = "run `doit lock:update`, for a set of tests/programs `doit lock:programs`, and commit both files"


class _Mounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    directories: tuple[_InTree, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    packages: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    extends: _Beside | None = None
    suite: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    links: dict[_InTree, str] = {}
    files: dict[_InTree, str] = {}
    mounts: _Mounts = _Mounts()


@dataclass(frozen=True)
class Requirements:
    """packages.toml: the packages to resolve, each with a reason, and what to add to their files."""

    suite: str
    packages: Mapping[str, str]
    links: Mapping[str, str]
    files: Mapping[str, str]
    directories: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of everything that determines the tree; the reasons do not."""
        content = [self.suite, sorted(self.packages), dict(self.links), dict(self.files), self.directories]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Lock:
    """buildroot.lock: the exact packages. `requirements`: their digest; `tree`: digest of the unpacked tree."""

    suite: str
    requirements: str
    tree: str
    files: tuple[DebFile, ...]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def read_requirements(path: Path = PACKAGES) -> Requirements:
    """Read packages.toml and the file that it extends. Raises `LockError` naming file, line and key."""
    document = toml.read(path, LockError)
    file = document.convert(_File)
    base = Requirements("", {}, {}, {}, ())
    if file.extends is not None:
        if file.extends == path.name:
            document.fail(("extends",), "a file cannot extend itself")
        base = read_requirements(path.parent / file.extends)
    suite = file.suite or base.suite
    if not suite:
        document.fail(("suite",), "the key `suite` is missing")
    return Requirements(
        suite,
        {**base.packages, **file.packages},
        {**base.links, **file.links},
        {**base.files, **file.files},
        (*base.directories, *file.mounts.directories),
    )


def read_lock(path: Path = LOCK) -> Lock:
    """Read a lock. Raises `LockError` naming file and line for anything that `render` would not write."""
    name = relative(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise LockError(f"{name} is missing", _RENEW) from None
    head: dict[str, str] = {}
    files: list[DebFile] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words[:1] == ["#"]:
            if len(words) == 3 and words[1] in ("suite", "requirements", "tree"):
                head[words[1]] = words[2]
            continue
        if len(words) != 6 or not words[3].isdecimal() or not _is_sha256(words[4]) or not _is_pool(words[5]):
            raise LockError(f"{name}:{number}: not `name version architecture size sha256 path`", _RENEW)
        files.append(DebFile(words[0], words[1], words[2], int(words[3]), words[4], words[5]))
    missing = {"suite", "requirements", "tree"} - set(head)
    if missing or not files:
        raise LockError(f"{name}: no {sorted(missing)[0] if missing else 'package'} in it", _RENEW)
    if files != sorted(files) or len({file.name for file in files}) != len(files):
        raise LockError(f"{name}: lines are not sorted or a package is listed twice", _RENEW)
    return Lock(head["suite"], head["requirements"], head["tree"], tuple(files))


def current(pins: Pins = BASE) -> tuple[Requirements, Lock]:
    """Return both files. Raises `LockError` if the lock resolves other requirements."""
    requirements, lock = read_requirements(pins.requirements), read_lock(pins.lock)
    if lock.requirements != requirements.digest or lock.suite != requirements.suite:
        raise LockError(f"{relative(pins.requirements)} was changed after {relative(pins.lock)} was written", _RENEW)
    return requirements, lock


def render(lock: Lock, source: str = PACKAGES.name, task: str = "lock:update") -> str:
    """Return the text of a lock file. `source`: name of the requirements' file; `task`: the task that writes it."""
    head = [
        "# SPDX-License-Identifier: Apache-2.0",
        f"# Written by `doit {task}` from {source}; do not edit. name version architecture size sha256 path",
        f"# suite {lock.suite}",
        f"# requirements {lock.requirements}",
        f"# tree {lock.tree}",
    ]
    rows = [f"{f.name} {f.version} {f.architecture} {f.size} {f.sha256} {f.path}" for f in sorted(lock.files)]
    return "\n".join([*head, *rows]) + "\n"


def changes(old: Lock | None, new: Lock) -> list[str]:
    """Return a line for each package that differs between two locks: `+ new`, `- gone`, `~ changed`."""
    before = {file.name: file for file in old.files} if old else {}
    after = {file.name: file for file in new.files}
    lines = []
    for name in sorted(before.keys() | after.keys()):
        a, b = before.get(name), after.get(name)
        if a is None and b is not None:
            lines.append(f"+ {name} {b.version}")
        elif b is None and a is not None:
            lines.append(f"- {name} {a.version}")
        elif a is not None and b is not None and a != b:
            lines.append(
                f"~ {name} {a.version} -> {b.version}"
                + (" (same version, other file)" if a.version == b.version else "")
            )
    return lines


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _is_pool(text: str) -> bool:
    return text.startswith("pool/") and text.endswith(".deb") and ".." not in text.split("/")
