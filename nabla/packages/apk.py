# SPDX-License-Identifier: Apache-2.0
"""The real apk: makes packages, indexes and installs them. It is that of the Alpine base, run by its own loader.

It runs in a sandbox whose root holds nothing but itself, as mapped root: it looks the names of owners up, so that who
builds becomes root. Packages and index are signed with the user's own RSA key, made here when there is
none; RSA signatures of the same bytes are the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nabla.core import files
from nabla.core.artifacts import ARCH, INDEX, PACKAGE_KEY, REPOSITORY
from nabla.core.errors import CommandError
from nabla.core.process import run
from nabla.fs.ext3 import SCRATCH
from nabla.packages.catalog import Built, PackageError, Part
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.layout import keys_dir

_KEY_BITS = 4096


def ensure_key() -> tuple[Path, Path]:
    """Return the user's private and public key, made now if there is none. Raises `CommandError`, `DiskFullError`."""
    folder = keys_dir()
    private, public = folder / PACKAGE_KEY, folder / f"{PACKAGE_KEY}.pub"
    if private.is_file() and public.is_file():
        return private, public
    files.make_folder(folder)
    with files.lock(folder / ".lock", "waiting for another process that makes the key"):
        if not (private.is_file() and public.is_file()):
            place = Sandbox((Bind(folder, "/build", writable=True),), pins=lockfile.PACKAGING)
            script = f"""
                umask 077
                openssl genrsa -out new.rsa {_KEY_BITS}
                openssl rsa -in new.rsa -pubout -out {public.name}
                chmod 644 {public.name}
                mv new.rsa {private.name}
            """
            place.run(script, title="make a key to sign packages with")
    return private, public


def make_package(
    built: Built, part: Part, content: Path, target: Path, *, tools: Path, scratch: Path, log: Path
) -> None:
    """Make the package file `target` of the files below `content`. Raises `PackageError`."""
    facts: dict[str, str] = {
        "name": part.name,
        "version": part.version,
        "arch": ARCH,
        "license": built.license,
        "description": part.summary,
        "origin": built.recipe,
        "depends": " ".join(part.depends),
        "provides": " ".join(part.provides),
        "replaces": " ".join(part.replaces),
        "url": built.homepage or "",
    }
    words = ["mkpkg", "--files", "/files"]
    for name, value in facts.items():
        words += ["-I", f"{name}:{value}"] if value else []
    files.make_folder(scratch)
    for kind, text in part.scripts.items():
        (scratch / kind).write_text(text, encoding="utf-8")
        words += ["-s", f"{kind}:{SCRATCH}/{kind}"]
    _sign(words, [Bind(content, "/files")], f"the package {part.name}", target, tools=tools, scratch=scratch, log=log)


def make_index(packages: Sequence[Path], target: Path, *, tools: Path, scratch: Path, log: Path) -> None:
    """Make the signed index of packages that lie in the repository. Raises `PackageError`."""
    _, public = ensure_key()
    files.make_folder(scratch / "keys")
    shutil.copyfile(public, scratch / "keys" / public.name)
    names = [f"/repository/{path.name}" for path in sorted(packages)]
    words = ["mkndx", "--keys-dir", f"{SCRATCH}/keys", *names]
    _sign(words, [Bind(REPOSITORY, "/repository")], "the index", target, tools=tools, scratch=scratch, log=log)


def unsigned(packages: Sequence[Path], target: Path, *, tools: Path, log: Path) -> None:
    """Fill the new folder `target` with these packages and an index, all without signatures.

    These are the bytes that everybody gets, whoever signs. Raises `PackageError`.
    """
    target.mkdir()
    for path in packages:
        shutil.copyfile(path, target / path.name)
    names = sorted(path.name for path in packages)
    binds = [Bind(target, SCRATCH, writable=True)]

    def make(words: Sequence[str]) -> None:
        _run([words[0], "--allow-untrusted", *words[1:]], binds, "packages without signatures", tools=tools, log=log)

    # It compresses each package once more, by one processor.
    with ThreadPoolExecutor(bwrap.jobs()) as pool:
        list(pool.map(make, (["adbsign", "--reset-signatures", name] for name in names)))
    make(["mkndx", "-o", INDEX.name, *names])


def _sign(
    words: Sequence[str], binds: Sequence[Bind], what: str, target: Path, *, tools: Path, scratch: Path, log: Path
) -> None:
    """Let apk make `target`, signed with the user's key."""
    private, _ = ensure_key()
    made = "made.adb"
    _run(
        [words[0], "--sign-key", f"/keys/{PACKAGE_KEY}", "-o", f"{SCRATCH}/{made}", *words[1:]],
        [*binds, Bind(private.parent, "/keys"), Bind(scratch, SCRATCH, writable=True)],
        what,
        tools=tools,
        log=log,
    )
    (scratch / made).rename(target)


def _run(words: Sequence[str], binds: Sequence[Bind], what: str, *, tools: Path, log: Path) -> None:
    try:
        run(command(tools, binds, ["/sbin/apk", *words]), log=log)
    except CommandError as error:
        raise PackageError(f"apk could not make {what} ({error.message})", error.hint) from error


def command(tools: Path, binds: Sequence[Bind], words: Sequence[str], *, capable: bool = False) -> list[str]:
    """Return the host command that runs a program of the tools' root as mapped root.

    `capable`: with all capabilities over what is mapped, as installing needs them. The working folder is `SCRATCH`.
    """
    mounts: list[str] = []
    for bind in binds:
        mounts += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
    return [
        *bwrap.base(tools, user=0),
        *(("--cap-add", "ALL") if capable else ()),
        *("--die-with-parent", "--new-session", *mounts, "--chdir", SCRATCH),
        *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        *("--setenv", "SOURCE_DATE_EPOCH", str(SOURCE_DATE_EPOCH), "--setenv", "TZ", "UTC", "--setenv", "LC_ALL", "C"),
        *words,
    ]
