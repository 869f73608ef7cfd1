# SPDX-License-Identifier: Apache-2.0
"""Containers as VMs beside crun's: python -m bench.oci."""
