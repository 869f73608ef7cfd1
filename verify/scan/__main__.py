# SPDX-License-Identifier: Apache-2.0
"""Search for known vulnerabilities: `python -m verify.scan [--json] --sbom FILE [--vex FILE] DATABASE…`.

See verify/scan/match.py.
Exit status: 0 nothing is open, 1 a vulnerability is open, 2 a file cannot be read or has neither format.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verify.release.tools import ToolError
from verify.release.vex import VexError
from verify.scan.advisories import ScanError
from verify.scan.match import show


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="verify.scan", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--sbom", type=Path, required=True, help="a CycloneDX document of a release")
    parser.add_argument("--vex", type=Path, action="append", default=[], help="statements: OpenVEX or CycloneDX")
    parser.add_argument("databases", nargs="+", type=Path, help="OSV: file, folder or zip; Alpine's secdb: file")
    options = parser.parse_args()
    try:
        return 1 if show(options.sbom, options.databases, options.vex, as_json=options.json) else 0
    except (ScanError, VexError, ToolError) as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2


sys.exit(main())
