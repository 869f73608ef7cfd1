# SPDX-License-Identifier: Apache-2.0
"""The stores: servers and folders from which signed build results and pinned files are taken (docs/store.md)."""
