# SPDX-License-Identifier: Apache-2.0
"""Fetch a release from a web server and prove that it is fresh: `python -m verify.release.fresh URL FOLDER`

A signature shows who signed a file, but not when: an old release verifies forever. The server's metadata follows The
Update Framework (TUF, https://theupdateframework.io), whose reference client checks it:

    root        the keys of all roles; changes only by a threshold of keys of the old and of the new root
    timestamp   expires within days: clients notice a server that hides new releases (freeze)
    snapshot    the versions of all metadata belong together (mix-and-match)
    targets     length and sha256 of every file

Versions never decrease (rollback). The client stores the metadata that it has seen in a folder for each address, by
default repositories/ beside the user's keys. At first use, it needs a root from a source that the user trusts
(`--root`). Exit status: 0 fetched, 1 refused, 2 the server cannot be reached, or the arguments are wrong.
"""

from __future__ import annotations

import argparse
import fcntl
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

from verify.release import layout
from verify.release.layout import PROGRAMS, REPOSITORY, SIGNATURE, SUMS

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]
    from tuf.ngclient.updater import Updater

METADATA = "metadata"  # folders on the server
RELEASES = "releases"
NEWEST = f"{RELEASES}/newest"
_ASK = "ask its publisher"
VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?")


class FreshnessError(Exception):
    """The server cannot be queried. `hint`: the remedy."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class RefusedError(FreshnessError):
    """The server's metadata or files are refused."""


@dataclass(frozen=True)
class Source:
    """A server. `root`: the trusted root for the first use. `state`: the folder of the known metadata."""

    url: str
    root: Path | None
    state: Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a server to the checker of releases."""
    parser.add_argument("--fresh", metavar="URL", help="the server whose newest release this must be")
    _add_state(parser)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, metavar="FILE", help="trusted root metadata, for the first use")
    parser.add_argument("--state", type=Path, metavar="FOLDER", help="known metadata; default: beside your keys")


def source(options: argparse.Namespace) -> Source | None:
    """Return the server that the options name, if any. Raises `FreshnessError` for options without a server."""
    if options.fresh is None and (options.root is not None or options.state is not None):
        raise FreshnessError("--root and --state need a server", "add --fresh URL")
    return None if options.fresh is None else _source(options.fresh, options)


def _source(url: str, options: argparse.Namespace) -> Source:
    url = url.rstrip("/")
    state = options.state or layout.keys_dir().parent / "repositories" / quote(url, safe="")
    return Source(url, options.root, state)


def check(server: Source, version: str, sums: str) -> Iterator[str]:
    """Yield why a release is not the newest on a server. `sums`: sha256 of its file of sums.

    Raises `FreshnessError` if the server cannot be queried."""
    try:
        with _opened(server) as client, tempfile.TemporaryDirectory(prefix="nabla-fresh-") as scratch:
            target = _find(client, f"{RELEASES}/{version}/{SUMS}")
            if target is None:
                yield f"the server offers no release {version}"
            elif target.hashes.get("sha256") != sums:
                yield f"the server offers another release {version}"
            newest = _newest(client, Path(scratch))
            if newest != version:
                yield f"the newest release is {newest}"
    except RefusedError as error:
        yield ": ".join(filter(None, (str(error), error.hint)))


def fetch(server: Source, folder: Path, version: str = "") -> str:
    """Fetch a release, by default the newest, to a new folder; return its version.

    Raises `FreshnessError` if the server cannot be queried, `RefusedError` for refused metadata or files.
    """
    with _opened(server) as client, _new(folder) as scratch:
        if not version:
            version = _newest(client, scratch)
        count = _download(client, f"{RELEASES}/{version}", scratch / "content")
        if not count:
            raise RefusedError(
                f"the server offers no release {version}", "its publisher may have withdrawn it: fetch the newest"
            )
        (scratch / "content").rename(folder)
    return version


def fetch_packages(server: Source, folder: Path) -> int:
    """Fetch the newest repository of packages to a new folder; return the number of files. Raises as `fetch`."""
    with _opened(server) as client, _new(folder) as scratch:
        count = _download(client, REPOSITORY, scratch / "content")
        if not count:
            raise RefusedError("the server offers no packages", "check the address")
        (scratch / "content").rename(folder)
    return count


@contextmanager
def _new(folder: Path) -> Iterator[Path]:
    """A temporary folder beside a new one, which must not exist."""
    if folder.exists():
        raise FreshnessError(f"{folder} exists", "name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        # Only the user can enter the temporary folder: the content gets the modes of a release.
        (Path(scratch) / "content").mkdir()
        yield Path(scratch)


@contextmanager
def _opened(server: Source) -> Iterator[Updater]:
    """A client whose metadata is as new as the server's. Raises `FreshnessError`, `RefusedError`."""
    from tuf.ngclient.config import UpdaterConfig
    from tuf.ngclient.updater import Updater

    # A release keeps the names of its files, so that it is an ordinary folder on the server.
    config = UpdaterConfig(prefix_targets_with_hash=False, app_user_agent="nabla")
    with _explained(server):
        if server.root is None and not (server.state / "root.json").exists():
            raise FreshnessError(
                f"nothing is known about {server.url}", "add --root FILE, with its root from a source that you trust"
            )
        server.state.mkdir(parents=True, exist_ok=True)
        with (server.state / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            client = Updater(
                str(server.state),
                f"{server.url}/{METADATA}",
                target_base_url=server.url,
                config=config,
                bootstrap=None if server.root is None else server.root.read_bytes(),
            )
            client.refresh()
            yield client


@contextmanager
def _explained(server: Source) -> Iterator[None]:
    """Turn the client's errors into ones with a cause and a remedy."""
    import urllib3
    from tuf.api import exceptions

    try:
        yield
    except exceptions.ExpiredMetadataError as error:
        raise RefusedError(
            f"{server.url} offers nothing new: {error}",
            "the server hides new releases, is not maintained, or a clock is wrong",
        ) from error
    except exceptions.BadVersionNumberError as error:
        raise RefusedError(f"{server.url} offers older metadata than before: {error}", _ASK) from error
    except exceptions.UnsignedMetadataError as error:
        raise RefusedError(f"{server.url}: the metadata is not signed by enough of the keys: {error}", _ASK) from error
    except (exceptions.LengthOrHashMismatchError, exceptions.DownloadLengthMismatchError) as error:
        raise RefusedError(
            f"{server.url}: a file does not belong to the metadata: {error}",
            "try again later: the publisher may be publishing now",
        ) from error
    except exceptions.RepositoryError as error:
        raise RefusedError(f"{server.url}: the metadata is malformed: {error}", _ASK) from error
    except (exceptions.DownloadError, urllib3.exceptions.HTTPError) as error:
        raise FreshnessError(
            f"{server.url} cannot be read: {str(error) or error.__cause__ or type(error).__name__}",
            "check the address and the network",
        ) from error
    except OSError as error:
        raise FreshnessError(f"{server.url}: {error}", "check the path and its permissions") from error
    except ValueError as error:
        raise RefusedError(f"{server.url}: a file is malformed: {error}", _ASK) from error


def _find(client: Updater, path: str) -> TargetFile | None:
    return client.get_targetinfo(path)


def _newest(client: Updater, scratch: Path) -> str:
    target = _find(client, NEWEST)
    if target is None:
        raise RefusedError("the server offers no release", "check the address")
    version = Path(client.download_target(target, str(scratch / "newest"))).read_text(encoding="utf-8").strip()
    if not VERSION.fullmatch(version):
        raise RefusedError(f"the server's newest release has no version: {version[:40]!r}", _ASK)
    return version


def _download(client: Updater, prefix: str, folder: Path) -> int:
    """Fetch the files that the sums below a path list, and the sums; return their number."""
    names = [SUMS]
    seen = set[str]()
    count = 0
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        target = _find(client, f"{prefix}/{name}")
        if target is None:
            # A repository of packages has no signature of its sums.
            if name in (SUMS, SIGNATURE):
                continue
            raise RefusedError(f"the server offers no {prefix}/{name}, which {prefix}/{SUMS} lists", _ASK)
        path = folder / name
        client.download_target(target, str(path))
        path.chmod(0o755 if name in PROGRAMS else 0o644)
        count += 1
        if name == SUMS:
            names += [SIGNATURE, *_listed(path)]
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    return count


def _listed(sums: Path) -> Iterator[str]:
    for line in sums.read_text(encoding="utf-8").splitlines():
        listed = layout.read_sum(line)
        path = PurePosixPath(listed[0]) if listed else None
        if listed is None or path is None or path.is_absolute() or ".." in path.parts or not listed[0].isprintable():
            raise RefusedError(f"the server's {SUMS} is malformed", _ASK)
        yield listed[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    assert __doc__ is not None
    about = __doc__.splitlines()[0].split(":")[0]
    parser = argparse.ArgumentParser(prog="python -m verify.release.fresh", description=about)
    _add_state(parser)
    parser.add_argument("--version", default="", help="default: the newest release")
    parser.add_argument("--packages", action="store_true", help="fetch the repository of packages instead")
    parser.add_argument("url", help="the address of the server")
    parser.add_argument("folder", type=Path, help="a new folder")
    options = parser.parse_args(argv)
    server = _source(options.url, options)
    try:
        if options.packages:
            print(f"{fetch_packages(server, options.folder)} files in {options.folder}")
        else:
            print(f"release {fetch(server, options.folder, options.version)} in {options.folder}")
    except FreshnessError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return 1 if isinstance(error, RefusedError) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
