# SPDX-License-Identifier: Apache-2.0
"""File trees in memory and file systems on disk."""
