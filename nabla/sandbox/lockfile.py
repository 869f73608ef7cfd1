# SPDX-License-Identifier: Apache-2.0
"""The two committed files behind a build root: what is wanted (packages.toml) and what that came to (buildroot.lock).

The lock is one line for each package, `name version architecture size sha256 path`, sorted, after a head which says for
which wish it was made and which tree it unpacks to. Both digests are checked, so neither file can go stale unseen.

There are three such pairs for builds: `BASE` for kernel, libc and all that is ours; `PACKAGING`, which `extends` it by
what other projects' sources need to be built (C++, perl, cmake …), so that one more tool there leaves the kernel alone;
and `VARY`, which is no build root but holds what second builds are varied with. The sets of programs that tests run in
the guest (tests.programs) are locked in the same form.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nabla.core.errors import LockError
from nabla.core.paths import TOOLCHAIN, relative
from nabla.sources.apt import DebFile

PACKAGES = TOOLCHAIN / "packages.toml"
LOCK = TOOLCHAIN / "buildroot.lock"


@dataclass(frozen=True)
class Pins:
    """The files of one build root."""

    wish: Path
    lock: Path


BASE = Pins(PACKAGES, LOCK)
PACKAGING = Pins(TOOLCHAIN / "packaging.toml", TOOLCHAIN / "packaging.lock")
VARY = Pins(TOOLCHAIN / "vary.toml", TOOLCHAIN / "vary.lock")

_RENEW = "run `doit lock:update`, for a set of tests/programs `doit lock:programs`, and commit both files"


@dataclass(frozen=True)
class Wish:
    """packages.toml: the packages to start from, and what to add to their files."""

    suite: str
    packages: Mapping[str, str]
    links: Mapping[str, str]
    files: Mapping[str, str]
    directories: tuple[str, ...]

    @property
    def digest(self) -> str:
        """sha256 of everything that decides the tree; the reasons do not."""
        facts = [self.suite, sorted(self.packages), dict(self.links), dict(self.files), self.directories]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Lock:
    """buildroot.lock: the exact packages; `tree` is the digest of the tree they unpack to."""

    suite: str
    wish: str
    tree: str
    files: tuple[DebFile, ...]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.size for file in self.files)


def read_wish(path: Path = PACKAGES) -> Wish:
    """Read packages.toml, or one that extends it. Raises `LockError` naming the file and what is wrong."""
    name = relative(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LockError(f"{name} is missing") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LockError(f"{name}: {error}") from error
    unknown = set(table) - {"extends", "suite", "packages", "links", "files", "mounts"}
    if unknown:
        raise LockError(f"{name}: unknown key {sorted(unknown)[0]}")
    extends = table.get("extends")
    if extends is not None and (not isinstance(extends, str) or not _is_near(extends) or extends == path.name):
        raise LockError(f"{name}: extends: must be the name of a file beside this one, or of one in the folder above")
    below = read_wish(path.parent / extends) if extends is not None else Wish("", {}, {}, {}, ())
    suite = table.get("suite", below.suite)
    if not isinstance(suite, str) or not suite:
        raise LockError(f"{name}: suite: must be a text")
    parts = {key: _texts(table.get(key, {}), key, name) for key in ("packages", "links", "files")}
    if not parts["packages"]:
        raise LockError(f"{name}: packages: nothing is wanted")
    directories = table.get("mounts", {}).get("directories", [])
    if not isinstance(directories, list) or not all(isinstance(item, str) for item in directories):
        raise LockError(f"{name}: mounts.directories: must be a list of texts")
    for path_text in [*parts["links"], *parts["files"], *directories]:
        pure = PurePosixPath(path_text)
        if pure.is_absolute() or ".." in pure.parts:
            raise LockError(f"{name}: {path_text}: must be a path inside the tree")
    return Wish(
        suite,
        {**below.packages, **parts["packages"]},
        {**below.links, **parts["links"]},
        {**below.files, **parts["files"]},
        (*below.directories, *directories),
    )


def _texts(value: object, key: str, name: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise LockError(f"{name}: {key}: must be a table of texts")
    return value


def read_lock(path: Path = LOCK) -> Lock:
    """Read the lock. Raises `LockError` naming file and line for anything that is not exactly as `render` writes it."""
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
            if len(words) == 3 and words[1] in ("suite", "wish", "tree"):
                head[words[1]] = words[2]
            continue
        if len(words) != 6 or not words[3].isdecimal() or not _is_sha256(words[4]) or not _is_pool(words[5]):
            raise LockError(f"{name}:{number}: not `name version architecture size sha256 path`", _RENEW)
        files.append(DebFile(words[0], words[1], words[2], int(words[3]), words[4], words[5]))
    missing = {"suite", "wish", "tree"} - set(head)
    if missing or not files:
        raise LockError(f"{name}: no {sorted(missing)[0] if missing else 'package'} in it", _RENEW)
    if files != sorted(files) or len({file.name for file in files}) != len(files):
        raise LockError(f"{name}: lines are not sorted or a package stands twice", _RENEW)
    return Lock(head["suite"], head["wish"], head["tree"], tuple(files))


def current(pins: Pins = BASE) -> tuple[Wish, Lock]:
    """Return both files, checked against each other. Raises `LockError` when the lock was made for another wish."""
    wish, lock = read_wish(pins.wish), read_lock(pins.lock)
    if lock.wish != wish.digest or lock.suite != wish.suite:
        raise LockError(f"{relative(pins.wish)} was changed after {relative(pins.lock)} was made", _RENEW)
    return wish, lock


def render(lock: Lock, wish: str = PACKAGES.name, task: str = "lock:update") -> str:
    """Return the text of a lock file; `wish` is the name of the file that it was made from, `task` what makes it."""
    head = [
        "# SPDX-License-Identifier: Apache-2.0",
        f"# Made by `doit {task}` from {wish}; do not edit. name version architecture size sha256 path",
        f"# suite {lock.suite}",
        f"# wish {lock.wish}",
        f"# tree {lock.tree}",
    ]
    rows = [f"{f.name} {f.version} {f.architecture} {f.size} {f.sha256} {f.path}" for f in sorted(lock.files)]
    return "\n".join([*head, *rows]) + "\n"


def changes(old: Lock | None, new: Lock) -> list[str]:
    """Say what differs between two locks, a line for each package: `+ new`, `- gone`, `~ changed`."""
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


def _is_near(text: str) -> bool:
    return "/" not in text.removeprefix("../")


def _is_pool(text: str) -> bool:
    return text.startswith("pool/") and text.endswith(".deb") and ".." not in text.split("/")
