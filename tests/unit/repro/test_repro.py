# SPDX-License-Identifier: Apache-2.0
"""Small second builds: variations reach the sandbox, a difference is found and explained."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nabla.core import paths
from nabla.core.errors import NablaError
from nabla.repro import comparison, second_build
from nabla.repro.comparison import Checkout, DifferenceError, Record, first_cause
from nabla.sandbox import variation
from nabla.sandbox.bwrap import Bind, Sandbox
from tests.conftest import Checkout as Copy

# A step in the sandbox that runs a script; another one that copies its output.
_TASKS = """
import os

from nabla.engine import task
from nabla.core.paths import OUT, ROOT
from nabla.sandbox.bwrap import Bind, Sandbox

MADE, COPY, LISTED = OUT / "made", OUT / "copy", OUT / "listed"


def task_small():
    yield task.step("small:made", made, doc="run script", inputs=[ROOT / "script"], outputs=[MADE])
    yield task.step("small:listed", listed, doc="list", outputs=[LISTED])
    yield task.step("small:copy", copy, doc="copy it", inputs=[MADE], outputs=[COPY], after=["small:made"])


def listed(job):
    job.out(LISTED).write_text(" ".join(os.listdir(ROOT / "nabla")))


def made(job):
    sandbox = Sandbox((Bind(job.scratch(), "/build", writable=True),))
    job.out(MADE).write_text(sandbox.run((ROOT / "script").read_text(), title="script").stdout)


def copy(job):
    job.out(COPY).write_bytes(MADE.read_bytes())
"""


@pytest.fixture
def small(checkout: Copy, monkeypatch: pytest.MonkeyPatch, user_cache: Path) -> Iterator[Copy]:
    """A checkout with two tiny tasks, which `repro` treats as its own."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    checkout.task_module("small", _TASKS)
    shutil.copytree(paths.TOOLCHAIN, checkout.root / "toolchain")
    monkeypatch.setattr(second_build, "ROOT", checkout.root)
    yield checkout


def compare(small: Copy, script: str, report: Path, output: str = "copy") -> list[str]:
    """Build twice; return the comparison's lines."""
    small.write("script", script)
    small.doit("small")
    second = second_build.prepare()
    try:
        second.build(["small"], report.with_suffix(".log"))
        return comparison.check([small.root / "out" / output], small.root, second.root, report)
    finally:
        second_build.discard(second)


@pytest.mark.parametrize(
    "script",
    ["date +%Y", "date +%z", "printf ä | wc -m", "nproc", "cat /proc/sys/kernel/hostname", "id -un", "env | sort"],
)
def test_planted_dependence_is_found(small: Copy, tmp_path: Path, script: str) -> None:
    """A step that reads its environment differs: diffoscope shows how, and the step is named as the cause."""
    report = tmp_path / "logs" / "x.diff"
    with pytest.raises(DifferenceError, match="two builds differ: out/copy") as caught:
        compare(small, script, report)
    assert "no input differs: the step small:made writes different bytes" in caught.value.hint
    assert f"differences: {report}" in caught.value.hint
    assert "@@" in report.read_text()


def test_order_of_entries_is_shuffled(small: Copy, tmp_path: Path) -> None:
    """A step that lists a folder unsorted differs if this host can shuffle; otherwise a warning says so."""
    script = "touch $(seq 1 40); ls -U | tr '\\n' ' '"
    report = tmp_path / "x.diff"
    if any("directory order" in text for text in second_build.varied()[1]):
        assert compare(small, script, report)
        return
    with pytest.raises(DifferenceError):
        compare(small, script, report)


def test_order_is_shuffled_for_doit_too(small: Copy, tmp_path: Path) -> None:
    with pytest.raises(DifferenceError, match="out/listed"):
        compare(small, "true", tmp_path / "x.diff", "listed")


def test_what_the_sandbox_fixes_is_identical(small: Copy, tmp_path: Path) -> None:
    """Path, home, umask and the build date are the same for every caller."""
    script = 'pwd; umask; echo "$HOME $SOURCE_DATE_EPOCH $PATH"; touch file; stat -c %a file'
    assert compare(small, script, tmp_path / "x.diff")


def test_clock_reaches_programs_without_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user_cache: Path
) -> None:
    """A compiler that a build calls by `env -i` also sees the other clock; times of files stay real."""
    monkeypatch.setenv("NABLA_CACHE", str(user_cache))
    sandbox = Sandbox((Bind(tmp_path, "/build", writable=True),))
    script = (
        "env -i /usr/bin/date +%s; echo >file; stat -c %Y file\n"
        "echo 'char date[] = __DATE__;' >x.c; env -i /usr/bin/gcc -E -P x.c"
    )
    first = sandbox.run(script, title="first").stdout.split("\n")
    monkeypatch.setenv(variation.VARIABLE, "1")
    second = sandbox.run(script, title="second").stdout.split("\n")
    days = 86400
    assert 399 * days < int(second[0]) - int(first[0]) < 401 * days
    assert abs(int(second[1]) - int(first[1])) < days
    assert first[2] != second[2]


def test_compiler_cache_works_under_the_other_clock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, user_cache: Path
) -> None:
    """Parallel compilers do not lose unfinished files to each other; they see the other clock."""
    for name in ("sha256", "buildroot"):
        (tmp_path / name).symlink_to(user_cache / name)
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path))
    monkeypatch.setenv(variation.VARIABLE, "1")
    (tmp_path / "build").mkdir()
    script = """
        printf '#!/bin/sh\nexec date +%%s\n' >compiler
        chmod +x compiler
        ccache ./compiler
        for n in $(seq 24); do echo "int f$n(void) { return $n; }" >$n.c; done
        for again in 1 2; do seq 24 | xargs -P 6 -I N ccache gcc -c N.c -o N.o; done
        ccache --print-stats
    """
    sandbox = Sandbox((Bind(tmp_path / "build", "/build", writable=True),))
    lines = sandbox.run(script, title="compile").stdout.split("\n")
    assert int(lines[0]) > time.time() + 399 * 86400
    counts = {name: int(number) for name, _, number in (line.partition("\t") for line in lines[1:] if line)}
    assert counts["cache_miss"] == 24 and counts["direct_cache_hit"] == 24, counts
    assert counts["missing_cache_file"] == counts["internal_error"] == 0


def test_what_cannot_be_varied_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If programs are missing, the variation is reported with the reason, and the build continues without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    able, unable = second_build.varied()
    assert "umask" in able
    assert any(text.startswith("processors (") for text in unable)
    assert any(text.startswith("directory order for compilers (no ") for text in unable)
    with second_build.shuffled(tmp_path / "folder", tmp_path / "view") as view:
        assert view is None


def test_first_build_is_not_varied() -> None:
    assert variation.current(Path("/")) == variation.NO_VARIATION


def test_second_build_sees_none_of_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The builds share downloads, but not objects and packages."""
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path))
    for name in ("sha256/ab/abc", "packages/ab/abc/built.json", "ccache/a"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    second_build._share_downloads(tmp_path / "second")
    names = [str(path.relative_to(tmp_path / "second")) for path in (tmp_path / "second").rglob("*") if path.is_file()]
    assert names == ["sha256/ab/abc"]


def test_cache_of_second_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One cache for each set of variations; unused ones are removed, and the first build's is left alone."""
    monkeypatch.setenv("NABLA_CACHE", str(tmp_path))
    (tmp_path / "sha256").mkdir()
    plain = second_build.own_cache(False)
    assert second_build.own_cache(False) == plain
    assert (second_build.own_cache(True) == plain) == any(
        "directory order for compilers" in text for text in second_build.varied()[1]
    )
    changed = tmp_path / "sitecustomize.py"
    changed.write_text("varied = 'something else'\n")
    monkeypatch.setattr(variation, "__file__", str(changed))
    other = second_build.own_cache(False)
    assert other != plain and other.parent == plain.parent
    long_ago = plain.stat().st_mtime - 31 * 86400
    os.utime(plain, (long_ago, long_ago))
    assert second_build.own_cache(False) == other and not plain.exists()
    second_build.empty_cache()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["sha256"]


def test_one_mode_is_named(tmp_path: Path) -> None:
    """diffoscope does not report it."""
    one, other = tmp_path / "one", tmp_path / "other"
    for path, mode in ((one, 0o644), (other, 0o600)):
        path.write_text("same")
        path.chmod(mode)
    hint = comparison.diffoscope(one, other, tmp_path / "report")
    assert hint == "differences: the mode, 644 and 600; the content is the same"


def test_one_byte_and_one_mode_are_noticed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for root in (one, other):
        (root / "tree").mkdir(parents=True)
        (root / "tree" / "file").write_text("same")
    assert comparison.differing(one / "tree", other / "tree") == []
    (other / "tree" / "file").chmod(0o600)
    assert comparison.differing(one / "tree", other / "tree") == ["file"]
    assert comparison.differing(one / "tree" / "file", other / "tree" / "file") == []
    (other / "tree" / "file").write_text("some")
    assert comparison.differing(one / "tree" / "file", other / "tree" / "file") == ["."]
    (other / "tree" / "more").write_text("more")
    (other / "tree" / "file").write_text("same")
    (other / "tree" / "file").chmod((one / "tree" / "file").stat().st_mode)
    assert comparison.differing(one / "tree", other / "tree") == ["more"]
    with pytest.raises(NablaError, match="was not built"):
        comparison.differing(one / "tree", other / "nothing")


def test_link_to_elsewhere_is_a_difference(tmp_path: Path) -> None:
    for root, target in (("one", "a"), ("other", "b")):
        (tmp_path / root / "tree").mkdir(parents=True)
        (tmp_path / root / "tree" / "link").symlink_to(target)
        (tmp_path / root / "out" / "state").mkdir(parents=True)
        with closing(sqlite3.connect(tmp_path / root / "out" / "state" / "doit.sqlite")) as database:
            database.execute("create table tasks (task text primary key, record text)")
    with pytest.raises(DifferenceError, match=r"two builds differ: tree/link and 1 other"):
        comparison.check([tmp_path / "one" / "tree"], tmp_path / "one", tmp_path / "other", tmp_path / "x.diff")


def test_missing_diffoscope_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    hint = comparison.diffoscope(tmp_path / "a", tmp_path / "b", tmp_path / "report")
    assert "apt-get install diffoscope-minimal" in hint


def records(**differing: str) -> dict[str, Record]:
    """Return a chain source -> a -> b, with other digests where requested."""
    digests = {"source": "0", "a": "1", "b": "2", **differing}
    return {
        "make:a": Record("make:a", {"source": digests["source"]}, {"out/a": digests["a"]}, [{}, digests.get("code")]),
        "make:b": Record(
            "make:b", {"out/state/trees/out+a.sha256": digests["a"], "other": "5"}, {"out/b": digests["b"]}, [{}, None]
        ),
    }


def test_cause_is_the_first_input_that_differs() -> None:
    other = records(source="7", a="8", b="9")
    assert "source of the task make:a: sha256 0 and 7" in first_cause("out/b", records(), other)


def test_cause_is_the_first_step_with_equal_inputs() -> None:
    assert "the step make:a writes different bytes" in first_cause("out/b", records(), records(a="8", b="9"))
    assert "the step make:b writes different bytes" in first_cause("out/b", records(), records(b="9"))


def test_cause_may_be_code_or_unknown() -> None:
    assert "the code of the task make:a" in first_cause("out/b", records(), records(code="x", a="8", b="9"))
    assert "no task of the first build" in first_cause("out/c", records(), records())
    assert "make:b did not succeed" in first_cause("out/b", records(), {})


def test_records_are_those_of_doit(small: Copy, user_cache: Path) -> None:
    """The search for a cause reads the state that doit writes."""
    small.write("script", "echo same")
    small.doit("small", NABLA_CACHE=str(user_cache))
    records = Checkout(small.root).records()
    assert set(records["small:copy"].inputs) == {"out/made"}
    assert records["small:copy"].inputs["out/made"] == records["small:made"].outputs["out/made"]
    assert set(records["small:made"].inputs) == {"script"}
    assert os.fspath(small.root) not in str(records)
