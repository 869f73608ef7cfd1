# SPDX-License-Identifier: Apache-2.0
"""Write, index and install packages with the real apk, from the Alpine base.

apk runs in a sandbox that contains only itself, as root of a user namespace: it looks up the names of owners, and in
the namespace, the user who builds is root. The user's RSA key signs packages and index; it is generated if there is
none. RSA signatures are deterministic.
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
from nabla.packages.catalog import BinaryPackage, BuildRecord, PackageError
from nabla.sandbox import bwrap
from nabla.sandbox.bwrap import Bind
from verify.epoch import SOURCE_DATE_EPOCH
from verify.release.layout import keys_dir

_KEY_BITS = 4096


def ensure_key() -> tuple[Path, Path]:
    """Return the user's private and public key; generate them if absent. Raises `DiskFullError`."""
    folder = keys_dir()
    private, public = folder / PACKAGE_KEY, folder / f"{PACKAGE_KEY}.pub"
    if private.is_file() and public.is_file():
        return private, public
    files.make_folder(folder)
    with files.lock(folder / ".lock", "waiting for another process that generates the key"):
        if not (private.is_file() and public.is_file()):
            _generate(private, public)
    return private, public


def _generate(private: Path, public: Path) -> None:
    # Imported when needed: it takes as long as doit's own start.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, _KEY_BITS)
    pem, new = serialization.Encoding.PEM, private.with_name("new.rsa")
    new.unlink(missing_ok=True)
    new.touch(0o600)
    plain = serialization.NoEncryption()
    new.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    public.chmod(0o644)
    new.rename(private)


def make_package(
    built: BuildRecord, part: BinaryPackage, content: Path, target: Path, *, tools: Path, scratch: Path, log: Path
) -> None:
    """Write the package file `target` from the files below `content`. Raises `PackageError`."""
    metadata: dict[str, str] = {
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
    argv = ["mkpkg", "--files", "/files"]
    for name, value in metadata.items():
        argv += ["-I", f"{name}:{value}"] if value else []
    files.make_folder(scratch)
    for kind, text in part.scripts.items():
        (scratch / kind).write_text(text, encoding="utf-8")
        argv += ["-s", f"{kind}:{SCRATCH}/{kind}"]
    _sign(argv, [Bind(content, "/files")], f"the package {part.name}", target, tools=tools, scratch=scratch, log=log)


def make_index(packages: Sequence[Path], target: Path, *, tools: Path, scratch: Path, log: Path) -> None:
    """Write the signed index of packages in the repository. Raises `PackageError`."""
    _, public = ensure_key()
    files.make_folder(scratch / "keys")
    shutil.copyfile(public, scratch / "keys" / public.name)
    names = [f"/repository/{path.name}" for path in sorted(packages)]
    argv = ["mkndx", "--keys-dir", f"{SCRATCH}/keys", *names]
    _sign(argv, [Bind(REPOSITORY, "/repository")], "the index", target, tools=tools, scratch=scratch, log=log)


def unsigned(packages: Sequence[Path], target: Path, *, tools: Path, log: Path) -> None:
    """Write these packages and an index to the new folder `target`, all without signatures.

    Their bytes do not depend on the signer. Raises `PackageError`.
    """
    target.mkdir()
    for path in packages:
        shutil.copyfile(path, target / path.name)
    names = sorted(path.name for path in packages)
    binds = [Bind(target, SCRATCH, writable=True)]

    def run_apk(argv: Sequence[str]) -> None:
        _run([argv[0], "--allow-untrusted", *argv[1:]], binds, "packages without signatures", tools=tools, log=log)

    # apk compresses each package again, with one thread.
    with ThreadPoolExecutor(bwrap.jobs()) as pool:
        list(pool.map(run_apk, (["adbsign", "--reset-signatures", name] for name in names)))
    run_apk(["mkndx", "-o", INDEX.name, *names])


def _sign(
    argv: Sequence[str], binds: Sequence[Bind], what: str, target: Path, *, tools: Path, scratch: Path, log: Path
) -> None:
    """Write `target` by apk, signed with the user's key."""
    private, _ = ensure_key()
    output = "output.adb"
    _run(
        [argv[0], "--sign-key", f"/keys/{PACKAGE_KEY}", "-o", f"{SCRATCH}/{output}", *argv[1:]],
        [*binds, Bind(private.parent, "/keys"), Bind(scratch, SCRATCH, writable=True)],
        what,
        tools=tools,
        log=log,
    )
    (scratch / output).rename(target)


def _run(argv: Sequence[str], binds: Sequence[Bind], what: str, *, tools: Path, log: Path) -> None:
    try:
        run(command(tools, binds, ["/sbin/apk", *argv]), log=log)
    except CommandError as error:
        raise PackageError(f"apk could not write {what} ({error.message})", error.hint) from error


def command(tools: Path, binds: Sequence[Bind], argv: Sequence[str], *, capable: bool = False) -> list[str]:
    """Return the host command that runs a program of the tools' root, as root of a user namespace.

    `capable`: with all capabilities in that namespace, which an installation needs. The working folder is `SCRATCH`.
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
        *argv,
    ]
