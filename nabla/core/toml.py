# SPDX-License-Identifier: Apache-2.0
"""Check TOML files against msgspec structures, with errors that name file, line and key.

The standard parser has no positions. The line of a key is therefore determined for an error only, by parsing the
statements of the file one by one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec

from nabla.core.errors import NablaError
from nabla.core.paths import relative

T = TypeVar("T")
Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed TOML file. `error`: the class of errors about it."""

    path: Path
    text: str
    data: dict[str, Any]
    error: type[NablaError]

    def convert(self, kind: type[T]) -> T:
        """Convert the data to `kind`. Raises the document's error class for the first invalid key."""
        try:
            return msgspec.convert(self.data, kind)
        except msgspec.ValidationError as problem:
            text, _, path = str(problem).partition(" - at `")
            key = _parse_path(path.rstrip("`"))
            missing = re.search(r"unknown field `(.+)`", text)
            if missing:
                key = (*key, missing.group(1))
            self.fail(key, _plain(text))

    def fail(self, key: Sequence[str | int], message: str, hint: str = "") -> NoReturn:
        """Raise an error about one key."""
        line = find_line(self.text, tuple(key))
        raise self.error(f"{relative(self.path)}:{line}: {key_text(key)}{message}", hint)


def read(path: Path, error: type[NablaError]) -> Document:
    """Read and parse a file. Raises `error` if it is absent or malformed."""
    try:
        # Not read_text(): that would make line ends of carriage returns, which are an error.
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise error(f"there is no file {relative(path)}") from None
    except UnicodeDecodeError as problem:
        raise error(f"{relative(path)} is not UTF-8 text (byte {problem.start})") from None
    try:
        return Document(path, text, tomllib.loads(text), error)
    except tomllib.TOMLDecodeError as problem:
        match = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", str(problem))
        line = match.group(2) if match else str(text.count("\n") + 1)
        raise error(f"{relative(path)}:{line}: not valid TOML: {match.group(1) if match else problem}") from None


def key_text(key: Sequence[str | int]) -> str:
    """Return a key as text: `source[1].origin[2].sha256: `; empty for the whole file."""
    text = ""
    for part in key:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{text}: " if text else ""


def find_line(text: str, key: Key) -> int:
    """Return the line (from 1) of `key`, or of its nearest parent in the file."""
    lines: dict[Key, int] = {}
    for each, line in _statements(text):
        # A table may have no header of its own, but those of tables in it.
        for length in range(1, len(each) + 1):
            lines.setdefault(each[:length], line)
    for length in range(len(key), 0, -1):
        if key[:length] in lines:
            return lines[key[:length]]
    return 1


def _statements(text: str) -> Iterator[tuple[Key, int]]:
    """Yield each key of a valid TOML text with the first line of its statement."""
    # TOML's only line end; str.splitlines knows more of them, which may be part of a string.
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    counts: dict[Key, int] = {}
    table: Key = ()
    number = 0
    while number < len(lines):
        first, chunk, data = number, lines[number], None
        number += 1
        while data is None:
            try:
                data = tomllib.loads(chunk)
            except tomllib.TOMLDecodeError:
                if number == len(lines):
                    return
                chunk += "\n" + lines[number]
                number += 1
        header = re.match(r"\s*(\[\[?)", chunk)
        if header:
            table = _enter(data, counts, is_array=header.group(1) == "[[")
            yield table, first + 1
        else:
            yield from ((key, first + 1) for key in _walk(data, table))


def _enter(data: dict[str, Any], counts: dict[Key, int], *, is_array: bool) -> Key:
    """Return the full key of a `[table]` or `[[table]]` header, counting the elements of arrays of tables."""
    names: list[str] = []
    node: Any = data
    while isinstance(node, dict) and node:
        name = next(iter(node))
        names.append(name)
        node = node[name][0] if isinstance(node[name], list) else node[name]
    key: Key = ()
    for name in names[:-1]:
        key = (*key, name)
        if key in counts:
            key = (*key, counts[key] - 1)
    key = (*key, names[-1])
    if is_array:
        counts[key] = counts.get(key, 0) + 1
        key = (*key, counts[key] - 1)
    return key


def _walk(data: Any, prefix: Key) -> Iterator[Key]:
    if isinstance(data, dict):
        for name, value in data.items():
            yield (*prefix, name)
            yield from _walk(value, (*prefix, name))


def _parse_path(path: str) -> Key:
    """Turn msgspec's `$.source[0].origin[1].sha256` into a key."""
    parts: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        if name:
            parts.append(name)
        elif index.isdigit():
            parts.append(int(index))
    return tuple(parts)


def _plain(text: str) -> str:
    """Reword msgspec's messages in the terms of TOML."""
    text = re.sub(r"^Object missing required field `(.+)`$", r"the key `\1` is missing", text)
    text = re.sub(r"^Object contains unknown field `(.+)`$", r"there is no such key", text)
    text = re.sub(r"^Invalid value '(.*)'$", r"the value '\1' is not allowed", text)
    text = re.sub(r"^Expected `(\w+)(?: \| null)?`, got `(\w+)`$", r"expected \1, got \2", text)
    text = re.sub(r"^Expected `(\w+)` matching regex '(.*)'$", r"the value must match \2", text)
    return text[:1].lower() + text[1:]
