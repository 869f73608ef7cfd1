# SPDX-License-Identifier: Apache-2.0
"""Publish releases in a folder for a web server, with metadata of The Update Framework (TUF).

Its reference library writes the metadata.

    metadata/N.root.json                     the keys of all roles, signed by a threshold of root keys
    metadata/N.targets.json                  length and sha256 of every file below releases/ and apk/
    metadata/N.snapshot.json, timestamp.json the current versions
    staged.root.json                         the next root, until enough root keys have signed it
    releases/<version>/…, releases/newest    unchanged releases, and the version of the newest
    releases/attestations/<version>/…        statements of rebuilds
    apk/x86_64/…                             the packages of the newest release

verify/release/fresh.py is the client. Keys are Ed25519 keys of OpenSSH.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nabla.core import files
from nabla.core.errors import ConfigError, NablaError
from nabla.release import assembly, signing
from verify.release import layout, signatures, trust
from verify.release.fresh import METADATA, NEWEST, RELEASES, VERSION
from verify.release.layout import REPOSITORY, SUMS
from verify.release.rebuild import threshold

if TYPE_CHECKING:
    from packaging.version import Version
    from securesystemslib.signer import Key  # type: ignore[attr-defined]
    from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]

ROLES = ("root", "targets", "snapshot", "timestamp")
# Days until metadata expires. The timestamp limits how long a server can hide new releases.
DAYS: Mapping[str, int] = {"root": 365, "targets": 90, "snapshot": 30, "timestamp": 7}
_STAGED = "staged.root.json"
_PACKAGES = Path(REPOSITORY)
_REMEDY = "`ssh-keygen -t ed25519 -f NAME` writes a key pair, whose public half is NAME.pub"
# A name that needs no quoting in an address.
_NAME = re.compile(r"[A-Za-z0-9_.+~@,=-]+")


class PublishError(NablaError):
    """The metadata cannot be written."""


@dataclass(frozen=True)
class Site:
    """The folder. `now`: the time from which the metadata is valid."""

    folder: Path
    now: datetime

    @property
    def staged(self) -> Path:
        """The next root, which lacks signatures."""
        return self.folder / _STAGED

    def init(self, root: Sequence[Path], number: int, keys: Mapping[str, Path]) -> None:
        """Stage the first root. `root`: public keys, of which `number` must sign. `keys`: public keys by role."""
        from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]

        if self._versions("root") or self.staged.exists():
            raise PublishError(f"{self.folder} has a root", "`doit tuf:rotate` changes it")
        first = Root(version=1, expires=self._expiry("root"), consistent_snapshot=True)
        for path in root:
            first.add_key(_public(path), "root")
        _set_threshold(first, number)
        for role in ROLES[1:]:
            first.add_key(_public(keys[role]), role)
        self._write(self.staged, Metadata(first))

    def rotate(
        self, role: str, add: Sequence[Path] = (), remove: Sequence[Path] = (), number: int | None = None
    ) -> None:
        """Stage the next root, or change the staged one: other keys for a role, or another threshold of the root.

        Without changes the next root only expires later.
        """
        from tuf.api.metadata import Metadata

        if role not in ROLES:
            raise ConfigError(f"there is no role {role!r}", f"roles are {', '.join(ROLES)}")
        current = self._current("root")
        metadata = self._read(self.staged) if self.staged.exists() else current
        following = metadata.signed
        following.version, following.expires = current.signed.version + 1, self._expiry("root")
        for path in remove:
            try:
                following.revoke_key(_public(path).keyid, role)
            except ValueError as error:
                raise PublishError(f"{path} is not a key of the role {role}") from error
        for path in add:
            following.add_key(_public(path), role)
        if not following.roles[role].keyids:
            raise PublishError(f"the role {role} has no key left", "add one")
        if role == "root":
            _set_threshold(following, number or following.roles["root"].threshold)
        elif number is not None:
            raise ConfigError("only the root has a threshold", "one key signs for each other role")
        self._write(self.staged, Metadata(following))

    def changes(self) -> Iterator[str]:
        """Describe the staged root: its keys, in the format of `ssh-keygen -l`, marked if new or removed."""
        new = self._staged().signed
        old = self._current("root").signed if self._versions("root") else None
        yield f"root {new.version}, expires {new.expires:%Y-%m-%d}"
        for name in ROLES:
            role = new.roles[name]
            # A root can name other keys by the identifiers of earlier ones.
            before = set() if old is None else {_fingerprint(old, each) for each in old.roles[name].keyids}
            now = {_fingerprint(new, each) for each in role.keyids}
            other = "" if old is None or old.roles[name].threshold == role.threshold else " (changed)"
            yield f"{name}: signatures needed: {role.threshold}{other}, keys:"
            for each in sorted(before | now):
                yield f"  {each}{' (removed)' if each not in now else '' if each in before else ' (new)'}"

    def sign(self, private: Path) -> int:
        """Sign the staged root with one key; publish it if that suffices. Return the number of missing signatures."""
        metadata = self._staged()
        signer = signing.library_signer(private)
        wanted = set(metadata.signed.roles["root"].keyids)
        versions = self._versions("root")
        if versions:
            wanted |= set(self._current("root").signed.roles["root"].keyids)
        if signer.public_key.keyid not in wanted:
            raise PublishError(f"{private} is not a root key", "the keys of the old and of the new root sign")
        metadata.sign(signer, append=True)
        self._write(self.staged, metadata)
        missing = self._missing(metadata, bool(versions))
        if not missing:
            self._store("root", metadata)
            self.staged.unlink()
        return missing

    def publish(self, private: Sequence[Path], release: Path | None = None) -> str:
        """Add a release, sign all metadata except the root, and return the newest version.

        Without a release, the files are read again: for statements of rebuilds that were added, or after a rotation.
        """
        # A wrong key or name must not change what clients fetch.
        signers = self._signers(private, ROLES[1:])
        _check_names(self.folder, self._published())
        if release is not None:
            self._add(release)
        newest = self._update_newest()
        self._write_role("targets", lambda targets: setattr(targets, "targets", self._targets()), signers)
        self._write_role("snapshot", self._link("targets", "snapshot"), signers)
        self._write_role("timestamp", self._link("snapshot", "timestamp"), signers)
        return newest

    def refresh(self, private: Sequence[Path]) -> datetime:
        """Sign snapshot and timestamp again; return the date from which clients will refuse them."""
        expiries: list[datetime] = [self._current(role).signed.expires for role in ("root", "targets")]
        signers = self._signers(private, ROLES[2:])
        self._write_role("snapshot", self._link("targets", "snapshot"), signers)
        self._write_role("timestamp", self._link("snapshot", "timestamp"), signers)
        return min(self._expiry("timestamp"), *expiries)

    def _staged(self) -> Metadata[Root]:
        if not self.staged.exists():
            raise PublishError("no root waits for signatures", "`doit tuf:init` or `doit tuf:rotate` stages one")
        metadata = self._read(self.staged)
        if metadata.signed.type != "root":
            raise PublishError(f"{self.staged} is not a root", "`doit tuf:init` or `doit tuf:rotate` stages one")
        return metadata

    def _missing(self, metadata: Metadata[Root], has_root: bool) -> int:
        new = metadata.signed
        previous = self._current("root").signed if has_root else None
        result = new.get_root_verification_result(previous, metadata.signed_bytes, metadata.signatures)
        return max(part.missing for part in (result.first, result.second))

    def _add(self, release: Path) -> None:
        seen = trust.examine_bytes(release, release / layout.SIGNERS)
        problem = next((problem for row in seen.rows for problem in row.problems), None)
        if problem is not None or seen.stated is None:
            raise PublishError(f"the release is damaged: {problem}", f"./doit.sh verify:release {release}")
        version = seen.stated.version
        if _order(version) is None:
            raise PublishError(f"{version!r} is not a version that can be published", "use 1.2.3 or 1.2.3-rc1")
        target = self.folder / RELEASES / version
        statements = threshold.folder_of(release)
        _check_names(release, (path for path in release.rglob("*") if path.is_file()))
        _check_names(statements, statements.glob("*.json"))
        if not target.exists():
            # An interrupted copy is not published.
            partial = self.folder / f".{version}.partial"
            files.remove(partial)
            shutil.copytree(release, partial)
            files.make_folder(target.parent)
            partial.rename(target)
        elif (target / SUMS).read_bytes() != (release / SUMS).read_bytes():
            raise PublishError(
                f"another release {version} is published",
                "a published release never changes: tag a new version",
            )
        for path in statements.glob("*.json"):
            files.write(threshold.folder_of(target) / path.name, path.read_bytes())

    def _update_newest(self) -> str:
        """Point `releases/newest` and the repository of packages to the newest release."""
        names = [path.parent.name for path in self.folder.glob(f"{RELEASES}/*/{SUMS}")]
        versions = {order: name for name in names if (order := _order(name)) is not None}
        if not versions:
            raise PublishError("there is no release to publish", "name one: doit tuf:publish SITE RELEASE")
        newest = versions[max(versions)]
        files.write(self.folder / NEWEST, f"{newest}\n")
        packages, release = self.folder / _PACKAGES, self.folder / RELEASES / newest
        files.remove(packages)
        shutil.copytree(release / REPOSITORY, packages)
        files.write(packages / SUMS, assembly.sums(assembly.digests(packages)))
        for statements in self.folder.glob(f"{RELEASES}/attestations/*"):
            files.write(statements / SUMS, assembly.sums(assembly.digests(statements, but=(SUMS,))))
        return newest

    def _targets(self) -> dict[str, Any]:
        from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

        targets = {}
        for path in self._published():
            name = str(path.relative_to(self.folder))
            targets[name] = TargetFile.from_file(name, str(path), ["sha256"])
        return targets

    def _published(self) -> Iterator[Path]:
        for folder in (RELEASES, _PACKAGES.parts[0]):
            yield from sorted(path for path in (self.folder / folder).rglob("*") if path.is_file())

    def _link(self, role: str, link: str) -> Callable[[Any], None]:
        """Return a function that enters the current version of a role, with its digest, in the metadata `link`."""
        from tuf.api.metadata import MetaFile  # type: ignore[attr-defined]

        def change(signed: Any) -> None:
            version = max(self._versions(role))
            data = self._path(role, version).read_bytes()
            named = MetaFile.from_data(version, data, ["sha256"])
            if link == "timestamp":
                signed.snapshot_meta = named
            else:
                signed.meta = {f"{role}.json": named}

        return change

    def _write_role(self, role: str, change: Callable[[Any], None], signers: Mapping[str, Any]) -> None:
        from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]

        kinds = {"targets": Targets, "snapshot": Snapshot, "timestamp": Timestamp}
        signed = kinds[role](version=max(self._versions(role), default=0) + 1, expires=self._expiry(role))
        change(signed)
        metadata = Metadata(signed)
        metadata.sign(signers[role])
        self._store(role, metadata)

    def _signers(self, private: Collection[Path], roles: Collection[str]) -> dict[str, Any]:
        root = self._current("root").signed
        known = [signing.library_signer(path) for path in private]
        signers = {}
        for role in roles:
            fitting = [each for each in known if each.public_key.keyid in root.roles[role].keyids]
            if not fitting:
                raise PublishError(f"none of the keys signs for the role {role}", "name its private key with --key")
            signers[role] = fitting[0]
        return signers

    def _expiry(self, role: str) -> datetime:
        return (self.now + timedelta(days=DAYS[role])).replace(microsecond=0)

    def _current(self, role: str) -> Metadata[Any]:
        versions = self._versions(role)
        if not versions:
            remedy = "`doit tuf:init`, then `doit tuf:sign` with enough root keys"
            raise PublishError(f"{self.folder} has no {role}", remedy if role == "root" else "`doit tuf:publish`")
        return self._read(self._path(role, max(versions)))

    def _versions(self, role: str) -> list[int]:
        if role == "timestamp":
            path = self._path(role, 0)
            return [self._read(path).signed.version] if path.exists() else []
        paths = (self.folder / METADATA).glob(f"*.{role}.json")
        return [int(path.name.partition(".")[0]) for path in paths]

    def _path(self, role: str, version: int) -> Path:
        return self.folder / METADATA / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")

    def _store(self, role: str, metadata: Metadata[Any]) -> None:
        self._write(self._path(role, metadata.signed.version), metadata)

    @staticmethod
    def _write(path: Path, metadata: Metadata[Any]) -> None:
        files.write(path, metadata.to_bytes())

    @staticmethod
    def _read(path: Path) -> Metadata[Any]:
        from tuf.api.exceptions import RepositoryError
        from tuf.api.metadata import Metadata

        try:
            return Metadata.from_file(str(path))
        except (RepositoryError, OSError) as error:
            raise PublishError(f"{path} cannot be read: {error}") from error


def at(folder: str, now: datetime | None = None) -> Site:
    """Return the site in a folder."""
    return Site(Path(folder).absolute(), now or datetime.now(UTC))


def _order(version: str) -> Version | None:
    """Return the sort key of a version; None if it cannot be published.

    Several commits have the same version with `-dev`.
    """
    from packaging.version import InvalidVersion, Version

    if not VERSION.fullmatch(version) or re.search("-([0-9]|dev)", version):
        return None
    try:
        return Version(version.replace("-", ""))
    except InvalidVersion:
        return None


def _check_names(root: Path, paths: Iterable[Path]) -> None:
    """Raise `PublishError` for a file below `root` whose path needs quoting in an address."""
    for path in paths:
        name = path.relative_to(root)
        if not all(_NAME.fullmatch(part) for part in name.parts):
            raise PublishError(f"{str(name)!r} cannot be part of an address", "use letters, digits and _.+~@,=-")


def _fingerprint(root: Root, name: str) -> str:
    """Return the fingerprint of an Ed25519 key, else a description. `name`: its identifier in a root."""
    key = root.keys.get(name)
    try:
        raw = bytes.fromhex(key.keyval["public"]) if key is not None and key.keytype == "ed25519" else b""
    except (KeyError, TypeError, ValueError):
        raw = b""
    if len(raw) != 32:
        return f"not an Ed25519 key: {name!r}"
    return signatures.fingerprint(b"".join(struct.pack(">I", len(part)) + part for part in (b"ssh-ed25519", raw)))


def _public(path: Path) -> Key:
    """Return a public key of OpenSSH for the library."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

    try:
        key = load_ssh_public_key(path.read_bytes())
    except OSError as error:
        raise PublishError(f"{path} cannot be read: {error.strerror}", _REMEDY) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PublishError(f"{path} is not a public key of OpenSSH: {error}", _REMEDY) from error
    if not isinstance(key, Ed25519PublicKey):
        raise PublishError(f"{path} is not an Ed25519 key", _REMEDY)
    return SSlibKey.from_crypto(key)


def _set_threshold(root: Root, number: int) -> None:
    keys = len(root.roles["root"].keyids)
    if not 1 <= number <= keys:
        raise ConfigError(f"{number} of {keys} root keys cannot be required", "add keys, or lower the threshold")
    root.roles["root"].threshold = number
