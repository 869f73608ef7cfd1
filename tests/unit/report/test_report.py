# SPDX-License-Identifier: Apache-2.0
"""The report: tables and charts from their inputs, hostile texts, the same bytes from the same inputs."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import pytest

from bench import build_times
from nabla.core import log
from nabla.core.errors import ConfigError, NablaError
from nabla.report import benchmarks, graph, html, render, tables
from nabla.report.benchmarks import BuildTimes, Host, Step
from nabla.report.html import Cell, Column
from nabla.report.tables import ReportError
from tests.conftest import ROOT
from tests.unit.report_inputs import BLOCKS, FREE, HOSTILE, make, superblock

HOST = Host(cpu="a processor", cores=2, kernel="6.1", date="2026-01-02")


class Elements(HTMLParser):
    """Counts elements; gathers texts and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture
def inputs(tmp_path: Path) -> render.Inputs:
    return make(tmp_path / "release")


def test_page_tells_of_each_input(inputs: render.Inputs) -> None:
    page = render.page("1.2.3", "ab" * 20, inputs)
    assert "Nabla Linux 1.2.3" in page
    assert "ab" * 20 in page
    for path in (inputs.vmlinux, inputs.launcher, *inputs.images.values(), *inputs.repository.iterdir()):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in page
    tests = [f"{each.tests:,}" for each in benchmarks.read_upstream(benchmarks.UPSTREAM)]
    cpu = benchmarks.read_build(benchmarks.BUILD).host.cpu
    for words in ("164 kB of 262 kB", "a" * 64, "ppoll", cpu, *tests):
        assert words in page


def test_page_without_a_commit_names_none(inputs: render.Inputs) -> None:
    page = render.page("0.0.0-dev", None, inputs)
    assert "from commit" not in page
    assert f'content="{render.made_for("0.0.0-dev", None)}"' in page


def test_hostile_texts_stay_texts(tmp_path: Path, inputs: render.Inputs) -> None:
    evil = HOSTILE.replace("/", "-")  # also as one part of a path
    page = render.page("1.2.3", None, make(tmp_path / "evil", evil))
    usual, elements = Elements(render.page("1.2.3", None, inputs)), Elements(page)
    assert "<script>alert" not in page
    assert elements.count == usual.count, "no element more than in the page about harmless words"
    assert elements.count["script"] == 1
    assert sum(evil in words for words in elements.words) >= 10
    assert not [name for name, _ in elements.attributes if name.startswith("on") or name == "style"]


def test_page_needs_no_other_file(inputs: render.Inputs) -> None:
    page = render.page("1.2.3", None, inputs)
    elements = Elements(page)
    assert not {name for name, _ in elements.attributes} & {"src", "srcset", "poster", "action"}
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(elements.count)
    assert "@import" not in page
    assert "url(" not in page
    assert ("href", "data:,") in elements.attributes


def test_policy_of_the_page_names_its_own_script_and_style(inputs: render.Inputs) -> None:
    page = render.page("1.2.3", None, inputs)
    policy = dict(re.findall(r"([a-z]+-src) '([^']+)'", page.split("Content-Security-Policy", 1)[1].split(">", 1)[0]))
    assert policy["default-src"] == "none"
    for kind in ("script", "style"):
        (text,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        assert html._digest(text) == policy[f"{kind}-src"]


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    script = (
        "import hashlib, sys, pathlib; from nabla.report import render; from tests.unit.report_inputs import make; "
        "i = make(pathlib.Path(sys.argv[1])); print(hashlib.sha256(render.page('1', 'c', i).encode()).hexdigest())"
    )
    sums = {
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / seed],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "TZ": zone, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("0", "UTC"), ("1", "Asia/Tokyo"), ("424242", "America/Lima"))
    }
    assert len(sums) == 1


def test_order_of_inputs_does_not_matter(inputs: render.Inputs) -> None:
    turned = replace(inputs, built=[*reversed(inputs.built)], components=[*reversed(inputs.components)])
    assert render.page("1", None, turned) == render.page("1", None, inputs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vmlinux", "vmlinux is missing"),
        ("apk/zlib-1.3.1-r0.apk", "zlib-1.3.1-r0.apk is missing"),
        ("verify/minimal-pie.json", "the reports about the image minimal cannot be read"),
    ],
)
def test_missing_input_is_told_with_a_hint(inputs: render.Inputs, name: str, words: str) -> None:
    (inputs.vmlinux.parent / name).unlink()
    with pytest.raises(ReportError, match=re.escape(words)) as caught:
        render.page("1", None, inputs)
    assert "doit" in caught.value.hint


def test_damaged_inputs_are_told(inputs: render.Inputs) -> None:
    (inputs.verified / "minimal-syscalls.json").write_text('[{"path": 1}]')
    with pytest.raises(ReportError, match="minimal cannot be read"):
        render.page("1", None, inputs)
    with pytest.raises(ReportError, match="no ext file system"):
        tables.used_bytes(inputs.vmlinux)


def test_results_of_measurements_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no") as caught:
        benchmarks.read_build(tmp_path / "build.json")
    assert "bench.build_times" in caught.value.hint
    for text in ("{}", '{"host": {}, "steps": []}', "["):
        (tmp_path / "build.json").write_text(text)
        with pytest.raises(ConfigError, match=re.escape("build.json")):
            benchmarks.read_build(tmp_path / "build.json")


def test_used_bytes(tmp_path: Path) -> None:
    image = tmp_path / "x.ext3"
    image.write_bytes(superblock())
    assert tables.used_bytes(image) == (BLOCKS - FREE) * 4096
    image.write_bytes(superblock(100, 40, 0))
    assert tables.used_bytes(image) == 60 * 1024


def test_a_fault_in_an_image_shows(inputs: render.Inputs) -> None:
    image = tables.read_checks("minimal", inputs.verified)
    (row,) = tables.pie_table([image]).rows
    assert (row.cells[-1].text, row.cells[-1].mark) == ("1 with faults", "bad")
    (row,) = tables.syscall_table([image]).rows
    assert [cell.text for cell in row.cells[1:4]] == ["2", "1", "1"]
    assert [row.cells[-1].text for row in tables.syscall_files(image).rows] == ["syscall (uncertain)"]


def test_sums_that_differ_show(inputs: render.Inputs) -> None:
    assert "all are equal" in render.page("1", None, inputs)
    other = {"kernel": {"out/new": "c" * 64}, "programs": {"out/x": "d" * 64}}
    rows = tables.digest_table(inputs.expected, other)
    assert [row.cells[-1].text for row in rows.rows] == [
        f"is new: {'c' * 64}",
        "is no longer built",
        f"expected {'b' * 64}, got {'d' * 64}",
    ]
    page = render.page("1", None, replace(inputs, sums=other))
    assert "3 differ" in page
    assert "all are equal" not in page


def test_time_chart_loses_no_second() -> None:
    steps = [
        ("fetch:a", 1.0),
        ("fetch:b", 2.5),
        ("musl:build", 29.0),
        ("kernel:build", 213.0),
        ("x:y", 0.4),
        ("x:z", 1),
    ]
    build = BuildTimes(host=HOST, steps=tuple(Step(name=name, seconds=took) for name, took in steps))
    chart = tables.time_chart(build)
    assert [row.cells[0].text for row in chart.rows] == [
        "kernel:build",
        "musl:build",
        "2 steps: download and check",
        "2 steps: each below 5 s",
    ]
    assert sum(row.cells[1].sort or 0 for row in chart.rows) == pytest.approx(sum(took for _, took in steps))
    bars = [row.cells[2].bar for row in chart.rows]
    assert [bar.width for bar in bars if bar] == [1000, round(29 / 213 * 1000), round(3.5 / 213 * 1000), 7]


def test_upstream_tests_say_whether_these_files_were_tested(inputs: render.Inputs) -> None:
    tests = [
        benchmarks.UpstreamTests("zlib", "1", tree, 3000, failed) for tree, failed in (("1" * 64, 0), ("2" * 64, 2))
    ]
    rows = tables.upstream_table(tests, inputs.built).rows
    assert [[cell.text for cell in row.cells[2:]] for row in rows] == [
        ["3,000", "0", "passed", "those of this release"],
        ["3,000", "2", "failed", "those of an earlier build"],
    ]


def test_suite_of_busybox_is_read(tmp_path: Path) -> None:
    assert min(benchmarks.read_busybox(benchmarks.BUSYBOX)) > 0
    page = tmp_path / "page.md"
    page.write_text("| host, stock | 1 | 2 | 3 | 0 |\n| guest, ours | 9 | 8 | 7 | 0 |\n")
    assert benchmarks.read_busybox(page) == (9, 8, 7)
    page.write_text("nothing\n")
    with pytest.raises(ConfigError, match="no row about the guest"):
        benchmarks.read_busybox(page)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        *((0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (125_128, "125 kB"), (4_977_840, "5.0 MB")),
        *((99_949_999, "99.9 MB"), (99_950_000, "100 MB"), (3_200_000_000, "3.2 GB")),
    ],
)
def test_size(count: int, words: str) -> None:
    assert html.size(count) == words


def test_anchors_of_different_names_differ() -> None:
    names = ["libstdc++", "libstdc", "libstdc--", "a b", "a_20_b", "lua5.4", "µ"]
    anchors = [html.anchor(name) for name in names if name != "a_20_b"]
    assert len(set(anchors)) == len(anchors)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", each) for each in anchors)


def test_code_is_escaped_first() -> None:
    assert html.code("a `<b>` & c") == "a <code>&lt;b&gt;</code> &amp; c"


def test_a_row_must_fit_its_table() -> None:
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        html.table("x", "y", (Column("a"), Column("b")), [[Cell("1")]])


def test_reduce_leaves_out_what_follows() -> None:
    needs = {"a": (), "b": ("a",), "c": ("b", "a"), "d": ("a", "c", "b"), "e": ("a",)}
    assert graph.reduce(needs) == {"a": (), "b": ("a",), "c": ("b",), "d": ("c",), "e": ("a",)}


@pytest.mark.parametrize("seed", range(12))
def test_drawings_of_random_graphs(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"n{number}" * chance.randint(1, 3) for number in range(chance.randint(1, 40))]
    needs = {name: tuple(chance.sample(names[:at], chance.randint(0, min(at, 4)))) for at, name in enumerate(names)}
    drawing = graph.draw(needs)
    assert drawing == graph.draw(dict(reversed(needs.items())))
    boxes = {box.name: box for box in drawing.boxes}
    assert set(boxes) == set(names)
    assert {(line.target, line.source) for line in drawing.lines} == {
        (name, other) for name, direct in graph.reduce(needs).items() for other in direct
    }
    for box in boxes.values():
        assert 0 <= box.x < box.x + box.width <= drawing.width
        assert 0 <= box.y < box.y + graph.BOX_HEIGHT <= drawing.height
    for one, other in combinations(boxes.values(), 2):
        apart = one.x + one.width < other.x or other.x + other.width < one.x
        assert apart or abs(one.y - other.y) >= graph.BOX_HEIGHT
    for line in drawing.lines:
        source, target = boxes[line.source], boxes[line.target]
        numbers = [int(each) for each in re.findall(r"-?\d+", line.path)]
        assert source.x + source.width < target.x
        middles = [box.y + graph.BOX_HEIGHT // 2 for box in (source, target)]
        assert (numbers[:2], numbers[-2:]) == ([source.x + source.width, middles[0]], [target.x, middles[1]])


def test_drawing_of_nothing() -> None:
    assert graph.draw({}).boxes == ()


@pytest.mark.parametrize("took", [0.0, 0.04, 9.9, 10.2, 59.4, 60.0, 213.0, 3599.0, 7300.0])
def test_times_of_a_log_are_read_as_written(took: float) -> None:
    assert build_times.seconds(log.seconds(took)) == pytest.approx(took, abs=0.5 if took >= 10 else 0.05)


def test_log_of_a_build() -> None:
    text = (
        "making the virtual environment (once) …\n"
        "kernel:build: build the kernel …\n"
        "  unpack the build root (85 packages): done in 5.5 s\n"
        "kernel:build: done in 3 min 33 s\n"
        "\x1b[2mfetch:libstdc++: done in 0.1 s\x1b[0m\n"
        "test: done in 99 s\n"
        "3 done, 1 up to date; 4 min 00 s\n"
    )
    assert list(build_times.parse(text)) == [
        Step(name="kernel:build", seconds=213),
        Step(name="fetch:libstdc++", seconds=0.1),
    ]
    with pytest.raises(NablaError, match="kernel:build was built twice"):
        list(build_times.parse(text + text))
    with pytest.raises(NablaError, match="is not a time"):
        build_times.seconds("soon")


def test_committed_times_are_of_a_whole_build() -> None:
    build = benchmarks.read_build(benchmarks.BUILD)
    names = {step.name for step in build.steps}
    assert {"kernel:build", "musl:build", "busybox:build", "packages:python3", "rootfs:alpine"} <= names
    assert len(names) == len(build.steps)
