# SPDX-License-Identifier: Apache-2.0
"""Releases: their layout, the form of their statement, and the checker `python -m verify.release`."""
