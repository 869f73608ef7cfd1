# SPDX-License-Identifier: Apache-2.0
"""The release folder: assembly, signatures, provenance, expected digests."""
