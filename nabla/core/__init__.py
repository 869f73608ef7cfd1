# SPDX-License-Identifier: Apache-2.0
"""The foundation of all areas: errors, paths, files, processes, digests, log lines."""
