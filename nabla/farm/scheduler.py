# SPDX-License-Identifier: Apache-2.0
"""The scheduler of a farm, in the foreground: it assigns steps to workers, and stores nothing on disk."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from nabla.core import log
from nabla.core.errors import ConfigError
from nabla.farm import settings


def extensions() -> dict[str, Any]:
    """Return the extensions of Dask's scheduler without those that send objects to workers, which refuse them."""
    from distributed.scheduler import DEFAULT_EXTENSIONS

    return {name: DEFAULT_EXTENSIONS[name] for name in ("events", "stealing")}


def serve(host: str, port: int) -> None:
    """Run a scheduler until SIGINT or SIGTERM. Raises `ConfigError`."""
    settings.need_packages()
    settings.configure()
    asyncio.run(_serve(host, port))


async def _serve(host: str, port: int) -> None:
    from distributed import Scheduler

    security = settings.security("scheduler")
    try:
        scheduler = Scheduler(
            host=host or None,
            port=port,
            protocol="tls://",
            security=security,
            dashboard=False,
            dashboard_address=None,
            extensions=extensions(),
            # An idle farm keeps running.
            idle_timeout=None,
        )
        await scheduler
    except (OSError, ValueError) as error:
        raise ConfigError(f"the scheduler cannot listen on port {port}: {error}", "choose another --port") from None
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    log.info(f"scheduler at {scheduler.address}; workers: doit farm:worker {scheduler.address}")
    await stop.wait()
    await scheduler.close(reason="the scheduler was stopped")
