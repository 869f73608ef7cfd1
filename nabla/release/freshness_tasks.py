# SPDX-License-Identifier: Apache-2.0
"""Commands that publish releases with TUF metadata, and one that fetches them (docs/freshness.md).

tuf:init -> tuf:sign (by enough people) -> tuf:publish -> tuf:refresh, regularly tuf:rotate -> tuf:sign -> tuf:publish
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nabla.core import log, process
from nabla.core.errors import EXIT_USER, CommandError, ConfigError, VerifyError
from nabla.core.paths import ROOT
from nabla.engine import task
from nabla.engine.task import TaskDict
from nabla.release import freshness, signing


def _option(name: str, kind: type, default: Any, text: str) -> dict[str, Any]:
    return {"name": name, "long": name, "type": kind, "default": default, "help": text}


_KEYS = _option("key", list, [], "private key; can be repeated; default: yours")


def task_tuf() -> Iterator[TaskDict]:
    """Publish releases with metadata that expires."""
    yield task.command(
        "tuf:init",
        init,
        doc="stage the first root of a site: doit tuf:init --root A.pub --root B.pub --threshold N --targets C.pub "
        "--online D.pub SITE",
        params=[
            _option("root", list, [], "public key of the root; can be repeated"),
            _option("threshold", int, 2, "number of root keys that must sign"),
            _option("targets", str, "", "public key that signs releases"),
            _option("online", str, "", "public key that signs snapshots and timestamps"),
        ],
        words="words",
    )
    yield task.command(
        "tuf:rotate",
        rotate,
        doc="stage the next root, with other keys: doit tuf:rotate --role ROLE [--add K.pub] [--remove K.pub] SITE",
        params=[
            _option("role", str, "root", ", ".join(freshness.ROLES)),
            _option("add", list, [], "public key; can be repeated"),
            _option("remove", list, [], "public key; can be repeated"),
            _option("threshold", int, 0, "another threshold of the root"),
        ],
        words="words",
    )
    yield task.command(
        "tuf:sign", sign, doc="show the staged root and sign it with a key: doit tuf:sign SITE [KEY]", words="words"
    )
    yield task.command(
        "tuf:publish",
        publish,
        doc="publish a release, or statements of rebuilds: doit tuf:publish [--key K…] SITE [RELEASE]",
        params=[_KEYS],
        words="words",
    )
    yield task.command(
        "tuf:refresh",
        refresh,
        doc="let snapshot and timestamp expire later: doit tuf:refresh [--key K…] SITE",
        params=[_KEYS],
        words="words",
    )


def task_release_fetch() -> TaskDict:
    """Fetch a release."""
    return task.command(
        "release:fetch",
        fetch,
        doc="fetch the newest release from a server: doit release:fetch -- [--root FILE] [--packages] URL FOLDER",
        words="words",
    )


def init(root: list[str], threshold: int, targets: str, online: str, words: list[str]) -> None:
    """Stage the first root. Raises `NablaError`."""
    (site,) = _arguments(words, "SITE", 1, 1)
    if not (root and targets and online):
        raise ConfigError("keys are missing", "name them with --root, --targets and --online")
    keys = {"targets": Path(targets), "snapshot": Path(online), "timestamp": Path(online)}
    freshness.at(site).init([Path(path) for path in root], threshold, keys)
    log.info(f"{site}: a root is staged; {threshold} of {len(root)} people sign it with `doit tuf:sign`")


def rotate(role: str, add: list[str], remove: list[str], threshold: int, words: list[str]) -> None:
    """Stage the next root. Raises `NablaError`."""
    (site,) = _arguments(words, "SITE", 1, 1)
    freshness.at(site).rotate(role, [Path(path) for path in add], [Path(path) for path in remove], threshold or None)
    log.info(f"{site}: a root is staged; people sign it with `doit tuf:sign`, then run `doit tuf:publish`")


def sign(words: list[str]) -> None:
    """Show what the staged root changes, and sign it if a key is named. Raises `NablaError`."""
    site, *key = _arguments(words, "SITE [KEY]", 1, 2)
    staged = freshness.at(site)
    for line in staged.changes():
        log.info(line)
    if not key:
        return
    missing = staged.sign(Path(key[0]))
    log.info(f"{site}: {f'{missing} more signatures are needed' if missing else 'the root is published'}")


def publish(key: list[str], words: list[str]) -> None:
    """Publish. Raises `NablaError`."""
    site, *release = _arguments(words, "SITE [RELEASE]", 1, 2)
    newest = freshness.at(site).publish(_keys(key), Path(release[0]).absolute() if release else None)
    log.info(f"{site}: the newest release is {newest}")


def refresh(key: list[str], words: list[str]) -> None:
    """Sign snapshot and timestamp again. Raises `NablaError`."""
    (site,) = _arguments(words, "SITE", 1, 1)
    log.info(f"{site}: clients refuse the metadata from {freshness.at(site).refresh(_keys(key)):%Y-%m-%d} on")


def fetch(words: list[str]) -> None:
    """Run the stand-alone client. Raises `VerifyError` if it refuses the server's files."""
    status = process.interactive([sys.executable, "-m", "verify.release.fresh", *words], cwd=ROOT)
    if status == EXIT_USER:
        raise CommandError("nothing was fetched", "see above", returncode=status)
    if status != 0:
        raise VerifyError("the server's files are refused", "see above")


def _arguments(words: list[str], usage: str, least: int, most: int) -> list[str]:
    if not least <= len(words) <= most:
        raise ConfigError(f"the arguments are {usage}", "`doit help TASK` describes the options")
    return words


def _keys(names: list[str]) -> list[Path]:
    return [Path(name) for name in names] or [signing.ensure_key()[0]]
