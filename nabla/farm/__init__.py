# SPDX-License-Identifier: Apache-2.0
"""Builds on several machines by Dask.distributed (docs/farm.md)."""
