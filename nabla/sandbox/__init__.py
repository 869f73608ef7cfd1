# SPDX-License-Identifier: Apache-2.0
"""The environment of builds: the locked build root, bubblewrap, the variation of second builds."""
