# SPDX-License-Identifier: Apache-2.0
"""Second, varied builds and their comparison."""
