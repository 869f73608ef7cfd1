# SPDX-License-Identifier: Apache-2.0
"""Reading and comparing runs of busybox's test suite."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nabla.core.errors import RecipeError
from nabla.core.paths import RECIPES, TESTS
from tests.busybox import suite
from tests.busybox.suite import Comparison, Known, KnownFailures

LOG = b"""PASS: a
======================
echo -ne 'FAIL: not a result' | cat
FAIL: b with spaces
--- expected
+FAIL: nor this
PASS: a\r
SKIPPED: c
UNTESTED: d
PASS: bytes \xff
"""


def test_parse() -> None:
    assert suite.parse(LOG) == {
        "a": "PASS",
        "b with spaces": "FAIL",
        "a (2)": "PASS",
        "c": "SKIPPED",
        "d": "UNTESTED",
        "bytes \ufffd": "PASS",
    }


def test_unexplained() -> None:
    comparison = Comparison({"x": "FAIL", "y": "FAIL", "z": "PASS"}, {"x": "PASS", "y": "FAIL", "w": "PASS"})
    assert comparison.guest_only == ["x"]
    assert comparison.shared == ["y"]
    assert comparison.missing == ["w", "z"]
    assert suite.unexplained(comparison, KnownFailures((Known("x", "…"),), (Known("y", "…"),))) == []
    problems = suite.unexplained(comparison, KnownFailures((Known("z", "…"),)))
    assert problems == [
        "fails in the guest only, not listed: x",
        "listed as failing in the guest only, but passes: z",
        "fails in the guest and on the host, not listed: y",
    ]


def test_report() -> None:
    comparison = Comparison({"x": "FAIL", "y": "FAIL"}, {"x": "PASS", "y": "FAIL", "w": "PASS"})
    text = suite.report(comparison, KnownFailures((Known("x", "because"),)))
    assert "| guest, ours | 0 | 2 | 0 | 0 |" in text
    assert "* `x`: because" in text
    assert "* `y`: not explained yet" in text
    assert "* `w`: host, PASS" in text


def test_list_of_known_failures(tmp_path: Path) -> None:
    known = suite.read_known(TESTS / "busybox" / "failures.toml")
    assert known.both
    assert all(entry.why for entry in (*known.guest, *known.both))
    (tmp_path / "x.toml").write_text('[[both]]\nname = "a"\nreason = "b"\n')
    with pytest.raises(RecipeError):
        suite.read_known(tmp_path / "x.toml")


def test_stock_fragment() -> None:
    text = suite.stock_fragment((RECIPES / "busybox" / "busybox.config").read_text())
    assert "CONFIG_PIE" not in text
    assert "INSTALL_APPLET" not in text
    assert "CONFIG_SH_IS_ASH=y" in text


def test_archive(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "x.tests").write_text("#!/bin/sh\n")
    (tmp_path / "config").write_text("CONFIG_X=y\n")
    data = suite.archive(tmp_path / "suite", tmp_path / "config")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {"testsuite/x.tests", ".config"} <= set(tar.getnames())
