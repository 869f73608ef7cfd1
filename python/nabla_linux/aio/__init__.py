# SPDX-License-Identifier: Apache-2.0
"""Sandboxes for asyncio."""

from .sandbox import AsyncSandbox
from .streams import AsyncCommandHandle, AsyncCommands, AsyncFiles

__all__ = ["AsyncCommandHandle", "AsyncCommands", "AsyncFiles", "AsyncSandbox"]
