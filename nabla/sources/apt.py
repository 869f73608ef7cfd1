# SPDX-License-Identifier: Apache-2.0
"""A private view of a Debian suite by the host's apt.

The host's apt configuration (or `NABLA_DEBIAN_MIRROR`) determines the server, so that proxies, caches and local mirrors
work and this repository contains no server name. Lists, status and downloads are in a private directory; the host's
packages are not touched. apt verifies the chain InRelease (OpenPGP, by gpgv) → Packages/Sources → file.
"""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path

from nabla.core import files
from nabla.core.errors import CommandError, FetchError, HostError, LockError
from nabla.core.paths import cache_dir
from nabla.core.process import run
from nabla.sources import deb822

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"

_MIRROR_HINT = "set NABLA_DEBIAN_MIRROR to the address of a Debian mirror (the part before /dists)"
# The host's hooks (which clean its cache or notify its desktop) must not run.
_NO_HOOKS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
_URI_LINE = re.compile(r"'(?P<uri>\S+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class DebFile:
    """One binary package file of the archive; `path` is relative to the mirror's root (`pool/main/…`)."""

    name: str
    version: str
    architecture: str
    size: int
    sha256: str
    path: str


@dataclass(frozen=True)
class SourceFile:
    """One file of a source package; `path` is relative to the mirror's root, `size` in bytes."""

    name: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class SourcePackage:
    """A source package of a suite, with Debian's full version and its files by name."""

    suite: str
    name: str
    version: str
    files: Mapping[str, SourceFile]

    @property
    def upstream(self) -> str:
        """Upstream's version (Debian Policy, section 5.6.12): without epoch and revision."""
        return upstream_version(self.version)

    @property
    def tarball(self) -> SourceFile | None:
        """Upstream's archive; None for a native package of Debian."""
        return next((file for name, file in self.files.items() if re.search(r"\.orig\.tar\.\w+$", name)), None)


def mirror() -> str:
    """Return the address of the host's Debian mirror, with a slash at the end.

    Raises `HostError` if there is no apt, or if its configuration lists no Debian archive.
    """
    explicit = os.environ.get("NABLA_DEBIAN_MIRROR")
    if explicit:
        return explicit.rstrip("/") + "/"
    if shutil.which("apt-get") is None:
        raise HostError("apt-get is missing: it fetches packages from Debian's archive", "install the package apt")
    # ReleaseInfo=false lists the targets before any download.
    argv = ["apt-get", "indextargets", "-o", "APT::Get::IndexTargets::ReleaseInfo=false"]
    result = run([*argv, "--format", "$(REPO_URI) $(RELEASE)"], check=False)
    for line in result.stdout.splitlines():
        uri, _, release = line.partition(" ")
        # The security archive has a different layout; repositories of vendors have other suite names.
        if re.fullmatch(r"(old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky", release) and (
            "security" not in uri
        ):
            return uri.rstrip("/") + "/"
    raise HostError("this host's apt configuration lists no Debian archive", _MIRROR_HINT)


@dataclass(frozen=True)
class Apt:
    """apt with the lists of one suite and private directories below `directory`."""

    directory: Path
    suite: str
    kind: str = "deb"  # or deb-src

    def update(self) -> None:
        """Fetch the suite's signed lists. Raises `FetchError` if a list is unavailable or its signature is wrong."""
        for name in ("lists/partial", "cache/archives/partial", "state", "etc"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        # An empty status: packages on the host must not affect the resolution.
        (self.directory / "status").write_text("")
        option = f"signed-by={KEYRING} " if KEYRING.exists() else ""
        line = f"{self.kind} [{option}arch={ARCHITECTURE}] {mirror()} {self.suite} main\n"
        (self.directory / "sources.list").write_text(line)
        try:
            # Without Error-Mode, an unavailable list is only a warning.
            self._apt("update", "-q", "-o", "APT::Update::Error-Mode=any")
        except CommandError as error:
            raise FetchError(f"Debian's {self.suite} lists could not be fetched", error.hint) from error

    def resolve(self, packages: Sequence[str]) -> list[DebFile]:
        """Return `packages` and their dependencies (no recommendations), sorted. Raises `LockError`."""
        try:
            result = self._apt(
                "install", "-y", "-qq", "--print-uris", "-o", "Acquire::ForceHash=SHA256", *sorted(packages)
            )
        except CommandError as error:
            raise LockError("apt cannot resolve the packages", error.hint) from error
        files = []
        for line in result.splitlines():
            match = _URI_LINE.fullmatch(line)
            if match is None:
                raise LockError(f"unexpected output of apt: {line}")
            name, version, architecture = urllib.parse.unquote(match["file"]).removesuffix(".deb").rsplit("_", 2)
            path = _pool_path(match["uri"])
            files.append(DebFile(name, version, architecture, int(match["size"]), match["sha256"], path))
        return sorted(files)

    def download(self, files: Sequence[DebFile], into: Path) -> None:
        """Download package files to the folder `into`, under apt's names. Raises `FetchError`."""
        try:
            self._apt(
                "download", "-q", *(f"{file.name}:{file.architecture}={file.version}" for file in files), cwd=into
            )
        except CommandError as error:
            names = ", ".join(f"{file.name} {file.version}" for file in files)
            raise FetchError(f"Debian's archive did not deliver one of: {names}", error.hint) from error

    def sources(self, names: Sequence[str]) -> list[SourcePackage]:
        """Return the suite's versions of these source packages, the newest of each first."""
        # apt prints a warning for an unknown name.
        return parse_sources(self._apt("showsrc", "--only-source", *names, program="apt-cache"), self.suite)

    def _apt(self, *words: str, cwd: Path | None = None, program: str = "apt-get") -> str:
        if shutil.which("apt-get") is None:
            raise HostError("apt-get is missing: it fetches packages from Debian's archive", "install the package apt")
        base = self.directory
        hooks = base / "hooks.conf"
        if not hooks.exists():
            hooks.write_text(_NO_HOOKS)
        settings: Mapping[str, object] = {
            "Dir::Etc::SourceList": base / "sources.list",
            "Dir::Etc::SourceParts": "-",
            "Dir::Etc::Preferences": "-",
            "Dir::Etc::PreferencesParts": "-",
            "Dir::State": base / "state",
            "Dir::State::Lists": base / "lists",
            "Dir::State::Status": base / "status",
            "Dir::Cache": base / "cache",
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # otherwise root's apt changes to a user without write permission
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "15",
            "Acquire::https::Timeout": "15",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return run([program, "-c", hooks, *options, *words], cwd=cwd).stdout


def source_packages(suite: str, names: Sequence[str], title: str) -> list[SourcePackage]:
    """Return a suite's versions of these source packages (`Apt.sources`) by its present lists. Raises `FetchError`.

    `title`: prefix of the message while another process holds the lock.
    """
    archive = Apt(cache_dir() / "apt" / f"{suite}-src", suite, kind="deb-src")
    with files.lock(archive.directory / "lock", f"{title}: waiting for another apt"):
        archive.update()
        return archive.sources(names)


def parse_sources(printed: str, suite: str) -> list[SourcePackage]:
    """Parse the output of `apt-cache showsrc`: deb822 paragraphs (deb822(5), deb-src-control(5))."""
    packages = []
    for fields in deb822.paragraphs(printed):
        files = {}
        for line in fields.get("checksums-sha256", "").strip().splitlines():
            sha256, size, name = line.split()
            files[name] = SourceFile(name, f"{fields['directory']}/{name}", int(size), sha256)
        packages.append(SourcePackage(suite, fields["package"], fields["version"], files))

    def order(one: SourcePackage, other: SourcePackage) -> int:
        return compare(other.version, one.version) if one.name == other.name else -1 if one.name < other.name else 1

    return sorted(packages, key=cmp_to_key(order))


def upstream_version(version: str) -> str:
    """Return a Debian version without epoch and revision."""
    return re.sub(r"-[^-]*$", "", re.sub(r"^\d+:", "", version))


def pool_path(package: str, file: str) -> str:
    """Return the path of a file of a source package in main, relative to the mirror's root.

    The pool has a folder for each first letter, or four letters for libraries (Developer's Reference, section 4.6).
    """
    return f"pool/main/{package[: 4 if package.startswith('lib') else 1]}/{package}/{file}"


def compare(one: str, other: str) -> int:
    """Compare two Debian versions as dpkg does: negative, 0 or positive."""
    for operator, outcome in (("lt", -1), ("gt", 1)):
        if run(["dpkg", "--compare-versions", one, operator, other], check=False).returncode == 0:
            return outcome
    return 0


def _pool_path(uri: str) -> str:
    """Return the path of a file in the archive, relative to the mirror's root."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return path[path.index("/pool/") + 1 :]
