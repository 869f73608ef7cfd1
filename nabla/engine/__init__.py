# SPDX-License-Identifier: Apache-2.0
"""The build engine on doit: steps, up-to-date checks, the result cache, the state database, commands of doit."""
