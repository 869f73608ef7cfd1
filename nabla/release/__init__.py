# SPDX-License-Identifier: Apache-2.0
"""Releases: assembly, signatures, provenance, committed sums."""
