# SPDX-License-Identifier: Apache-2.0
"""Compare what two builds made; where they differ, say in which bytes (diffoscope) and because of what.

Each checkout's state knows of every task that ended well: the digests of its inputs, its configuration and code, the
digests of its outputs. Going back from what differs, through the tasks that made it, to the first whose outputs differ
although no input made by another task does, ends either at an input that differs, or at a step that gives other bytes
for the same inputs.
"""

from __future__ import annotations

import json
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nabla.core import digest, manifest
from nabla.core.errors import CommandError, HostError, NablaError
from nabla.core.paths import relative
from nabla.core.process import run

_DATABASE = Path("out/state/doit.sqlite")
_TREES = "out/state/trees/"
_DIFFOSCOPE_SECONDS = 600
_REPORT_BYTES = 1 << 20


class DifferenceError(NablaError):
    """Two builds of the same thing differ."""


@dataclass(frozen=True)
class Record:
    """What the state of a checkout says about a task. Paths are relative to the checkout."""

    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    facts: Any = None


@dataclass(frozen=True)
class Checkout:
    """One of the two: its root, and what it knows of its tasks."""

    root: Path

    def records(self) -> dict[str, Record]:
        """Return the tasks that ended well here, by name. Raises `NablaError`."""
        path = self.root / _DATABASE
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
                rows = database.execute("select task, record from tasks").fetchall()
        except sqlite3.Error as error:
            raise NablaError(f"cannot read {path}: {error}") from error
        return {name: self._record(name, json.loads(text)) for name, text in rows}

    def _record(self, name: str, saved: Mapping[str, Any]) -> Record:
        values = saved.get("_values_:", {})
        inputs = {}
        for path in saved.get("deps:", []):
            if path in saved:
                inputs[self._inside(path)] = _state(saved[path])
        text = json.dumps([values.get("record"), values.get("code")], ensure_ascii=False, sort_keys=True)
        # Arguments hold absolute paths.
        return Record(name, inputs, values.get("outputs", {}), json.loads(text.replace(str(self.root), "")))

    def _inside(self, path: str) -> str:
        return path.removeprefix(f"{self.root}/")


def differing(one: Path, other: Path) -> list[str]:
    """Return what differs between two files or folders: entries, sorted; `.` for a file. Raises `NablaError`."""
    for path in (one, other):
        if not path.exists():
            raise NablaError(f"{path} was not built")
    if one.is_dir() and other.is_dir():
        return manifest.differences(manifest.manifest(one), manifest.manifest(other))
    same = not one.is_dir() and not other.is_dir() and digest.sha256_file(one) == digest.sha256_file(other)
    return [] if same else ["."]


def check(artifacts: Sequence[Path], first: Path, second: Path, report: Path) -> list[str]:
    """Compare artifacts below the checkout `first` with those of `second`; return a line `sha256  path` for each.

    Raises `DifferenceError` for the first one that differs; what diffoscope says of it goes to the file `report`.
    """
    lines = []
    for one in artifacts:
        inside = one.relative_to(first)
        found = differing(one, second / inside)
        if found:
            place = inside / found[0].split(" -> ")[0]
            hint = [first_cause(str(inside), Checkout(first).records(), Checkout(second).records())]
            hint.append(_look(first / place, second / place, report))
            more = f" and {len(found) - 1} other entries of it" if len(found) > 1 else ""
            raise DifferenceError(f"two builds differ: {place}{more}", "\n".join(hint))
        lines.append(f"{digest.path_digest(one)}  {inside}")
    return lines


def first_cause(path: str, one: Mapping[str, Record], other: Mapping[str, Record]) -> str:
    """Say in one sentence which input differs first on the way to `path`, which differs itself."""
    makers = {output: record for record in one.values() for output in record.outputs}
    maker = makers.get(path)
    if maker is None:
        return f"no task of the first build says that it made {path}"
    seen: set[str] = set()
    while maker.name not in seen:
        seen.add(maker.name)
        twin = other.get(maker.name)
        if twin is None:
            return f"the task {maker.name} did not end well in the second build"
        earlier: Record | None = None
        for name in _differing_inputs(maker, twin):
            made = makers.get(_output(name))
            if made is None:
                return (
                    f"first differing input: {name} of the task {maker.name}: "
                    f"sha256 {maker.inputs.get(name, 'none')} and {twin.inputs.get(name, 'none')}"
                )
            earlier = earlier or made
        if earlier is None:
            if maker.facts != twin.facts:
                return f"first differing input: {_facts(maker.facts, twin.facts)} of the task {maker.name}"
            return f"no input differs: the step {maker.name} itself gives other bytes for the same inputs"
        maker = earlier
    return f"the inputs of {maker.name} go in a circle"


def _differing_inputs(one: Record, other: Record) -> Iterator[str]:
    for name in sorted({*one.inputs, *other.inputs}):
        if one.inputs.get(name) != other.inputs.get(name):
            yield name


def _output(name: str) -> str:
    """Return the output that an input is: a folder stands as the file which holds its digest."""
    if name.startswith(_TREES):
        return name.removeprefix(_TREES).removesuffix(".sha256").replace("+", "/")
    return name


def _facts(one: Any, other: Any) -> str:
    if one[1] != other[1]:
        return "the code"
    for key in ("config", "args", "code"):
        if one[0].get(key) != other[0].get(key):
            return f"{key} ({_short(one[0].get(key))} and {_short(other[0].get(key))})"
    return "the configuration"


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:200]


def _state(saved: Any) -> str:
    return saved if isinstance(saved, str) else json.dumps(saved)


def _look(one: Path, other: Path, report: Path) -> str:
    """Let diffoscope write to `report` what differs; return where that stands."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    words = ["diffoscope", "--no-progress", "--max-text-report-size", str(_REPORT_BYTES), "--text"]
    try:
        # 1: they differ.
        result = run([*words, report, one, other], check=False, timeout=_DIFFOSCOPE_SECONDS)
    except HostError:
        return f"diffoscope would show how {one} and {other} differ: apt-get install diffoscope-minimal"
    except CommandError:
        return f"diffoscope took too long; compare {one} with {other}"
    if result.returncode == 1 and report.exists():
        return f"what differs: {relative(report)}"
    if result.returncode == 0:
        # Of two files that it is asked about diffoscope leaves the modes out.
        modes = " and ".join(f"{stat.S_IMODE(path.lstat().st_mode):o}" for path in (one, other))
        return f"what differs: the mode, {modes}; the content is the same"
    return f"diffoscope failed ({result.stderr.strip()[-200:]}); compare {one} with {other}"
