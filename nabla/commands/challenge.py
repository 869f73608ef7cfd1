# SPDX-License-Identifier: Apache-2.0
"""Rebuild results of stores and compare them with the signed digests.

The build runs without stores. Its result replaces the one in the cache, so a wrong result does not stay in use; the
store's result is written beside it, for diffoscope.
"""

from __future__ import annotations

import fnmatch
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from nabla.commands import cache_keys
from nabla.core import files, log, process
from nabla.core.errors import CommandError, ConfigError, VerifyError
from nabla.core.paths import OUT, ROOT, relative
from nabla.engine import result_cache
from nabla.engine.remote import settings, stores
from nabla.engine.remote.record import Signed
from nabla.sandbox import buildroot, lockfile

DEFAULT = 3


@dataclass(frozen=True)
class _Challenged:
    result: cache_keys.Result
    signed: Signed
    store: str


def run(words: list[str], seed: str) -> None:
    """Choose N results at random, of tasks that match, and build them again. Raises `VerifyError` if one differs."""
    if words and not words[0].isdigit():
        raise ConfigError("cache:challenge takes a number first", "example: doit cache:challenge 5 packages:*")
    number = int(words[0]) if words else DEFAULT
    if not stores.all_stores():
        raise ConfigError("there is no store", "name one in store.toml (docs/store.md)")
    chosen = _choose(number, words[1:], random.Random(seed) if seed else random.SystemRandom())
    if not chosen:
        raise VerifyError("no store has a result of this checkout", "build first: the keys depend on built inputs")
    # The builds use no store, and a checkout whose results all come from one has no build root yet.
    for pins in (lockfile.BASE, lockfile.PACKAGING):
        buildroot.take_from_stores(lockfile.read_lock(pins.lock))
    different = [line for each in chosen for line in _compare(each)]
    for line in different:
        log.error(line)
    if different:
        raise VerifyError(
            f"{len(different)} outputs differ from the signed ones", f"compare them in {relative(_folder())}"
        )
    log.info(f"{len(chosen)} results are the same as those in the stores")


def _choose(number: int, patterns: list[str], generator: random.Random) -> list[_Challenged]:
    current, chosen = settings.load(), list[_Challenged]()
    results = [
        each
        for each in cache_keys.results()
        if not patterns or any(fnmatch.fnmatch(each.task, pattern) for pattern in patterns)
    ]
    generator.shuffle(results)
    for result in results:
        for store in stores.all_stores():
            signed = stores.look_up(store, result.key, current)
            if signed is not None:
                chosen.append(_Challenged(result, signed, store.settings.url))
                break
        if len(chosen) == number:
            break
    return chosen


def _compare(each: _Challenged) -> list[str]:
    """Build one result again; return one line for each output that differs."""
    key, task, signer = each.result.key, each.result.task, each.signed.signer
    with log.step(f"{task}: build again"):
        environment = {"NABLA_STORE": "off", "NABLA_CHALLENGE": key}
        before = _identity(key)
        words = [sys.executable, "-m", "doit", "run", "--always-execute", "--single", task]
        if process.interactive(words, cwd=ROOT, env=environment) != 0:
            raise CommandError(f"{task} cannot be built again", "see above")
    if _identity(key) in (None, before):
        raise VerifyError(f"{task} was not built again", "an input changed: run the same command again")
    here = _digests(key)
    lines = [
        f"{task}: {signer} signed {output.digest[:16]}… for output {name}, here it is {here.get(name, 'absent')[:16]}…"
        for name, output in sorted(each.signed.record.outputs.items())
        if here.get(name) != output.digest
    ]
    if lines:
        folder = _folder() / key[:16]
        files.remove(folder)
        files.make_folder(folder)
        stores.take(key, folder / "signed")
        (folder / "here").symlink_to(result_cache.entry(key))
    else:
        log.info(f"{task}: the same as {signer} signed")
    return lines


def _folder() -> Path:
    return OUT / "challenge"


def _identity(key: str) -> int | None:
    """Return a number that identifies the entry that is now in the cache under this key; None if it is absent."""
    try:
        return (result_cache.entry(key) / "manifest.json").stat().st_ctime_ns
    except OSError:
        return None


def _digests(key: str) -> dict[str, str]:
    text = (result_cache.entry(key) / "manifest.json").read_text(encoding="utf-8")
    read: dict[str, str] = json.loads(text)["digests"]
    return read
