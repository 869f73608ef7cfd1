# SPDX-License-Identifier: Apache-2.0
"""See it work: a VM's terminal beside its host calls, live."""
