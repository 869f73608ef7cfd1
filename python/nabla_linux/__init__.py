# SPDX-License-Identifier: Apache-2.0
"""Sandboxes of Nabla Linux: a Linux VM for untrusted code, without root and without KVM."""

from .commands import CommandHandle, CommandResult
from .errors import (
    CommandStartError,
    GuestFileError,
    ProtocolError,
    SandboxError,
    SandboxTimeout,
    StartError,
)
from .sandbox import Sandbox

__all__ = [
    "CommandHandle",
    "CommandResult",
    "CommandStartError",
    "GuestFileError",
    "ProtocolError",
    "Sandbox",
    "SandboxError",
    "SandboxTimeout",
    "StartError",
]
