# SPDX-License-Identifier: Apache-2.0
"""Start nabla-run, wait until its VM writes `up`, print the host's /proc data about both as JSON.

python3 inspect_vm.py WORD… : the words of nabla-run's command line. It is a separate program because only root can
inspect a VM, which is not dumpable; the root of a user namespace suffices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def look(pid: int) -> dict[str, Any]:
    """Return the /proc data of a process."""
    proc = Path(f"/proc/{pid}")
    numbers = sorted(int(entry.name) for entry in (proc / "fd").iterdir())
    lines = [line.split(":", 1) for line in (proc / "status").read_text().splitlines()]
    return {
        "pid": pid,
        "descriptors": {n: os.readlink(proc / "fd" / str(n)) for n in numbers},
        "flags": {n: _flags((proc / "fdinfo" / str(n)).read_text()) for n in numbers},
        "maps": (proc / "maps").read_text().splitlines(),
        "limits": _limits((proc / "limits").read_text()),
        "status": {key: value.strip() for key, value in lines},
        "environment": (proc / "environ").read_text(),
        "namespaces": namespaces(pid),
        "root": sorted(os.listdir(proc / "root")),
        "root_flags": next(
            (line.split()[5] for line in (proc / "mountinfo").read_text().splitlines() if line.split()[4] == "/"), ""
        ),
    }


def namespaces(pid: int) -> dict[str, str]:
    """Return the identity of each of its namespaces."""
    return {entry.name: os.readlink(entry) for entry in Path(f"/proc/{pid}/ns").iterdir()}


def _flags(text: str) -> int:
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("flags:")), 8)


def _limits(text: str) -> dict[str, str]:
    lines = text.splitlines()
    column = lines[0].index("Soft Limit")
    return {line[:column].strip(): line[column:].split()[0] for line in lines[1:]}


def main() -> None:
    """Run as described above."""
    with subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"up\n":
                sys.exit(process.wait() or 1)
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            seen = {"machine": look(int(child)), "launcher": look(process.pid), "namespaces": namespaces(os.getpid())}
            print(json.dumps(seen))
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
