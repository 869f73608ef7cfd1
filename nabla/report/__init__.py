# SPDX-License-Identifier: Apache-2.0
"""The report about a release, a web page."""
