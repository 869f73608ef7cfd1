# SPDX-License-Identifier: Apache-2.0
"""Write a file tree as an ext3 image: the same bytes each time, without root.

The tools are those of the Alpine base, run in a sandbox whose root is made of nothing but them. mke2fs fills the file
system from a staging folder; what the staging folder cannot hold (other owners, special modes, device nodes) is set in
the image by debugfs. Then the image is checked twice: by e2fsck, and by reading it back with a parser that shares no
code with e2fsprogs and comparing every entry with the tree.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nabla.core.errors import CommandError, ImageError
from nabla.core.process import run
from nabla.fs.nodes import Node, Tree, read_ext
from nabla.sandbox import bwrap
from verify.epoch import SOURCE_DATE_EPOCH

BLOCK = 4096  # bytes
# Of ext4, beside those of ext3: fallocate(), large files without a map of each block, many subdirectories.
FEATURES = "extent,huge_file,dir_nlink"
SCRATCH = "/scratch"  # where tools in a sandbox of their own find what they work on

_LETTERS = {"char": "c", "block": "b", "fifo": "p"}  # of debugfs
_MODES = {"dir": 0o755, "file": 0o644}


@dataclass(frozen=True)
class Geometry:
    """What makes one file system differ from another with the same content. `size` in bytes."""

    size: int
    uuid: str
    hash_seed: str
    label: str


def write(tree: Tree, geometry: Geometry, image: Path, *, tools: Path, scratch: Path, log: Path) -> None:
    """Write `tree` to the file `image`, which must not exist.

    `scratch`: an empty folder. The result depends on nothing but tree, geometry and tools. Raises `ImageError` when the
    tree does not fit or a check fails.
    """
    _check_names(tree)
    stage(tree, scratch / "stage")
    (scratch / "fixes").write_text("".join(f"{line}\n" for line in _fixes(tree)))
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
        raise ImageError(f"{geometry.label}: making the image failed ({error.message})", error.hint) from error
    _check_debugfs(scratch / "debugfs.out")
    compare(tree, read_ext(scratch / "image"))
    (scratch / "image").rename(image)


def check(image: Path, *, tools: Path) -> str:
    """Run e2fsck over an image without changing it; return what it says. Raises `ImageError` when it finds a fault."""
    words = _sandbox(tools, image.parent, f"e2fsck -fn {shlex.quote(image.name)}")
    result = run(words, check=False)
    if result.returncode != 0:
        raise ImageError(f"e2fsck finds faults in {image.name}", (result.stdout + result.stderr).strip())
    return result.stdout


def compare(wanted: Tree, found: Tree) -> None:
    """Raise `ImageError` naming the first differences between two trees."""
    problems = [f"{path} is missing" for path in wanted if path not in found]
    problems += [f"{path} should not be there" for path in found if path not in wanted]
    for path in sorted(wanted.keys() & found.keys()):
        want, have = wanted[path], found[path]
        for field in ("kind", "mode", "uid", "gid", "mtime", "target", "device"):
            # The mode of a link means nothing.
            if not (want.kind == "link" and field == "mode") and getattr(want, field) != getattr(have, field):
                problems.append(f"{path}: {field} is {getattr(have, field)!r} instead of {getattr(want, field)!r}")
        if want.kind == have.kind == "file" and want.content() != have.content():
            problems.append(f"{path}: the content differs")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ImageError("the image is not what was to be written" + more, "\n".join(problems[:5]))


def _sandbox(tools: Path, work: Path, script: str) -> list[str]:
    """Return the command that runs a script in the tools' own root, as mapped root, in `work`."""
    return [
        # The user is 0 inside, so that files of whoever calls become root's in the image.
        *bwrap.base(tools, user=0),
        *("--die-with-parent", "--new-session"),
        *("--bind", str(work), SCRATCH, "--chdir", SCRATCH),
        *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        *("/bin/sh", "-euc", f"umask 022\n{script}"),
    ]


def stage(tree: Tree, root: Path) -> None:
    """Lay out the entries that a host folder can hold without privileges, in plain modes."""
    root.mkdir()
    root.chmod(0o755)
    for path in sorted(tree):
        node, place = tree[path], root / path[1:]
        if node.kind == "dir":
            place.mkdir()
        elif node.kind == "link":
            place.symlink_to(node.target)
        elif node.kind == "file":
            if isinstance(node.data, Path):
                shutil.copyfile(node.data, place)
            else:
                place.write_bytes(node.data)
        else:
            continue
        if node.kind != "link":
            place.chmod(_staged_mode(node))
    # Children first: making an entry changes the time of its folder.
    for path in sorted(tree, reverse=True):
        if tree[path].kind in ("dir", "file", "link"):
            os.utime(root / path[1:], (tree[path].mtime,) * 2, follow_symlinks=False)
    os.utime(root, (SOURCE_DATE_EPOCH,) * 2)


def _staged_mode(node: Node) -> int:
    """Return the mode on the host: the real one where the owner may read it and nothing in it is special."""
    readable = 0o500 if node.kind == "dir" else 0o400
    plain = not node.mode & 0o7000 and node.mode & readable == readable
    return node.mode if plain else _MODES[node.kind]


def _fixes(tree: Tree) -> Iterator[str]:
    """Yield the lines for debugfs that make the image what the staging folder could not be."""
    folder = None
    touched: set[str] = set()
    for path in sorted(tree):
        node, name = tree[path], PurePosixPath(path)
        if node.kind in ("char", "block", "fifo"):
            if folder != str(name.parent):
                folder = str(name.parent)
                yield f"cd {_quote(folder)}"
            # mknod knows no paths, only names in the current folder.
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
    """Refuse names that debugfs could not read back from its script."""
    for path in tree:
        if '"' in path or "\n" in path:
            raise ImageError(f"the name {path!r} holds a quotation mark or a line end")


def _check_debugfs(output: Path) -> None:
    """Raise if debugfs complained: it repeats its commands, says why one failed, and ends with status 0 anyway."""
    usual = ("debugfs:", "debugfs 1.", "Allocated inode")
    lines = output.read_text(errors="replace").splitlines()
    said = [line for line in lines if line.strip() and not line.startswith(usual)]
    if said:
        raise ImageError(f"debugfs could not finish the image: {said[0]}", "\n".join(said[:5]))
