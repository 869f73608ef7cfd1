# SPDX-License-Identifier: Apache-2.0
"""The exceptions of this package. All are `SandboxError`."""

from __future__ import annotations


class SandboxError(Exception):
    """A request that a sandbox did not fulfill."""


class StartError(SandboxError):
    """The VM did not start; the text contains what nabla-run printed."""


class ProtocolError(SandboxError):
    """The VM or its broker ended the connection, or violated the protocol."""


class GuestFileError(SandboxError):
    """A file of the guest could not be read or changed."""


class CommandStartError(SandboxError):
    """The guest could not start a program."""


class SnapshotError(SandboxError):
    """The VM could not be saved."""


class OutputLimit(SandboxError):
    """A sandbox sent more than the host was going to keep."""


class SandboxTimeout(SandboxError, TimeoutError):
    """A command did not end in time; it has been killed."""
