# SPDX-License-Identifier: Apache-2.0
"""Disk images and the container image."""
