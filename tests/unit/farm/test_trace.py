# SPDX-License-Identifier: Apache-2.0
"""Traces and simulated builds."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.farm import simulation
from nabla.farm import trace
from nabla.farm.trace import Span


def test_lanes_do_not_overlap() -> None:
    spans = [Span(f"task{n}", "here" if n % 3 else "there", n / 2, n / 2 + 1.7, "built") for n in range(30)]
    lanes = trace.lanes(spans)
    for one in spans:
        for other in spans:
            if one != other and one.where == other.where and lanes[one] == lanes[other]:
                assert one.end <= other.begin or other.end <= one.begin
    assert max(lanes.values()) <= 3


def test_last_runs(tmp_path: Path) -> None:
    path = tmp_path / "timeline"
    lines = [
        {"run": ["all"], "time": 1.0},
        {"task": "old", "begin": 1.0, "end": 2.0, "how": "built"},
        {"run": ["all"], "time": 3.0},
        {"task": "new", "begin": 3.0, "end": 9.0, "how": "farm", "where": "worker", "started": 5.0},
        {"run": ["nothing"], "time": 10.0},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"task": "cut o')
    (span,) = trace.last_runs(trace.read(path), 1)
    assert (span.task, span.where, span.begin, span.end, span.waited) == ("new", "worker", 5.0, 9.0, 2.0)
    assert [each.task for each in trace.last_runs(trace.read(path), 2)] == ["old", "new"]
    slices = [each for each in trace.events([span]) if each["ph"] == "X"]
    assert slices[0]["ts"] == 0 and slices[0]["dur"] == 4_000_000
    assert trace.read(tmp_path / "absent") == []


def test_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One slice for each step, one image for each machine; names are text."""
    steps = [
        ("built", "", 0.0, 4.0),
        ("farm", "<worker> & 1", 1.0, 3.0),
        ("restored", "", 4.0, 4.0),
        ("failed", "", 2.0, 5.0),
    ]
    timeline = tmp_path / "timeline"
    records = [{"task": f"<{how}>", "where": where, "begin": b, "end": e, "how": how} for how, where, b, e in steps]
    timeline.write_text("".join(json.dumps(each) + "\n" for each in records))
    monkeypatch.setattr("nabla.engine.remote.timeline.PATH", timeline)
    trace.write(str(tmp_path / "t.json"), 1)
    text = (tmp_path / "t.html").read_text()
    root = ElementTree.fromstring(text[text.index("<body>") : text.index("</html>")])
    images = [each for each in root.iter("svg") if each.get("aria-label")]
    assert [each.get("aria-label") for each in images] == ["steps on <worker> & 1", "steps on this host"]
    slices = [(title.text or "").partition(":")[0] for image in images for title in image.iter("title")]
    assert sorted(slices) == ["<built>", "<failed>", "<farm>", "<restored>"]
    assert images[1].get("viewBox") == "0 0 1000 36"
    assert len(json.loads((tmp_path / "t.json").read_text())["traceEvents"]) == 2 + 4


NEEDS = {"a": set[str](), "b": {"a"}, "c": {"b"}, "x": {"a"}, "y": {"a"}, "end": {"c", "x", "y"}}
SECONDS = {"a": 10.0, "b": 20.0, "c": 30.0, "x": 25.0, "y": 25.0, "end": 5.0}


@pytest.mark.parametrize(("workers", "expected"), [(0, 65.0), (1, 127.0), (2, 73.0), (50, 73.0)])
def test_simulation(workers: int, expected: float) -> None:
    """The chain a, b, c, end bounds every build; each step on a worker costs the overhead."""
    outcome = simulation.simulate(NEEDS, SECONDS, set(NEEDS), workers)
    assert outcome.seconds == pytest.approx(expected)
    assert simulation.critical_path(NEEDS, SECONDS) == ["a", "b", "c", "end"]
    assert 0 <= outcome.busy <= 1


def test_steps_of_the_client_stay_there() -> None:
    """The client has two slots: `c` waits until `x` or `y` ends."""
    assert simulation.simulate(NEEDS, SECONDS, {"b"}, 8).seconds == pytest.approx(70.0)
    assert simulation.simulate(NEEDS, SECONDS, set(), 8).seconds == pytest.approx(65.0)
