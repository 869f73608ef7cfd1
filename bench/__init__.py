# SPDX-License-Identifier: Apache-2.0
"""Measurements of the virtual machine beside what it is compared with; results are JSON, tables are made from them."""
