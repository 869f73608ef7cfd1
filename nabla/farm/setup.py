# SPDX-License-Identifier: Apache-2.0
"""The commands of a farm; those that need its packages import them when they run."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nabla.core import log
from nabla.core.errors import CommandError, ConfigError, FetchError, OfflineError
from nabla.core.paths import cache_dir
from nabla.engine.action import Job
from nabla.farm import settings
from nabla.sources.store import is_offline


def installed(task: Any, values: Mapping[str, Any]) -> bool:
    """Up-to-date check: the packages are in the virtual environment, which is not an output of this step."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("distributed") is not None


def install(job: Job) -> None:
    """Step: install the packages with the locked digests, from the cache of wheels or from the index."""
    wheels = cache_dir() / "wheels"
    locked = ["--require-hashes", "--no-deps", "--requirement", str(settings.REQUIREMENTS)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    from_cache = [*pip, "install", "--no-index", "--find-links", str(wheels), *locked]
    plain = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    wheels.mkdir(parents=True, exist_ok=True)
    if _succeeds(job, from_cache, plain):
        return
    if is_offline():
        raise OfflineError("the farm's packages are not in the cache of wheels (offline)", "run once with a network")
    try:
        job.run([*pip, "download", "--only-binary=:all:", "--dest", str(wheels), *locked])
        job.run(from_cache, env=plain)
    except CommandError as error:
        raise FetchError("the farm's packages could not be installed", error.hint) from error


def _succeeds(job: Job, argv: list[str], env: Mapping[str, str]) -> bool:
    """Run a program with the task's log; return whether it succeeded."""
    return job.run(argv, env=env, check=False).returncode == 0


def create_keys() -> None:
    """Create the authority and the certificates; existing files are kept."""
    from nabla.farm import certificates

    folder = settings.folder()
    created = certificates.create(folder)
    for path in created:
        log.info(f"created {path}")
    log.info(f"{folder}: {certificates.AUTHORITY}.key stays here; other machines need ca.pem and the files of one role")


def scheduler(host: str, port: int) -> None:
    """Run a scheduler."""
    settings.need_packages()
    from nabla.farm import scheduler as role

    role.serve(host, port)


def worker(words: list[str], slots: int, name: str) -> None:
    """Run a worker."""
    settings.need_packages()
    from nabla.farm import worker as role

    role.serve(words, slots, name)


def status(words: list[str]) -> None:
    """Print the workers of a farm. Raises `ConfigError`."""
    if len(words) != 1:
        raise ConfigError("farm:status takes the address of a scheduler", "example: doit farm:status tls://host:8786")
    settings.need_packages()
    settings.configure()
    from nabla.farm import client

    client.print_status(words[0])


def run_tasks(words: list[str]) -> None:
    """Run whole tasks on workers, all at once. Raises `ConfigError`, and `CommandError` if one fails."""
    if len(words) < 2:
        raise ConfigError("farm:run takes an address and tasks", "example: doit farm:run tls://host:8786 check:busybox")
    settings.need_packages()
    settings.configure()
    from nabla.farm import client

    address, *names = words
    with client.Farm(address, {}, 1) as farm, ThreadPoolExecutor(len(names)) as pool:
        replies = list(pool.map(farm.run_whole, names))
    failed = []
    for name, reply in zip(names, replies, strict=True):
        if reply is None or reply.outcome != "done":
            failed.append(name)
            log.error(f"{name}: {reply.message if reply else 'the farm could not run it'}")
        else:
            log.info(f"{name}: done on {reply.worker} in {log.seconds(reply.seconds)}")
    if failed:
        raise CommandError(f"{len(failed)} of {len(names)} tasks failed: {', '.join(failed)}", "see above")
