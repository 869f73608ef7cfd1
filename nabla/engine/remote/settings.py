# SPDX-License-Identifier: Apache-2.0
"""The stores to read and write, from `store.toml` in the user's configuration and from the environment.

NABLA_STORE_CONFIG    another path of the file; default: nabla/store.toml in the user's configuration folder
NABLA_STORE           addresses of stores in order, separated by spaces, instead of the file's; "off" for none
NABLA_STORE_PUSH      1: write to the first of them, too
NABLA_STORE_SIGNERS   the file of allowed signers
NABLA_STORE_KEY       the private key that signs
NABLA_OFFLINE         stores that need a connection are not used
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from nabla.core import toml
from nabla.core.errors import ConfigError
from verify.release.layout import keys_dir

SCHEMES = ("http", "https", "file")
_VARIABLES = ("NABLA_STORE", "NABLA_STORE_PUSH", "NABLA_STORE_SIGNERS", "NABLA_STORE_KEY", "NABLA_OFFLINE")

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Count = Annotated[int, msgspec.Meta(ge=1, le=64)]
Rate = Annotated[int, msgspec.Meta(ge=1)]
Days = Annotated[int, msgspec.Meta(ge=1)]


class _Store(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    url: str
    push: bool = False
    ca: str = ""
    certificate: str = ""
    certificate_key: str = ""
    user: str = ""
    password_file: str = ""
    timeout: Seconds = 20.0
    min_rate: Rate = 256 << 10


class _File(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    store: tuple[_Store, ...] = ()
    allowed_signers: str = ""
    key: str = ""
    not_before: datetime.date | None = None
    max_age_days: Days | None = None
    parallel: Count = 4


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """One store. `timeout`: seconds without an answer; `min_rate`: bytes per second that a transfer needs."""

    url: str
    push: bool = False
    ca: Path | None = None
    certificate: tuple[Path, Path] | None = None
    login: tuple[str, str] | None = None
    timeout: float = 20.0
    min_rate: int = 256 << 10

    @property
    def is_local(self) -> bool:
        """Return whether it is a folder, which needs no connection."""
        return self.url.startswith("file://")


@dataclasses.dataclass(frozen=True)
class Settings:
    """All stores in reading order, and the limits for accepted records. `not_before`: seconds since 1970."""

    stores: tuple[StoreSettings, ...] = ()
    allowed_signers: Path = Path("/nonexistent")
    key: Path | None = None
    not_before: float = 0.0
    max_age: float | None = None
    parallel: int = 4

    @property
    def pushes(self) -> bool:
        """Return whether results are uploaded to a store as soon as they are built."""
        return any(each.push for each in self.stores)


def load() -> Settings:
    """Return the settings. Raises `ConfigError`."""
    path = config_path()
    try:
        status = path.stat()
        identity = (status.st_mtime_ns, status.st_size, status.st_ino)
    except OSError:
        if os.environ.get("NABLA_STORE_CONFIG"):
            raise ConfigError(f"there is no file {path}", "NABLA_STORE_CONFIG names it") from None
        identity = None
    return _load(path, identity, tuple(os.environ.get(name, "") for name in _VARIABLES), default_signers())


def config_path() -> Path:
    """Return the path of the file of settings, whether or not it exists."""
    explicit = os.environ.get("NABLA_STORE_CONFIG")
    return Path(explicit).expanduser().absolute() if explicit else keys_dir().parent / "store.toml"


def default_signers() -> Path:
    """Return the path of the user's file of allowed signers."""
    return keys_dir().parent / "store_signers"


@functools.lru_cache(maxsize=8)
def _load(path: Path, identity: object, variables: tuple[str, ...], signers_path: Path) -> Settings:
    addresses, push, signers, key, offline = variables
    if addresses == "off":
        return Settings()
    content = _File()
    stores: tuple[StoreSettings, ...] = ()
    if identity is not None:
        document = toml.read(path, ConfigError)
        content = document.convert(_File)
        stores = tuple(_store(document, number, each) for number, each in enumerate(content.store))
    if addresses:
        stores = tuple(
            StoreSettings(_checked(each), push=number == 0 and push not in ("", "0"))
            for number, each in enumerate(addresses.split())
        )
    if offline not in ("", "0"):
        stores = tuple(each for each in stores if each.is_local)
    chosen = signers or content.allowed_signers
    begin = content.not_before
    return Settings(
        stores=stores,
        allowed_signers=_path(path, chosen) if chosen else signers_path,
        key=_path(path, key or content.key) if key or content.key else None,
        not_before=datetime.datetime.combine(begin, datetime.time(), datetime.UTC).timestamp() if begin else 0.0,
        max_age=content.max_age_days * 86400.0 if content.max_age_days else None,
        parallel=content.parallel,
    )


def _store(document: toml.Document, number: int, content: _Store) -> StoreSettings:
    where = ("store", number)
    try:
        url = _checked(content.url)
    except ConfigError as error:
        document.fail((*where, "url"), error.message, error.hint)
    if bool(content.certificate) != bool(content.certificate_key):
        document.fail(where, "certificate and certificate_key belong together")
    if bool(content.user) != bool(content.password_file):
        document.fail(where, "user and password_file belong together")
    certificate = None
    if content.certificate:
        certificate = (_path(document.path, content.certificate), _path(document.path, content.certificate_key))
    login = None
    if content.user:
        file = _path(document.path, content.password_file)
        try:
            login = (content.user, file.read_text(encoding="utf-8").rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            document.fail((*where, "password_file"), f"cannot read {file}: {error}")
    return StoreSettings(
        url=url,
        push=content.push,
        ca=_path(document.path, content.ca) if content.ca else None,
        certificate=certificate,
        login=login,
        timeout=content.timeout,
        min_rate=content.min_rate,
    )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in SCHEMES and bool(parts.path if parts.scheme == "file" else parts.hostname)
    except ValueError:
        valid = False
    if not valid or (parts.scheme == "file" and parts.netloc):
        raise ConfigError(f"`{url}` is not the address of a store", "examples: https://host/nabla, file:///srv/nabla")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "the address of a store contains a login, a query or a fragment",
            "write the login as user and password_file",
        )
    return url.rstrip("/")


def _path(file: Path, text: str) -> Path:
    """Return a path of the file of settings, which may be relative to its folder."""
    return file.parent / Path(text).expanduser()
