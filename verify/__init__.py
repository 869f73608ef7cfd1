# SPDX-License-Identifier: Apache-2.0
"""Stand-alone checkers of artifacts, each with its own command line: `python -m verify.pie FILE…`.

They read only the artifacts, and share no code with the build system.
"""
