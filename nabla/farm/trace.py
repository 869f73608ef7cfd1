# SPDX-License-Identifier: Apache-2.0
"""`doit trace`: records what ran where and when, as a page and as a trace for Perfetto or Chrome's tracing page.

The trace's format is that of Chrome's trace events: a process for each machine, a thread for each slot, and a slice for
each step. The timeline is not part of the report (nabla/report), whose bytes are the same wherever it is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core import files, log
from nabla.core.errors import ConfigError
from nabla.core.paths import OUT, relative
from nabla.engine.remote import timeline

DEFAULT = OUT / "trace.json"
_HERE = "this host"
# Names of Chrome's palette.
_COLORS = {"built": "thread_state_running", "farm": "good", "restored": "grey", "failed": "terrible"}
_MEANINGS = {"built": "ran", "farm": "ran on a worker", "restored": "taken from a cache", "failed": "failed"}
_WIDTH = 1000


@dataclass(frozen=True)
class Span:
    """One step: its place, its times in seconds, how it got its result, and how long it waited for a worker."""

    task: str
    where: str
    begin: float
    end: float
    how: str
    waited: float = 0.0


def write(output: str, runs: int) -> None:
    """Write the trace of the last runs. Raises `ConfigError` if no step is recorded."""
    spans = last_runs(read(timeline.PATH), runs)
    if not spans:
        raise ConfigError("no step is recorded", "run doit first: the record is out/state/timeline.jsonl")
    path = Path(output).absolute() if output else DEFAULT
    files.write(path, json.dumps({"traceEvents": list(events(spans)), "displayTimeUnit": "ms"}) + "\n")
    total = max(each.end for each in spans) - min(each.begin for each in spans)
    busy = sum(each.end - each.begin for each in spans)
    summary = (
        f"{len(spans)} steps in {log.seconds(total)} on {len({each.where for each in spans})} machines, "
        f"{busy / total:.1f} at a time"
    )
    files.write(path.with_suffix(".html"), page(spans, summary))
    log.info(f"{relative(path.with_suffix('.html'))}: {summary}")
    log.info(f"{relative(path)}: the same for ui.perfetto.dev or chrome://tracing")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the records of the timeline; a line that a killed process left incomplete is ignored."""
    records: list[dict[str, Any]] = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return records
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def last_runs(records: Iterable[Mapping[str, Any]], runs: int) -> list[Span]:
    """Return the steps of the last `runs` runs that had any."""
    groups: list[list[Span]] = [[]]
    for record in records:
        if "run" in record:
            groups.append([])
        elif "task" in record:
            groups[-1].append(_span(record))
    return [each for group in [group for group in groups if group][-runs:] for each in group]


def _span(record: Mapping[str, Any]) -> Span:
    begin, end = float(record["begin"]), float(record["end"])
    started = min(max(float(record.get("started", begin)), begin), end)
    return Span(
        str(record["task"]), str(record.get("where") or _HERE), started, end, str(record["how"]), started - begin
    )


def lanes(spans: Iterable[Span]) -> dict[Span, int]:
    """Assign a lane of its machine to each step, so that steps in a lane do not overlap."""
    ends: dict[str, list[float]] = {}
    chosen: dict[Span, int] = {}
    for each in sorted(spans, key=lambda span: (span.begin, span.end, span.task)):
        free = ends.setdefault(each.where, [])
        number = next((index for index, end in enumerate(free) if end <= each.begin), len(free))
        free[number:] = [each.end, *free[number + 1 :]]
        chosen[each] = number
    return chosen


def events(spans: Iterable[Span]) -> Iterable[dict[str, Any]]:
    """Yield the events of a trace, with times in microseconds from the first step."""
    assigned = lanes(spans)
    first = min(each.begin for each in assigned)
    places = {where: number for number, where in enumerate(sorted({each.where for each in assigned}), 1)}
    for where, number in places.items():
        yield {"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": where}}
    for each, lane in assigned.items():
        yield {
            "ph": "X",
            "name": each.task,
            "cat": each.how,
            "pid": places[each.where],
            "tid": lane + 1,
            "ts": round((each.begin - first) * 1e6),
            "dur": round((each.end - each.begin) * 1e6),
            "cname": _COLORS.get(each.how, "generic_work"),
            "args": {"how": each.how, "waited for a worker": f"{each.waited:.1f} s"},
        }


def page(spans: Iterable[Span], summary: str) -> str:
    """Return a page of HTML with a row of slices for each lane of each machine."""
    # Imported when needed: every doit lists the tasks.
    from nabla.policy import header

    assigned = lanes(spans)
    first = min(each.begin for each in assigned)
    scale = _WIDTH / max(max(each.end for each in assigned) - first, 1e-3)
    machines = [
        {
            "name": where,
            "lanes": 1 + max(lane for each, lane in assigned.items() if each.where == where),
            "slices": [
                {
                    "x": round((each.begin - first) * scale, 2),
                    "width": round(max((each.end - each.begin) * scale, 0.5), 2),
                    "lane": lane,
                    "how": each.how,
                    "task": each.task,
                    "text": f"{each.task}: {log.seconds(each.end - each.begin)}, {_MEANINGS.get(each.how, each.how)}",
                }
                for each, lane in assigned.items()
                if each.where == where
            ],
        }
        for where in sorted({each.where for each in assigned})
    ]
    engine = header.environment(Path(__file__).with_name("templates")).overlay(autoescape=True)
    text: str = engine.get_template("trace.html.j2").render(
        title="What ran where and when", summary=summary, machines=machines, meanings=_MEANINGS
    )
    return text
