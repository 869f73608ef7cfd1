# SPDX-License-Identifier: Apache-2.0
"""Checkers of finished artifacts, each with its own command line: `python -m verify.pie FILE…`.

They look at the bytes only and share no code with what made them.
"""
