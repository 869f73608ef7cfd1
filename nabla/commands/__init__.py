# SPDX-License-Identifier: Apache-2.0
"""Commands for people: boot, test, shell, doctor."""
