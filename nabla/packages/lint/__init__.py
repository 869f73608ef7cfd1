# SPDX-License-Identifier: Apache-2.0
"""Linters for recipes and for the files of their packages: rules with reasons."""
