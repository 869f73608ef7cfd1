# SPDX-License-Identifier: Apache-2.0
"""The lines that errors about TOML files name: only a line feed, or one after a carriage return, ends a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nabla.core import toml
from nabla.core.errors import ConfigError

# Every character that str.splitlines treats as a line end and TOML permits in comments or strings.
SEPARATORS = ["\u2028", "\u2029", "\x85"]


def line_of_error(path: Path, content: bytes, key: str) -> str:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        toml.read(path, ConfigError).fail((key,), "wrong")
    return caught.value.message.split(":")[1]


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_that_are_no_line_ends(tmp_path: Path, separator: str, ending: str) -> None:
    lines = [f"# a{separator}comment", f'text = "a{separator}b"', 'more = """', f"x{separator}", '"""', "here = 1"]
    assert line_of_error(tmp_path / "a.toml", ending.join(lines).encode(), "here") == "6"


@pytest.mark.parametrize("content", [b"a = 1\rb = 2\n", b"a = 1\r", b"a = 1\x0bb = 2\n", b'a = "\x0c"\n'])
def test_other_line_ends_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a.toml:1: not valid TOML"):
        toml.read(tmp_path / "a.toml", ConfigError)
