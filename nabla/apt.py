# SPDX-License-Identifier: Apache-2.0
"""A private view of a Debian suite through the ordinary apt of the host.

Which server to ask is the host's business: the address comes from its own apt configuration (or `NABLA_DEBIAN_MIRROR`),
so that proxies, caches and local mirrors work and no server name stands in this repository. Lists, status and downloads
lie in a private directory; the host's packages are never touched. apt checks the chain InRelease (OpenPGP, by gpgv)
→ Packages/Sources → file.
"""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nabla.errors import CommandError, FetchError, HostError, LockError
from nabla.run import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ARCHITECTURE = "amd64"

_MIRROR_HINT = "set NABLA_DEBIAN_MIRROR to the address of a Debian mirror (the part before /dists)"
# What the host wants done after its own updates is no business of ours (cleaning its cache, telling its desktop).
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


def mirror() -> str:
    """Return the address of a Debian mirror, with a slash at the end, as this host is configured.

    Raises `HostError` where there is no apt, or where its configuration names no Debian archive.
    """
    explicit = os.environ.get("NABLA_DEBIAN_MIRROR")
    if explicit:
        return explicit.rstrip("/") + "/"
    if shutil.which("apt-get") is None:
        raise HostError("apt-get is missing: it fetches packages from Debian's archive", "install the package apt")
    # ReleaseInfo=false lists the targets although nothing has been downloaded yet.
    argv = ["apt-get", "indextargets", "-o", "APT::Get::IndexTargets::ReleaseInfo=false"]
    result = run([*argv, "--format", "$(REPO_URI) $(RELEASE)"], check=False)
    for line in result.stdout.splitlines():
        uri, _, release = line.partition(" ")
        # The security archive has another layout; vendors' repositories have their own suite names.
        if re.fullmatch(r"(old)*stable|testing|unstable|sid|bullseye|bookworm|trixie|forky", release) and (
            "security" not in uri
        ):
            return uri.rstrip("/") + "/"
    raise HostError("this host's apt configuration names no Debian archive", _MIRROR_HINT)


@dataclass(frozen=True)
class Apt:
    """apt with lists of one suite and private directories under `directory`."""

    directory: Path
    suite: str
    kind: str = "deb"  # or deb-src

    def update(self) -> None:
        """Fetch the suite's signed lists. Raises `FetchError` when no list could be had or its signature is wrong."""
        for name in ("lists/partial", "cache/archives/partial", "state", "etc"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        # An empty status: what the host has installed must not change what is resolved.
        (self.directory / "status").write_text("")
        option = f"signed-by={KEYRING} " if KEYRING.exists() else ""
        line = f"{self.kind} [{option}arch={ARCHITECTURE}] {mirror()} {self.suite} main\n"
        (self.directory / "sources.list").write_text(line)
        try:
            # Without Error-Mode a list that cannot be had is only a warning.
            self._apt("update", "-q", "-o", "APT::Update::Error-Mode=any")
        except CommandError as error:
            raise FetchError(f"Debian's {self.suite} lists could not be fetched", error.hint) from error

    def resolve(self, packages: Sequence[str]) -> list[DebFile]:
        """Return `packages` and all they depend on (no recommended ones), sorted. Raises `LockError`."""
        try:
            result = self._apt(
                "install", "-y", "-qq", "--print-uris", "-o", "Acquire::ForceHash=SHA256", *sorted(packages)
            )
        except CommandError as error:
            raise LockError("apt cannot resolve the wanted packages", error.hint) from error
        files = []
        for line in result.splitlines():
            match = _URI_LINE.fullmatch(line)
            if match is None:
                raise LockError(f"apt said something unexpected: {line}")
            name, version, architecture = urllib.parse.unquote(match["file"]).removesuffix(".deb").rsplit("_", 2)
            path = _pool_path(match["uri"])
            files.append(DebFile(name, version, architecture, int(match["size"]), match["sha256"], path))
        return sorted(files)

    def download(self, files: Sequence[DebFile], into: Path) -> None:
        """Put the given package files into `into`, under the names apt gives. Raises `FetchError`."""
        try:
            self._apt(
                "download", "-q", *(f"{file.name}:{file.architecture}={file.version}" for file in files), cwd=into
            )
        except CommandError as error:
            names = ", ".join(f"{file.name} {file.version}" for file in files)
            raise FetchError(f"Debian's archive did not deliver one of: {names}", error.hint) from error

    def source_files(self, package: str, version: str) -> dict[str, str]:
        """Return the files of a source package, name -> path relative to the mirror's root. Raises `FetchError`."""
        words = ("source", "-qq", "--print-uris", "--only-source", "-o", "Acquire::ForceHash=SHA256")
        try:
            result = self._apt(*words, f"{package}={version}")
        except CommandError as error:
            raise FetchError(f"Debian's {self.suite} has no source package {package} {version}", error.hint) from error
        return {urllib.parse.unquote(m["file"]): _pool_path(m["uri"]) for m in _URI_LINE.finditer(result)}

    def newest_source(self, package: str) -> str:
        """Return what apt prints about the newest source package: a line for each file, with size and sha256.

        Raises `FetchError` where the suite has none.
        """
        try:
            return self._apt(
                "source", "-qq", "--print-uris", "--only-source", "-o", "Acquire::ForceHash=SHA256", package
            )
        except CommandError as error:
            raise FetchError(f"Debian's {self.suite} has no source package {package}", error.hint) from error

    def _apt(self, *words: str, cwd: Path | None = None) -> str:
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
            "APT::Sandbox::User": "root",  # otherwise apt, run by root, becomes a user that may not write here
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "15",
            "Acquire::https::Timeout": "15",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        return run(["apt-get", "-c", hooks, *options, *words], cwd=cwd).stdout


def _pool_path(uri: str) -> str:
    """Return the path of a file in the archive, relative to the mirror's root."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
    return path[path.index("/pool/") + 1 :]
