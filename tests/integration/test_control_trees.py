# SPDX-License-Identifier: Apache-2.0
"""`nabla cp -r`: directories into a VM and out of it, and archives of a hostile guest."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .launcher import OWN_ERROR
from .named import Named, named
from .vm import Vm

BAD_INPUT = 2
LONG = "/".join(["n" * 90] * 5)


@pytest.fixture
def vm(minimal: Vm, tmp_path: Path) -> Iterator[Named]:
    """A VM that sleeps."""
    with named(minimal.argv("sleep", "100000"), tmp_path) as running:
        yield running


def make_tree(root: Path) -> None:
    """Fill a directory with what is copied."""
    draw = random.Random(3)
    (root / "empty").mkdir(parents=True)
    (root / LONG).mkdir(parents=True)
    (root / LONG / "file").write_text("far away")
    for size in (0, 1, 511, 512, 513, 300_000):
        (root / f"of {size} bytes").write_bytes(draw.randbytes(size))
    (root / "script").write_text("#!/bin/sh\n")
    (root / "script").chmod(0o750)
    (root / "-x").write_text("a name like an option")
    (root / "link").symlink_to("script")
    (root / "outside").symlink_to("/etc/passwd")
    (root / "long link").symlink_to("x" * 300)


def contents(root: Path) -> dict[str, object]:
    """Return what a directory has: targets of links, modes and bytes of files, None for directories."""
    seen: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            seen[name] = os.readlink(path)
        elif path.is_file():
            seen[name] = (path.stat().st_mode & 0o777, path.read_bytes())
        else:
            seen[name] = None
    return seen


def test_there_and_back(vm: Named, tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    result = vm.nabla("cp", "-r", tmp_path / "tree", "vm:/tmp/copy")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert vm.check(f"cat /tmp/copy/{LONG}/file; readlink /tmp/copy/outside") == "far away/etc/passwd\n"
    result = vm.nabla("cp", "-r", "vm:/tmp/copy", tmp_path / "back")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert contents(tmp_path / "back") == contents(tmp_path / "tree")
    assert len(contents(tmp_path / "back")) == 18


def test_into_what_exists(vm: Named, tmp_path: Path) -> None:
    """As files are: a name that ends with a slash, and a directory of the host, get a directory of the same name."""
    make_tree(tmp_path / "tree")
    assert vm.nabla("cp", "-r", tmp_path / "tree", "vm:/tmp/").returncode == 0
    assert vm.check("echo there >/tmp/tree/more; cat /tmp/tree/script") == "#!/bin/sh\n"
    (tmp_path / "here").mkdir()
    for _ in range(2):
        assert vm.nabla("cp", "-r", "vm:/tmp/tree", tmp_path / "here").returncode == 0
        assert (tmp_path / "here/tree/more").read_text() == "there\n"
    assert contents(tmp_path / "tree").items() <= contents(tmp_path / "here/tree").items()


def test_what_is_left_out(vm: Named, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.mkfifo(tmp_path / "tree/pipe")
    (tmp_path / "tree/file").touch()
    result = vm.nabla("cp", "-r", tmp_path / "tree", "vm:/tmp/copy")
    assert result.returncode == 0
    assert result.stderr == "nabla: ./pipe is no file, directory or link, and is left out\n"
    vm.check("mkfifo /tmp/copy/fifo; mknod /tmp/copy/null c 1 3; chmod 4755 /tmp/copy/file")
    assert vm.nabla("cp", "-r", "vm:/tmp/copy", tmp_path / "back").returncode == 0
    assert contents(tmp_path / "back") == {"file": (0o755, b"")}
    assert (tmp_path / "back/file").stat().st_mode & 0o7000 == 0


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["{}/none", "vm:/tmp/x"], BAD_INPUT, "cannot open {}/none: No such file or directory"),
        (["{}/file", "vm:/tmp/x"], BAD_INPUT, "cannot open {}/file: Not a directory (leave out -r)"),
        (["vm:/none", "{}/x"], OWN_ERROR, "VM vm: tar failed for /none, status "),
        (["vm:/tmp", "{}/none/x"], BAD_INPUT, "cannot create directory {}/none/x: No such file or directory"),
        (["vm:/tmp", "{}/file"], BAD_INPUT, "cannot create directory {}/file: Not a directory"),
        (["{}", "{}"], BAD_INPUT, "no file is in a VM"),
        (["{}"], BAD_INPUT, "cp takes two arguments"),
    ],
)
def test_errors(vm: Named, tmp_path: Path, words: list[str], status: int, message: str) -> None:
    (tmp_path / "file").touch()
    result = vm.nabla("cp", "-r", *(word.format(tmp_path) for word in words))
    assert result.returncode == status, result
    assert result.stderr.startswith("nabla: " + message.format(tmp_path)), result
    assert result.stderr.count("\n") == 1


# Hostile guests


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", data: bytes = b""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, target, len(data), 0o777
    return info, data


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """Return an archive, whatever the names are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


EVIL = b"evil"
LINK = entry("link", tarfile.SYMTYPE, target="..")
REFUSED = "which leads out of the directory"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(entry("../evil", data=EVIL)), REFUSED),
        (archive(entry("a/../../evil", data=EVIL)), REFUSED),
        (archive(entry("./../evil", data=EVIL)), REFUSED),
        (archive(entry("..", tarfile.DIRTYPE)), REFUSED),
        (archive(entry("/tmp/nabla-evil", data=EVIL)), REFUSED),
        (archive(entry("//tmp/nabla-evil", data=EVIL)), REFUSED),
        (archive(entry("n" * 200 + "/../../evil", data=EVIL)), REFUSED),
        (archive(LINK, entry("link/evil", data=EVIL)), "cannot create link/evil: "),
        (archive(LINK, entry("link/evil", tarfile.DIRTYPE)), "cannot create link/evil"),
        (archive(LINK, entry("link/evil", tarfile.SYMTYPE, target="x")), "cannot create link/evil: "),
        (archive(entry("evil", tarfile.LNKTYPE, target="../secret")), "cannot create evil: "),
        (archive(LINK, entry("evil", tarfile.LNKTYPE, target="link/secret")), "cannot create evil: "),
        (archive(entry("evil", tarfile.LNKTYPE, target="/etc/passwd")), "cannot create evil: "),
        (archive(entry("", data=EVIL)), "without a name"),
        (archive(entry("../evil", data=EVIL)) + bytes(600_000), REFUSED),
        (archive(entry("n" * 5000)), "a name that is too long"),
        (archive(entry("file", data=EVIL))[:514], "ends in the middle of file"),
        (archive(entry("file", data=EVIL))[:1024], "is cut"),
        (b"", "is cut"),
        (b"no archive" * 100, "is no archive"),
    ],
)
def test_hostile_archives(vm: Named, tmp_path: Path, content: bytes, message: str) -> None:
    """Nothing appears outside of the directory, and one line says why."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "evil.tar").write_bytes(content)
    assert vm.nabla("cp", tmp_path / "evil.tar", "vm:/evil.tar").returncode == 0
    vm.check("rm /bin/tar; printf '#!/bin/sh\\ncat /evil.tar\\n' >/bin/tar; chmod 755 /bin/tar")
    before = set(tmp_path.iterdir())
    result = vm.nabla("cp", "-r", "vm:/tmp", tmp_path / "out")
    assert result.returncode == OWN_ERROR, result
    assert message in result.stderr, result
    assert result.stderr.count("\n") == 1
    assert set(tmp_path.iterdir()) == before | {tmp_path / "out"}
    assert (tmp_path / "secret").read_text() == "secret"
    assert not Path("/tmp/nabla-evil").exists()
    assert "secret" not in {path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_a_link_is_replaced_and_not_followed(vm: Named, tmp_path: Path) -> None:
    """Also one that was there before."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tmp").mkdir()
    (tmp_path / "out/tmp/file").symlink_to(tmp_path / "secret")
    vm.check("echo new >/tmp/file")
    assert vm.nabla("cp", "-r", "vm:/tmp", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/tmp/file").read_text() == "new\n"
    assert (tmp_path / "secret").read_text() == "secret"
