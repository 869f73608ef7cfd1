# SPDX-License-Identifier: Apache-2.0
"""Newer versions of sources: find them and update recipes."""
