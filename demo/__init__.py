# SPDX-License-Identifier: Apache-2.0
"""The demo: a VM's terminal beside its host calls, live."""
