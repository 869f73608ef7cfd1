# SPDX-License-Identifier: Apache-2.0
"""Commands for users: boot, test, shell, doctor."""
