# SPDX-License-Identifier: Apache-2.0
"""Known vulnerabilities in what a release contains."""
