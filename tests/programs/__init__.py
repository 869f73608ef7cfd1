# SPDX-License-Identifier: Apache-2.0
"""Debian's programs in the guest: locked sets of packages, images of them, and cases to run."""
