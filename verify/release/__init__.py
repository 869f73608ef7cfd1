# SPDX-License-Identifier: Apache-2.0
"""Releases: their layout, the format of their statement, and the checker `python -m verify.release`."""
