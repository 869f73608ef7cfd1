# SPDX-License-Identifier: Apache-2.0
"""The duration of builds on a farm."""
