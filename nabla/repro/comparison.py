# SPDX-License-Identifier: Apache-2.0
"""Compare the artifacts of two builds; report differing bytes (by diffoscope) and the cause of the difference.

The state of each checkout contains a record of each finished task: the digests of its inputs, configuration and code,
and of its outputs. The search for the cause starts at a differing output and follows differing inputs back through the
tasks that wrote them. It ends at a differing input that no task wrote, or at a step with equal inputs and different
outputs.
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
    """Two builds of the same artifact differ."""


@dataclass(frozen=True)
class Record:
    """The record of a task in the state of a checkout. Paths are relative to the checkout."""

    name: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    config: Any = None  # configuration and code


@dataclass(frozen=True)
class Checkout:
    """One of the two checkouts."""

    root: Path

    def records(self) -> dict[str, Record]:
        """Return the records of finished tasks by name. Raises `NablaError`."""
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
        # Arguments contain absolute paths.
        return Record(name, inputs, values.get("outputs", {}), json.loads(text.replace(str(self.root), "")))

    def _inside(self, path: str) -> str:
        return path.removeprefix(f"{self.root}/")


def differing(one: Path, other: Path) -> list[str]:
    """Return the differing entries of two folders, sorted, or `.` for differing files. Raises `NablaError`."""
    for path in (one, other):
        if not path.exists():
            raise NablaError(f"{path} was not built")
    if one.is_dir() and other.is_dir():
        return manifest.differences(manifest.manifest(one), manifest.manifest(other))
    same = not one.is_dir() and not other.is_dir() and digest.sha256_file(one) == digest.sha256_file(other)
    return [] if same else ["."]


def check(artifacts: Sequence[Path], first: Path, second: Path, report: Path) -> list[str]:
    """Compare artifacts of the checkout `first` with those of `second`; return a line `sha256  path` for each.

    Raises `DifferenceError` for the first differing one, and writes diffoscope's output about it to `report`.
    """
    lines = []
    for one in artifacts:
        inside = one.relative_to(first)
        entries = differing(one, second / inside)
        if entries:
            path = inside / entries[0].split(" -> ")[0]
            hint = [first_cause(str(inside), Checkout(first).records(), Checkout(second).records())]
            hint.append(diffoscope(first / path, second / path, report))
            more = f" and {len(entries) - 1} other entries of it" if len(entries) > 1 else ""
            raise DifferenceError(f"two builds differ: {path}{more}", "\n".join(hint))
        lines.append(f"{digest.path_digest(one)}  {inside}")
    return lines


def first_cause(path: str, one: Mapping[str, Record], other: Mapping[str, Record]) -> str:
    """Describe the first differing input that leads to the differing output `path`."""
    makers = {output: record for record in one.values() for output in record.outputs}
    maker = makers.get(path)
    if maker is None:
        return f"no task of the first build has the output {path}"
    seen: set[str] = set()
    while maker.name not in seen:
        seen.add(maker.name)
        twin = other.get(maker.name)
        if twin is None:
            return f"the task {maker.name} did not succeed in the second build"
        earlier: Record | None = None
        for name in _differing_inputs(maker, twin):
            producer = makers.get(output_of(name))
            if producer is None:
                return (
                    f"first differing input: {name} of the task {maker.name}: "
                    f"sha256 {maker.inputs.get(name, 'none')} and {twin.inputs.get(name, 'none')}"
                )
            earlier = earlier or producer
        if earlier is None:
            if maker.config != twin.config:
                return (
                    f"first differing input: {_config_difference(maker.config, twin.config)} of the task {maker.name}"
                )
            return f"no input differs: the step {maker.name} writes different bytes for the same inputs"
        maker = earlier
    return f"the inputs of {maker.name} form a cycle"


def _differing_inputs(one: Record, other: Record) -> Iterator[str]:
    for name in sorted({*one.inputs, *other.inputs}):
        if one.inputs.get(name) != other.inputs.get(name):
            yield name


def output_of(name: str) -> str:
    """Return the output that corresponds to an input; a stamp file corresponds to its folder."""
    if name.startswith(_TREES):
        return name.removeprefix(_TREES).removesuffix(".sha256").replace("+", "/")
    return name


def _config_difference(one: Any, other: Any) -> str:
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


def diffoscope(one: Path, other: Path, report: Path) -> str:
    """Write the differences to `report` by diffoscope; return a sentence about it."""
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    words = ["diffoscope", "--no-progress", "--max-text-report-size", str(_REPORT_BYTES), "--text"]
    try:
        # Exit status 1: they differ.
        result = run([*words, report, one, other], check=False, timeout=_DIFFOSCOPE_SECONDS)
    except HostError:
        return f"diffoscope would show how {one} and {other} differ: apt-get install diffoscope-minimal"
    except CommandError:
        return f"diffoscope took too long; compare {one} with {other}"
    if result.returncode == 1 and report.exists():
        return f"differences: {relative(report)}"
    if result.returncode == 0:
        # diffoscope does not compare the modes of its arguments.
        modes = " and ".join(f"{stat.S_IMODE(path.lstat().st_mode):o}" for path in (one, other))
        return f"differences: the mode, {modes}; the content is the same"
    return f"diffoscope failed ({result.stderr.strip()[-200:]}); compare {one} with {other}"
