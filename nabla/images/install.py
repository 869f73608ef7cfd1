# SPDX-License-Identifier: Apache-2.0
"""Install packages of the repository in the file tree of an image by the real `apk add`, without root and network.

apk works on a copy of the tree on the host, as root of a user namespace. Its changes are copied back; all other entries
keep the properties that a host folder cannot have: owners, device nodes. root owns all files of packages; an image
description can set other owners. Nothing is copied back if apk fails: it may have recorded a package whose files it
could not install.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from nabla.core import files
from nabla.core.artifacts import ARCH
from nabla.core.errors import CommandError, ImageError
from nabla.core.process import run
from nabla.fs.ext3 import SCRATCH
from nabla.fs.nodes import Node, Tree
from nabla.packages import apk, catalog
from nabla.packages.catalog import BinaryPackage, PackageError
from nabla.sandbox.bwrap import Bind
from verify.contents import DATABASES
from verify.epoch import SOURCE_DATE_EPOCH

# Files that apk writes and no image contains.
_UNWANTED = ("/var/log/apk.log",)


def recipes_for(packages: Sequence[str], parts: Collection[str]) -> list[str]:
    """Return the recipes of the packages that an image may need, including dependencies of both kinds.

    `parts`: of the image; those that are recipes are included. Raises `PackageError` for an unknown package.
    """
    for name in packages:
        if name not in catalog.owners():
            raise PackageError(f"there is no package {name!r}", f"known: {', '.join(sorted(catalog.owners()))}")
    recipes = {part for part in parts if part in catalog.owners()}
    waiting = [catalog.owners()[name] for name in packages]
    while waiting:
        name = waiting.pop()
        if name not in recipes:
            recipes.add(name)
            waiting += [*catalog.closure(name), *catalog.depends(name)]
    return sorted(recipes)


def install(
    tree: Tree, packages: Sequence[str], parts: Collection[str], *, tools: Path, scratch: Path, log: Path
) -> Tree:
    """Return `tree` with `packages` and their dependencies; they replace the base's packages with the same name.

    `scratch`: an empty folder. Raises `ImageError` if apk fails.
    """
    offered = {
        part.name: part for name in recipes_for(packages, parts) for part in catalog.read_build_record(name).parts
    }
    missing = [name for name in packages if name not in offered]
    if missing:
        raise ImageError(f"the recipe {catalog.owners()[missing[0]]} built no package {missing[0]}")
    wanted = sorted({*packages, *(name for name in _installed(tree) if name in offered)})
    root = scratch / "image"
    lay_out(tree, root)
    _add([offered[name] for name in wanted], list(offered.values()), root, tools, scratch, log)
    installed = read_back(tree, root)
    for path in DATABASES:
        if path in installed:
            text = without_sizes(installed[path].content().decode(), offered)
            installed[path] = replace(installed[path], data=text.encode())
    return installed


def without_sizes(database: str, names: Collection[str]) -> str:
    """Return apk's database with the sizes of these packages' files set to 0.

    The size includes the compressed signature, so it depends on the key; nothing else in an image does.
    """
    blocks = database.split("\n\n")
    for number, block in enumerate(blocks):
        match = re.search(r"^P:(.*)$", block, re.MULTILINE)
        if match and match[1] in names:
            blocks[number] = re.sub(r"^S:\d+$", "S:0", block, flags=re.MULTILINE)
    return "\n\n".join(blocks)


def lay_out(tree: Tree, root: Path) -> None:
    """Write a tree to a folder, with its modes, without devices and owners."""
    root.mkdir(parents=True)
    folders: list[str] = []
    for path in sorted(tree):
        node, target = tree[path], root / path[1:]
        if node.kind == "dir":
            target.mkdir()
            folders.append(path)
        elif node.kind == "link":
            target.symlink_to(node.target)
        elif node.kind == "file":
            target.write_bytes(node.content())
            target.chmod(node.mode | stat.S_IRUSR | stat.S_IWUSR)
            os.utime(target, (node.mtime, node.mtime))
    for path in folders:
        (root / path[1:]).chmod(tree[path].mode | stat.S_IRWXU)


def read_back(tree: Tree, root: Path) -> Tree:
    """Read a folder as a tree; unchanged entries keep their node of `tree`."""
    result = {path: node for path, node in tree.items() if node.kind not in ("dir", "link", "file")}
    for folder, names, others in os.walk(root):
        for name in [*names, *others]:
            host = Path(folder) / name
            path = f"/{host.relative_to(root)}"
            if path not in _UNWANTED and path not in result:
                result[path] = _node(host, tree.get(path))
    return dict(sorted(result.items()))


def _node(host: Path, before: Node | None) -> Node:
    status = host.lstat()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        now = Node("link", 0o777, target=os.readlink(host))
        return before if before is not None and before.kind == "link" and before.target == now.target else now
    if stat.S_ISDIR(status.st_mode):
        unchanged = before is not None and before.kind == "dir" and before.mode | stat.S_IRWXU == mode
        return before if unchanged and before is not None else Node("dir", mode)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"a package contains {host.name}, which is neither a file nor a link nor a folder")
    data = host.read_bytes()
    if before is not None and before.kind == "file" and before.content() == data:
        if before.mode | stat.S_IRUSR | stat.S_IWUSR == mode:
            return before
        return Node("file", mode, before.uid, before.gid, before.mtime, data)
    # Only which files share the number matters, not the number.
    inode = f"{status.st_ino} of packages" if status.st_nlink > 1 else ""
    return Node("file", mode, mtime=min(int(status.st_mtime), SOURCE_DATE_EPOCH), data=data, inode=inode)


def _installed(tree: Tree) -> set[str]:
    """Return the names of the packages in the tree's database."""
    texts = [tree[path].content().decode() for path in DATABASES if path in tree]
    return {line[2:] for text in texts for line in text.splitlines() if line.startswith("P:")}


def _add(
    wanted: Sequence[BinaryPackage], offered: Sequence[BinaryPackage], root: Path, tools: Path, scratch: Path, log: Path
) -> None:
    index = scratch / "Packages.adb"
    apk.make_index([part.apk for part in offered], index, tools=tools, scratch=scratch / "index", log=log)
    keys = scratch / "keys"
    files.make_folder(keys)
    _, public = apk.ensure_key()
    (keys / public.name).write_bytes(public.read_bytes())
    repository = scratch / "repository"
    files.make_folder(repository)
    for part in offered:
        os.link(part.apk, repository / part.apk.name)
    index.rename(repository / index.name)
    argv = ["/sbin/apk", "--root", "/image", "--keys-dir", "/keys", "--repositories-file", "/dev/null", "--no-network"]
    argv += ["--no-cache", "--no-logfile", "--no-progress", "-X", f"/repository/{index.name}", "add"]
    argv += ["--initdb", "--arch", ARCH] if not any((root / path[1:]).exists() for path in DATABASES) else []
    argv += [f"{part.name}={part.version}" for part in wanted]
    binds = [Bind(root, "/image", writable=True), Bind(repository, "/repository"), Bind(keys, "/keys")]
    # apk runs scripts of packages in the image by chroot, which needs the capabilities.
    command = apk.command(tools, [*binds, Bind(scratch, SCRATCH, writable=True)], argv, capable=True)
    try:
        run(command, log=log)
    except CommandError as error:
        names = ", ".join(part.name for part in wanted)
        raise ImageError(f"apk could not install {names} ({error.message})", error.hint) from error
