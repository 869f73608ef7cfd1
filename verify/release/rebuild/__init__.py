# SPDX-License-Identifier: Apache-2.0
"""Rebuilds of a release by others: signature-free forms of its files, statements about them, and the threshold."""
