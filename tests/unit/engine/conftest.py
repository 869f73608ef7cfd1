# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that run doit."""

from __future__ import annotations

from .pipeline import pipeline as pipeline
