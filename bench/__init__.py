# SPDX-License-Identifier: Apache-2.0
"""Measurements of the VM and of the programs that it is compared with; results are JSON files and tables."""
