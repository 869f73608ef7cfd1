# SPDX-License-Identifier: Apache-2.0
"""Builds of variants: other options, flags and versions, described as data (docs/matrix.md)."""
