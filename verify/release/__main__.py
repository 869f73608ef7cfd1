# SPDX-License-Identifier: Apache-2.0
"""Run the checker: `python -m verify.release`, see verify/release/trust.py."""

from __future__ import annotations

import sys

from verify.release.trust import main

sys.exit(main())
