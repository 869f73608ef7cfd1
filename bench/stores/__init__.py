# SPDX-License-Identifier: Apache-2.0
"""The duration of builds that use results from a store."""
