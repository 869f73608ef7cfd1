# SPDX-License-Identifier: Apache-2.0
"""Known vulnerabilities in the components of a release."""
