# SPDX-License-Identifier: Apache-2.0
"""The test suite of busybox, run in the guest and on the host."""
