# SPDX-License-Identifier: Apache-2.0
"""Where builds run: the locked build root, bubblewrap, the variation of second builds."""
