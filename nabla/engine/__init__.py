# SPDX-License-Identifier: Apache-2.0
"""The build engine on top of doit: steps, up-to-date checks, the result cache, the state database, doit commands."""
