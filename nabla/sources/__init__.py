# SPDX-License-Identifier: Apache-2.0
"""Recipes and where their sources come from: origins, signatures, the download cache."""
