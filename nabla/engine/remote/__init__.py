# SPDX-License-Identifier: Apache-2.0
"""The stores: servers and folders that provide signed build results and pinned files (docs/store.md)."""
