# SPDX-License-Identifier: Apache-2.0
"""Bills of materials, licenses, known vulnerabilities."""
