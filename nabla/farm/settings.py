# SPDX-License-Identifier: Apache-2.0
"""The farm's folder of keys, its optional packages, and Dask's settings.

NABLA_FARM_KEYS   another folder; default: nabla/farm in the user's configuration folder
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import socket
import ssl
import warnings
from pathlib import Path
from typing import Any

from nabla.core.errors import ConfigError, HostError
from nabla.core.paths import ROOT
from nabla.farm import protocol
from verify.release.layout import keys_dir

REQUIREMENTS = ROOT / "requirements-farm.txt"
PORT = 8786
_PREFLIGHT = 10.0  # seconds
# Dask's defaults suit data analysis; a build step takes minutes, and its worker is an idle process.
_DASK = {
    "distributed.scheduler.worker-ttl": "30s",
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.work-stealing": True,
    # A worker takes a task only when it has a free slot, so that priorities count.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "20s",
    "distributed.comm.retry.count": 2,
    "distributed.comm.require-encryption": True,
    "distributed.admin.low-level-log-length": 100,
    "distributed.logging.distributed": "critical",
}


def folder() -> Path:
    """Return the folder of the farm's keys."""
    explicit = os.environ.get("NABLA_FARM_KEYS")
    return Path(explicit).expanduser().absolute() if explicit else keys_dir().parent / "farm"


def need_packages() -> None:
    """Raise `HostError` if the optional packages are absent."""
    if importlib.util.find_spec("distributed") is None:
        raise HostError("the farm needs packages that are not installed", "run `./doit.sh farm:install`")


def configure() -> None:
    """Set Dask's configuration; variables DASK_… of the environment take precedence."""
    import dask

    # For example, if there is no route to the Internet.
    warnings.filterwarnings("ignore", module="distributed")
    chosen = dask.config.collect(paths=[])
    dask.config.set(_DASK)
    dask.config.update(dask.config.config, chosen)
    dask.config.set({"distributed.comm.require-encryption": True})
    protocol.restrict()


def security(role: str) -> Any:
    """Return Dask's settings of TLS for a role; both sides show a certificate. Raises `ConfigError`."""
    from distributed import Security

    from nabla.farm import certificates

    credentials = certificates.find(folder(), role)
    files = {
        f"tls_{role}_{kind}": str(path) for kind, path in (("cert", credentials.certificate), ("key", credentials.key))
    }
    return Security(tls_ca_file=str(credentials.authority), require_encryption=True, tls_min_version=0x0304, **files)


def address(text: str) -> str:
    """Return the address of a scheduler in Dask's form. Raises `ConfigError`."""
    match = re.fullmatch(r"(?:(?P<scheme>\w+)://)?(?P<host>\[[0-9a-fA-F:]+\]|[^\s:/]+)(?::(?P<port>\d{1,5}))?", text)
    if match is None:
        raise ConfigError(f"`{text}` is not the address of a farm", f"example: tls://scheduler.example:{PORT}")
    if match["scheme"] not in (None, "tls"):
        raise ConfigError(f"`{text}`: farms require TLS", f"example: tls://{match['host']}:{PORT}")
    return f"tls://{match['host']}:{match['port'] or PORT}"


def architecture() -> str:
    """Return the name of this host's architecture, as in resources."""
    return platform.machine()


def preflight(address: str, role: str) -> None:
    """Try to connect, and name the cause if that fails. Raises `ConfigError`."""
    # Imported when needed: every doit lists the tasks.
    from nabla.farm import certificates

    credentials = certificates.find(folder(), role)
    host, port = address.removeprefix("tls://").rsplit(":", 1)
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(credentials.authority))
    # Like Dask: a member of the farm proves that it belongs to the farm, not its host name.
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(credentials.certificate, credentials.key)
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), _PREFLIGHT) as plain,
            context.wrap_socket(plain) as secured,
        ):
            # A scheduler sends the first message; if it refuses the certificate, it closes the connection now.
            if not secured.recv(1):
                raise ConfigError(f"{address} closes the connection", "is it the scheduler of a farm?")
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"{address} has a certificate that is not valid here: {error.verify_message}",
            f"is it another farm? Its authority must be {credentials.authority}; or one of the clocks is wrong",
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise ConfigError(
            f"{address} refuses this host's certificate or does not use TLS: {reason}",
            f"it must be the scheduler of the farm whose authority is {credentials.authority}",
        ) from None
    except TimeoutError:
        raise ConfigError(f"{address} does not answer within {_PREFLIGHT:.0f} s", "is the scheduler running?") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{address} cannot be reached: {reason}", "is the scheduler running?") from None
