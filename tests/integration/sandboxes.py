# SPDX-License-Identifier: Apache-2.0
"""The package in python/ for tests."""

from __future__ import annotations

import sys

from nabla.core.paths import ROOT

PACKAGE = ROOT / "python"
sys.path.insert(0, str(PACKAGE))

# ruff: noqa: E402
import nabla_linux
from nabla_linux import aio, commands, connection, files, interpreter, session, wire

__all__ = ["PACKAGE", "aio", "commands", "connection", "files", "interpreter", "nabla_linux", "session", "wire"]
