# SPDX-License-Identifier: Apache-2.0
"""The duration of builds that take results from a store."""
