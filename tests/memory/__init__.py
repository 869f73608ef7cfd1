# SPDX-License-Identifier: Apache-2.0
"""A check of the guest's memory that takes half an hour."""
