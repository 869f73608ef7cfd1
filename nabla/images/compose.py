# SPDX-License-Identifier: Apache-2.0
"""Compose the file tree of an image from its description: the base without dropped paths, plus programs and files."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from nabla.core import files
from nabla.core.artifacts import APK_TOOLS, IMAGE_TOOLS, image_path
from nabla.core.errors import ImageError
from nabla.core.paths import BUSYBOX, MUSL, NABLA_INIT, ROOT, relative
from nabla.engine.action import Job
from nabla.fs import ext3
from nabla.fs.nodes import Node, Tree, drop, put, read_archive, read_base
from nabla.images import descriptions, install
from nabla.images.descriptions import Archive, Description
from nabla.sources import recipe
from nabla.sources.archives import fetched
from verify.epoch import SOURCE_DATE_EPOCH

_LOADER = "/lib/ld-musl-x86_64.so.1"
_LIBC_LINK = "/lib/libc.musl-x86_64.so.1"  # the name of libc in Alpine's programs
_BUSYBOX = "/bin/busybox"
_COMMAND_FOLDERS = ("/bin", "/sbin", "/usr/bin", "/usr/sbin")

Note = Callable[[str], None]
Installer = Callable[[Tree], Tree]


def make_image(job: Job, name: str) -> None:
    """Step: compose the tree of one image and write the image."""
    description = descriptions.load(name)
    tree = compose(description, job.note, functools.partial(_install, job, description))
    job.note(f"{len(tree)} entries")
    geometry = ext3.Geometry(description.bytes, description.uuid, description.hash_seed, description.name)
    ext3.write(tree, geometry, job.out(image_path(name)), tools=IMAGE_TOOLS.path, scratch=job.scratch(), log=job.log)


def _install(job: Job, description: Description, tree: Tree) -> Tree:
    scratch = job.scratch() / "packages"
    packages, parts = description.packages, description.parts
    installed = install.install(tree, packages, parts, tools=APK_TOOLS.path, scratch=scratch, log=job.log)
    files.remove(scratch)
    return installed


def compose(description: Description, note: Note, installer: Installer | None = None) -> Tree:
    """Return the file tree of an image. Raises `ImageError`, `FetchError`.

    `note` receives lines for the log. `installer` installs the packages of the description; it is not called if there
    are none.
    """
    tree: Tree = read_base(_source(description.base)) if description.base is not None else {}
    for path in description.drop:
        drop(tree, path)
    if description.packages:
        if installer is None:
            raise ValueError("an image with packages needs an installer")
        tree = installer(tree)
    for archive in description.archive:
        _add_archive(tree, archive)
    for built in description.tree:
        _add_folder(tree, ROOT / built.source, built.at)
    for part in description.parts:
        _PARTS[part](tree, note)
    _add_own(tree, description)
    for path, node in tree.items():
        # A file newer than the date of all builds would make the image depend on the day.
        if node.mtime > SOURCE_DATE_EPOCH:
            tree[path] = _at(node, SOURCE_DATE_EPOCH)
    return tree


def _source(name: str) -> Path:
    """Return the one source file of a recipe, from the cache."""
    loaded = recipe.load(name)
    if len(loaded.source) != 1:
        raise ImageError(f"the recipe {name} has {len(loaded.source)} sources; an image needs recipes with one")
    return fetched(loaded)[loaded.source[0].name]


def _add_archive(tree: Tree, archive: Archive) -> None:
    content = read_archive(_source(archive.recipe), archive.member)
    for path in archive.drop:
        drop(content, path)
    for path, node in content.items():
        put(tree, f"{archive.at}{path}", replace(node, inode=f"{archive.at} {node.inode}") if node.inode else node)


def _add_folder(tree: Tree, folder: Path, at: str) -> None:
    if not folder.is_dir():
        raise ImageError(f"there is no folder {relative(folder)}", "the task that creates it has not run")
    put(tree, at, Node("dir", 0o755))
    for path in sorted(folder.rglob("*")):
        put(tree, f"{at}/{path.relative_to(folder)}", _host_node(path))


def _host_node(path: Path) -> Node:
    """Return a host file as a node of root with the date of all builds."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return Node("link", 0o777, target=os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return Node("dir", 0o755)
    return Node("file", 0o755 if status.st_mode & 0o111 else 0o644, data=path)


def _add_init(tree: Tree, note: Note) -> None:
    put(tree, "/sbin/nabla-init", Node("file", 0o755, data=NABLA_INIT))
    put(tree, "/sbin/nabla-snapshot", Node("link", 0o777, target="nabla-init"))


def _add_musl(tree: Tree, note: Note) -> None:
    put(tree, _LOADER, Node("file", 0o755, data=MUSL / _LOADER[1:]))
    if _LIBC_LINK not in tree:
        put(tree, _LIBC_LINK, Node("link", 0o777, target=PurePosixPath(_LOADER).name))


def _add_busybox(tree: Tree, note: Note) -> None:
    """Replace the base's busybox by nabla's, with links for all its applets.

    A link of the base to an applet that nabla's busybox lacks is removed. A program of the base that is not a link to
    busybox (kmod, e2fsprogs) stays.
    """
    put(tree, _BUSYBOX, Node("file", 0o755, data=BUSYBOX / "bin" / "busybox"))
    wanted = (BUSYBOX / "usr" / "share" / "busybox" / "busybox.links").read_text().split()
    applets = {PurePosixPath(path).name for path in wanted}
    for path in [path for path, node in tree.items() if node.kind == "link" and node.target == _BUSYBOX]:
        if PurePosixPath(path).name not in applets:
            note(f"dropped {path}: nabla's busybox has no such applet")
            del tree[path]
    present = {PurePosixPath(path).name for path, node in tree.items() if _runnable(path, node)}
    for path in wanted:
        if PurePosixPath(path).name not in present:
            put(tree, path, Node("link", 0o777, target=_BUSYBOX))


_PARTS: dict[str, Callable[[Tree, Note], None]] = {"init": _add_init, "musl": _add_musl, "busybox": _add_busybox}


def _runnable(path: str, node: Node) -> bool:
    """Return whether a node is a command, in one of the folders of commands."""
    return node.kind in ("file", "link") and str(PurePosixPath(path).parent) in _COMMAND_FOLDERS


def _add_own(tree: Tree, description: Description) -> None:
    for folder in description.folder:
        put(tree, folder.path, Node("dir", int(folder.mode, 8), *_owner(folder.owner)))
    for file in description.file:
        data: bytes | Path = file.content.encode() if file.content is not None else ROOT / str(file.source)
        put(tree, file.path, Node("file", int(file.mode, 8), *_owner(file.owner), data=data))
    for link in description.link:
        put(tree, link.path, Node("link", 0o777, target=link.target))
    for node in description.node:
        put(tree, node.path, Node(node.type, int(node.mode, 8), device=(node.major, node.minor)))


def _owner(text: str) -> tuple[int, int]:
    uid, _, gid = text.partition(":")
    return int(uid), int(gid)


def _at(node: Node, mtime: int) -> Node:
    return replace(node, mtime=mtime)
