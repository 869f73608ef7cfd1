# SPDX-License-Identifier: Apache-2.0
"""Recipes and their sources: origins, signatures, the download cache."""
