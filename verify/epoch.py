# SPDX-License-Identifier: Apache-2.0
"""The date of all builds and of the files in releases: fixed, from the pinned kernel's Debian package."""

SOURCE_DATE_EPOCH = 1780272000  # 2026-06-01 00:00:00 UTC
BUILD_TIMESTAMP = "Mon Jun  1 00:00:00 UTC 2026"
