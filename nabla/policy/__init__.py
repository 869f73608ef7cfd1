# SPDX-License-Identifier: Apache-2.0
"""The policy of host calls (launcher/policy.toml): its model, the filter's compiler, the C header, the page."""
