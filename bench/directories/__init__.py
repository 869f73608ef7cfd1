# SPDX-License-Identifier: Apache-2.0
"""Shared directories beside the host: python -m bench.directories."""
