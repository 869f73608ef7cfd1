# SPDX-License-Identifier: Apache-2.0
"""Help for packagers: templates of new recipes, and the graph of build dependencies."""
