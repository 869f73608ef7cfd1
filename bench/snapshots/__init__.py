# SPDX-License-Identifier: Apache-2.0
"""VMs that start from snapshots, measured."""
