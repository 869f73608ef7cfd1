# SPDX-License-Identifier: Apache-2.0
"""The build orchestrator: reads recipes, fetches locked sources, builds them in a sandbox, composes images."""
