# SPDX-License-Identifier: Apache-2.0
"""Source trees, patch series, and the components built from them: kernel, libc, busybox, launcher, init."""
