# SPDX-License-Identifier: Apache-2.0
"""Write a file tree as a reproducible ext3 image, without root privileges.

The tools are those of the Alpine base; the root of their sandbox contains nothing else. mke2fs fills the file system
from a staging folder. debugfs then sets the properties that a staging folder cannot have: other owners, special modes,
device nodes. The image is checked twice: by e2fsck, and by a parser that shares no code with e2fsprogs, which compares
every entry with the tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from nabla.core.errors import CommandError, ImageError
from nabla.core.process import run
from nabla.fs.nodes import Node, Tree, read_ext
from nabla.sandbox import bwrap
from verify.epoch import SOURCE_DATE_EPOCH

BLOCK = 4096  # bytes
SUPERBLOCK = 1024  # offset in bytes
# Features of ext4: fallocate(), large files without block maps, many subdirectories.
FEATURES = "extent,huge_file,dir_nlink"
SCRATCH = "/scratch"  # the working folder in the sandbox of the tools

_LETTERS = {"char": "c", "block": "b", "fifo": "p"}  # of debugfs
_MODES = {"dir": 0o755, "file": 0o644}


@dataclass(frozen=True)
class Geometry:
    """Properties of a file system besides its content. `size`: in bytes."""

    size: int
    uuid: str
    hash_seed: str
    label: str


def write(tree: Tree, geometry: Geometry, image: Path, *, tools: Path, scratch: Path, log: Path) -> None:
    """Write `tree` to the file `image`, which must not exist.

    `scratch`: an empty folder. The result depends only on tree, geometry and tools. Raises `ImageError` if the tree is
    too large or a check fails.
    """
    _check_names(tree)
    stage(tree, scratch / "stage")
    # Names are bytes; names that are not UTF-8 are passed on unchanged.
    fixes = "".join(f"{line}\n" for line in _fixes(tree))
    (scratch / "fixes").write_bytes(fixes.encode(errors="surrogateescape"))
    with (scratch / "image").open("wb") as stream:
        stream.truncate(geometry.size)
    script = f"""
        export SOURCE_DATE_EPOCH={SOURCE_DATE_EPOCH} E2FSPROGS_FAKE_TIME={SOURCE_DATE_EPOCH} TZ=UTC LC_ALL=C
        mke2fs -q -F -t ext3 -O {FEATURES} -b {BLOCK} -m 0 -L {shlex.quote(geometry.label)} -U {geometry.uuid} \\
            -E hash_seed={geometry.hash_seed},root_owner=0:0,root_perms=0755 -d stage image {geometry.size // BLOCK}
        debugfs -w -f fixes image >debugfs.out 2>&1
        e2fsck -fn image
    """
    try:
        run(_sandbox(tools, scratch, script), log=log)
    except CommandError as error:
        raise ImageError(f"{geometry.label}: writing the image failed ({error.message})", error.hint) from error
    _check_debugfs(scratch / "debugfs.out")
    compare(tree, read_ext(scratch / "image"))
    (scratch / "image").rename(image)


def check(image: Path, *, tools: Path) -> str:
    """Run e2fsck on an image without changing it; return its output. Raises `ImageError` if it finds a fault."""
    words = _sandbox(tools, image.parent, f"e2fsck -fn {shlex.quote(image.name)}")
    result = run(words, check=False)
    if result.returncode != 0:
        raise ImageError(f"e2fsck finds faults in {image.name}", (result.stdout + result.stderr).strip())
    return result.stdout


def compare(wanted: Tree, actual: Tree) -> None:
    """Raise `ImageError` with the first differences between two trees, if there are any."""
    problems = [f"{path} is missing" for path in wanted if path not in actual]
    problems += [f"{path} should not be there" for path in actual if path not in wanted]
    for path in sorted(wanted.keys() & actual.keys()):
        want, have = wanted[path], actual[path]
        for field in ("kind", "mode", "uid", "gid", "mtime", "target", "device"):
            # The mode of a link has no effect.
            if not (want.kind == "link" and field == "mode") and getattr(want, field) != getattr(have, field):
                problems.append(f"{path}: {field} is {getattr(have, field)!r} instead of {getattr(want, field)!r}")
        if want.kind == have.kind == "file" and want.content() != have.content():
            problems.append(f"{path}: the content differs")
    problems += _other_links(wanted, actual)
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ImageError("the image differs from the tree" + more, "\n".join(problems[:5]))


def _other_links(wanted: Tree, actual: Tree) -> Iterator[str]:
    """Yield a sentence for each file that has other names in one tree than in the other."""
    want, have = _names(wanted), _names(actual)
    for path in sorted(want.keys() | have.keys()):
        if want.get(path) != have.get(path):
            yield f"{path}: its names are {have.get(path, (path,))} instead of {want.get(path, (path,))}"


def _names(tree: Tree) -> dict[str, tuple[str, ...]]:
    """Return the names of each file that has several, by each of them."""
    groups: dict[str, list[str]] = {}
    for path in sorted(tree):
        if tree[path].inode and tree[path].kind == "file":
            groups.setdefault(tree[path].inode, []).append(path)
    return {path: tuple(group) for group in groups.values() if len(group) > 1 for path in group}


def _sandbox(tools: Path, work: Path, script: str) -> list[str]:
    """Return the command that runs a script in the tools' root, as root of a user namespace, in `work`."""
    return [
        # The user is 0 in the sandbox, so that root owns the caller's files in the image.
        *bwrap.base(tools, user=0),
        *("--die-with-parent", "--new-session"),
        *("--bind", str(work), SCRATCH, "--chdir", SCRATCH),
        *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        *("/bin/sh", "-euc", f"umask 022\n{script}"),
    ]


def stage(tree: Tree, root: Path) -> None:
    """Write the entries that a host folder can have without privileges, with ordinary modes."""
    root.mkdir()
    root.chmod(0o755)
    names = _names(tree)
    for path in sorted(tree):
        node, target = tree[path], root / path[1:]
        if path in names and names[path][0] != path:
            os.link(root / names[path][0][1:], target)
            continue
        if node.kind == "dir":
            target.mkdir()
        elif node.kind == "link":
            target.symlink_to(node.target)
        elif node.kind == "file":
            if isinstance(node.data, Path):
                shutil.copyfile(node.data, target)
            else:
                target.write_bytes(node.data)
        else:
            continue
        if node.kind != "link":
            target.chmod(_staged_mode(node))
    # Children first: a new entry changes the time of its folder.
    for path in sorted(tree, reverse=True):
        if tree[path].kind in ("dir", "file", "link"):
            os.utime(root / path[1:], (tree[path].mtime,) * 2, follow_symlinks=False)
    os.utime(root, (SOURCE_DATE_EPOCH,) * 2)


def _staged_mode(node: Node) -> int:
    """Return the mode in the staging folder: the real one if the owner can read the entry and no special bit is set."""
    readable = 0o500 if node.kind == "dir" else 0o400
    plain = not node.mode & 0o7000 and node.mode & readable == readable
    return node.mode if plain else _MODES[node.kind]


def _fixes(tree: Tree) -> Iterator[str]:
    """Yield the debugfs commands that set the properties that the staging folder cannot have."""
    folder = None
    touched: set[str] = set()
    for path in sorted(tree):
        node, name = tree[path], PurePosixPath(path)
        if node.kind in ("char", "block", "fifo"):
            if folder != str(name.parent):
                folder = str(name.parent)
                yield f"cd {_quote(folder)}"
            # mknod accepts no paths, only names in the current folder.
            device = f" {node.device[0]} {node.device[1]}" if node.kind != "fifo" else ""
            yield f"mknod {_quote(name.name)} {_LETTERS[node.kind]}{device}"
            touched.add(folder)
            yield from _set(path, mode=f"0{_TYPE_BITS[node.kind] | node.mode:o}", uid=node.uid, gid=node.gid)
            yield from _set(path, links_count=1)
            yield from _times(path, node.mtime)
            continue
        if node.kind != "link" and _staged_mode(node) != node.mode:
            yield from _set(path, mode=f"0{_TYPE_BITS[node.kind] | node.mode:o}")
        if node.uid or node.gid:
            yield from _set(path, uid=node.uid, gid=node.gid)
    for path in sorted(touched):
        yield from _times(path, tree[path].mtime if path in tree else SOURCE_DATE_EPOCH)


_TYPE_BITS = {"fifo": 0o010000, "char": 0o020000, "dir": 0o040000, "block": 0o060000, "file": 0o100000}


def _set(path: str, **fields: int | str) -> Iterator[str]:
    for field, value in fields.items():
        yield f"set_inode_field {_quote(path)} {field} {value}"


def _times(path: str, mtime: int) -> Iterator[str]:
    yield from _set(path, mtime=f"@{mtime}", atime=f"@{SOURCE_DATE_EPOCH}", ctime=f"@{SOURCE_DATE_EPOCH}")


def _quote(text: str) -> str:
    return f'"{text}"'


def _check_names(tree: Tree) -> None:
    """Reject names that a debugfs script cannot contain, and times that mke2fs cannot write."""
    for path, node in tree.items():
        if '"' in path or "\n" in path:
            raise ImageError(f"the name {path!r} contains a quotation mark or a line feed")
        if not -(1 << 31) <= node.mtime < 1 << 31:
            raise ImageError(f"{path}: the time {node.mtime} is outside of the years 1901 to 2038")
    for path, names in _names(tree).items():
        if replace(tree[path], data=b"") != replace(tree[names[0]], data=b""):
            raise ImageError(f"{path} and {names[0]} are one file, but differ in owner, mode or time")


def _check_debugfs(output: Path) -> None:
    """Raise `ImageError` if debugfs failed: it prints its commands and errors, and exits with status 0 in any case."""
    usual = ("debugfs:", "debugfs 1.", "Allocated inode")
    lines = output.read_text(errors="replace").splitlines()
    errors = [line for line in lines if line.strip() and not line.startswith(usual)]
    if errors:
        raise ImageError(f"debugfs could not finish the image: {errors[0]}", "\n".join(errors[:5]))
