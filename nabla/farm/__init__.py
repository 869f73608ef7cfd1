# SPDX-License-Identifier: Apache-2.0
"""Builds on several machines, through Dask.distributed (docs/farm.md)."""
