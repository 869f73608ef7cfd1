# SPDX-License-Identifier: Apache-2.0
"""Read an ext2, ext3 or ext4 file system with an implementation that is independent of e2fsprogs."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

Kind = Literal["dir", "file", "link", "char", "block", "fifo"]
_KINDS: dict[int, Kind] = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
_INLINE_DATA = 0x10000000  # EXT4_INLINE_DATA_FL: the content is in the inode


class ExtError(Exception):
    """The file system cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One entry. `mtime`: seconds since 1970. `data`: content of a file. `target`: of a link.

    `inode`: the number of a file that has several names, as text; empty for others.
    """

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    data: bytes = b""
    target: str = ""
    device: tuple[int, int] = (0, 0)
    inode: str = ""


def read_image(image: Path) -> dict[str, Entry]:
    """Return path -> entry of an image, without lost+found. Raises `ExtError`, OSError."""
    with image.open("rb") as stream:
        return read(stream, image.name)


def read(stream: BinaryIO, title: str) -> dict[str, Entry]:
    """Return path -> entry of the file system in a stream. Raises `ExtError`."""
    # Importing the parser takes longer than most tasks.
    from dissect.extfs import ExtFS

    tree: dict[str, Entry] = {}
    try:
        _walk(ExtFS(stream).root, "", tree)
    # The parser raises many kinds of exceptions for damaged input.
    except Exception as error:
        raise ExtError(f"cannot read the file system in {title}: {error}") from error
    return tree


def _walk(folder: Any, prefix: str, tree: dict[str, Entry]) -> None:
    for name, inode in sorted(folder.listdir().items()):
        path = f"{prefix}/{name}"
        # mke2fs creates lost+found.
        if name in (".", "..") or path == "/lost+found":
            continue
        raw = inode.inode
        kind = _KINDS.get(stat.S_IFMT(raw.i_mode))
        if kind is None:
            raise ExtError(f"{path} has an unknown type")
        tree[path] = Entry(
            kind,
            stat.S_IMODE(raw.i_mode),
            raw.i_uid | raw.i_uid_high << 16,
            raw.i_gid | raw.i_gid_high << 16,
            _time(raw, inode),
            data=_content(inode) if kind == "file" else b"",
            target=inode.link if kind == "link" else "",
            device=_device(raw) if kind in ("char", "block") else (0, 0),
            inode=str(inode.inum) if kind == "file" and raw.i_links_count > 1 else "",
        )
        if kind == "dir":
            _walk(inode, path, tree)


def _time(raw: Any, inode: Any) -> int:
    """Return the time of the last change: 32 signed bits, and in large inodes two more above them."""
    extra = raw.i_mtime_extra & 3 if inode.extfs.sb.s_inode_size > 128 else 0
    low = int(raw.i_mtime) & 0xFFFFFFFF
    return low - ((low & 0x80000000) << 1) + (extra << 32)


def _content(inode: Any) -> bytes:
    """Return a file's content. dissect.extfs 3.15 reads a hole at the end of a block-mapped file as block 0."""
    if inode.inode.i_flags & _INLINE_DATA:
        return bytes(inode.open().read())
    disk, block = inode.extfs.fh, inode.extfs.block_size
    parts = []
    for start, count in inode.dataruns():
        if start:
            disk.seek(start * block)
            parts.append(disk.read(count * block))
        else:
            parts.append(bytes(count * block))
    return b"".join(parts)[: inode.size]


def _device(raw: Any) -> tuple[int, int]:
    """Return major and minor of a device node, in the first block pointer (old format) or the second (new format)."""
    old, new = (int.from_bytes(raw.i_block[at : at + 4], "little") for at in (0, 4))
    if old:
        return old >> 8, old & 0xFF
    return (new >> 8) & 0xFFF, (new & 0xFF) | ((new >> 12) & 0xFFF00)
