# SPDX-License-Identifier: Apache-2.0
"""Programs in a running VM: python -m bench.control."""
