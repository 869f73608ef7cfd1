# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of Nabla Linux: a Linux VM for untrusted code, without root and without KVM."""

from .aio import AsyncCommandHandle, AsyncSandbox
from .commands import CommandHandle, CommandResult
from .errors import (
    CommandStartError,
    GuestFileError,
    OutputLimit,
    ProtocolError,
    SandboxError,
    SandboxTimeout,
    SnapshotError,
    StartError,
)
from .interpreter import CodeResult
from .sandbox import Sandbox
from .warm import warm_python

__all__ = [
    "AsyncCommandHandle",
    "AsyncSandbox",
    "CodeResult",
    "CommandHandle",
    "CommandResult",
    "CommandStartError",
    "GuestFileError",
    "OutputLimit",
    "ProtocolError",
    "Sandbox",
    "SandboxError",
    "SandboxTimeout",
    "SnapshotError",
    "StartError",
    "warm_python",
]
