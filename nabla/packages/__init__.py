# SPDX-License-Identifier: Apache-2.0
"""Packages of the repository: from the recipe to the signed index."""
