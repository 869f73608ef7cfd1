# SPDX-License-Identifier: Apache-2.0
"""Compose a disk image from locked Debian packages, without dpkg, root privileges or maintainer scripts.

Owners and modes are those of the packages, including set-user-id bits. packages.toml lists the files that maintainer
scripts would create (users, links of alternatives, settings). nabla-init is process 1; all other files are Debian's.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nabla.core.errors import LockError
from nabla.core.paths import NABLA_INIT
from nabla.fs.nodes import Node, Tree, put
from nabla.sandbox import buildroot, deb, lockfile
from nabla.sources.apt import Apt
from tests.programs.cases import Programs
from verify.epoch import SOURCE_DATE_EPOCH

# Device nodes for the time before devtmpfs is mounted.
_NODES = {"/dev/console": ((5, 1), 0o600), "/dev/null": ((1, 3), 0o666)}


def compose(programs: Programs) -> Tree:
    """Return the file tree of a set's image; fetches missing packages. Raises `LockError`, `FetchError`."""
    requirements, lock = lockfile.current(programs.pins)
    tree = unpack(requirements, buildroot.fetch(lock))
    digest = tree_digest(tree)
    if digest != lock.tree:
        raise LockError(
            f"{programs.name}: the packages unpack to tree {digest[:16]}…, the lock says {lock.tree[:16]}…",
            "the unpacker or the list of packages changed: run `doit lock:programs`",
        )
    put(tree, "/usr/sbin/nabla-init", Node("file", 0o755, data=NABLA_INIT))
    for path, (device, mode) in _NODES.items():
        put(tree, path, Node("char", mode, device=device))
    return tree


def resolve(wanted: Sequence[lockfile.Requirements]) -> Iterator[lockfile.Lock]:
    """Resolve requirements by the suites' signed lists and yield the locks; unpacks each set for its digest."""
    with tempfile.TemporaryDirectory(prefix="nabla-apt-") as scratch:
        suites: dict[str, Apt] = {}
        for requirements in wanted:
            if requirements.suite not in suites:
                suites[requirements.suite] = Apt(Path(scratch) / requirements.suite, requirements.suite)
                suites[requirements.suite].directory.mkdir()
                suites[requirements.suite].update()
            files = tuple(suites[requirements.suite].resolve(list(requirements.packages)))
            draft = lockfile.Lock(requirements.suite, requirements.digest, "0" * 64, files)
            tree = unpack(requirements, buildroot.fetch(draft))
            yield lockfile.Lock(requirements.suite, requirements.digest, tree_digest(tree), files)


def unpack(requirements: lockfile.Requirements, packages: Sequence[Path]) -> Tree:
    """Return the tree of packages and the additions of `requirements`. Raises `LockError` for a file in two of them."""
    tree: Tree = {"/usr": Node("dir", 0o755)}
    for name in deb.MERGED:
        tree[f"/usr/{name}"] = Node("dir", 0o755)
        tree[f"/{name}"] = Node("link", 0o777, target=f"usr/{name}")
    owner: dict[str, Path] = {}
    for package in packages:
        for path, node in nodes(package):
            if node.kind != "dir":
                if path in owner:
                    raise LockError(f"two packages hold {path}: {owner[path].name[:12]} and {package.name[:12]}")
                owner[path] = package
            put(tree, path, node)
    for path in requirements.directories:
        put(tree, f"/{path}", Node("dir", 0o755))
    for path, target in requirements.links.items():
        put(tree, _merged(path), Node("link", 0o777, target=target))
    for path, text in requirements.files.items():
        put(tree, _merged(path), Node("file", 0o755 if text.startswith("#!") else 0o644, data=text.encode()))
    return tree


def nodes(package: Path) -> Iterator[tuple[str, Node]]:
    """Yield path (absolute) and entry of each member of a package, folders included, in the package's order.

    Raises `LockError` for a member that is neither a folder nor a file nor a link.
    """
    files: dict[str, Node] = {}
    with deb.data_archive(package) as archive:
        for member in archive:
            path = deb.tree_path(member.name)
            if not path or f"{path}/".startswith(deb.SKIPPED):
                continue
            path = f"/{path}"
            mtime = min(int(member.mtime), SOURCE_DATE_EPOCH)
            if member.isdir():
                node = Node("dir", member.mode & 0o7777, member.uid, member.gid, mtime)
            elif member.issym():
                node = Node("link", 0o777, mtime=mtime, target=member.linkname)
            elif member.islnk():
                first = files.get(f"/{deb.tree_path(member.linkname)}")
                if first is None:
                    raise LockError(f"{package.name}: {member.name} is a hard link to no file before it")
                node = first
            elif member.isfile():
                stream = archive.extractfile(member)
                assert stream is not None
                node = Node("file", member.mode & 0o7777, member.uid, member.gid, mtime, data=stream.read())
                node = replace(node, inode=f"{package.name}:{path}")
                files[path] = node
            else:
                raise LockError(f"{package.name}: {member.name} is neither a folder nor a file nor a link")
            yield path, node


def tree_digest(tree: Tree) -> str:
    """Return a digest of all entries with their content, owners, modes and times."""
    total = hashlib.sha256()
    for path in sorted(tree):
        node = tree[path]
        content = hashlib.sha256(node.content()).hexdigest() if node.kind == "file" else ""
        entry = (path, node.kind, node.mode, node.uid, node.gid, node.mtime, node.target, node.device, content)
        total.update(repr(entry).encode())
    return total.hexdigest()


def _merged(path: str) -> str:
    return f"/{deb.tree_path(path)}"
