# SPDX-License-Identifier: Apache-2.0
"""The duration of each step of a build: bench/results/build.json, from which the report draws its chart.

    ./doit.sh -n 2 ready 2>&1 | tee LOG
    python -m bench.build_times LOG

LOG is the output of a build with its lines `STEP: done in TIME`. Run this command on the build's host, which the file
describes; the date is that of the log. The file is committed because a release must not depend on the time of its
build.

    host    cpu, cores, kernel (the host's release), date (end of the build, UTC)
    steps   name (of doit's task) and seconds, in the order of completion
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path

from bench import common
from nabla.core import log
from nabla.core.errors import NablaError
from nabla.core.paths import relative
from nabla.report.benchmarks import BUILD, BuildTimes, Host, Step, as_json

# Names of tasks contain no space; parts of a task that are reported separately do.
_LINE = re.compile(r"^(?:\x1b\[\d+m)?(?P<name>[^\s]+:[^\s:]+): done in (?P<time>[0-9][0-9. mins]*s)(?:\x1b\[0m)?\s*$")
_TIME = re.compile(r"(?:(?P<minutes>\d+) min )?(?P<seconds>\d+(?:\.\d)?) s")


def seconds(text: str) -> float:
    """Parse a duration as `nabla.core.log.seconds` writes it. Raises `NablaError` for any other text."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise NablaError(f"{text!r} is not a time", "a line looks like: kernel:build: done in 3 min 33 s")
    return 60 * int(match["minutes"] or 0) + float(match["seconds"])


def parse(text: str) -> Iterator[Step]:
    """Yield the steps in a build's output. Raises `NablaError` if one occurs twice."""
    seen = set()
    for match in filter(None, map(_LINE.match, text.splitlines())):
        if match["name"] in seen:
            raise NablaError(
                f"{match['name']} was built twice in this log", "pass the output of one build from scratch"
            )
        seen.add(match["name"])
        yield Step(name=match["name"], seconds=seconds(match["time"]))


def convert(path: Path) -> BuildTimes:
    """Read a log; raises `NablaError` if it contains no step."""
    steps = tuple(parse(path.read_text(encoding="utf-8", errors="replace")))
    if not steps:
        raise NablaError(f"{relative(path)} has no line `STEP: done in TIME`", "see the head of bench/build_times.py")
    properties = common.host_facts()
    date = time.strftime("%Y-%m-%d", time.gmtime(path.stat().st_mtime))
    host = Host(cpu=properties["cpu"], cores=properties["cores"], kernel=properties["kernel"], date=date)
    return BuildTimes(host=host, steps=steps)


def main() -> int:
    """Convert one log."""
    parser = argparse.ArgumentParser(prog="bench.build_times", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path, help="the output of a build")
    options = parser.parse_args()
    common.need(options.log)
    times = convert(options.log)
    BUILD.write_bytes(as_json(times))
    log.info(f"{relative(BUILD)}: {len(times.steps)} steps, {log.seconds(sum(s.seconds for s in times.steps))}")
    return 0


if __name__ == "__main__":
    common.start(main)
