# SPDX-License-Identifier: Apache-2.0
"""Sandboxes from Python: python -m bench.sandboxes."""
