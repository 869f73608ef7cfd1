# SPDX-License-Identifier: Apache-2.0
"""Read a matrix, and apply a variant to a checkout.

A matrix is a TOML file: `tasks` that each variant builds, `test`, a command that checks the result, and the variants.
Each `[[variant]]` has a name and changes: `remove` (files), `append` and `replace` (texts of files). `without` makes a
variant for each file that matches a pattern: the checkout without that file. Only folders of data can be changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from nabla.core import toml
from nabla.core.errors import ConfigError
from nabla.core.paths import ROOT

# As in nabla.farm.identity: such changes can travel to the workers of a farm.
FOLDERS = ("init", "kernel-config", "launcher", "oci", "patches", "recipes", "rootfs")

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,60}\Z")]
_Hours = Annotated[float, msgspec.Meta(gt=0, le=48)]


class Append(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text to add at the end of a file, which is created if absent."""

    file: str
    text: str


class Replace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Text of a file to replace; it must occur exactly once."""

    file: str
    old: str
    new: str


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One variant of the checkout."""

    name: Name
    summary: str = ""
    remove: tuple[str, ...] = ()
    append: tuple[Append, ...] = ()
    replace: tuple[Replace, ...] = ()
    variables: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tasks: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    test: tuple[str, ...] = ()
    hours: _Hours = 4.0
    without: tuple[str, ...] = ()
    variant: tuple[Variant, ...] = ()


@dataclass(frozen=True)
class Matrix:
    """All variants. `test`: a command that runs in the checkout of each; `hours`: the limit of each build."""

    tasks: tuple[str, ...]
    test: tuple[str, ...]
    hours: float
    variants: tuple[Variant, ...]


def read(path: Path, root: Path = ROOT) -> Matrix:
    """Read a matrix. Raises `ConfigError`."""
    document = toml.read(path, ConfigError)
    content = document.convert(_File)
    variants = [Variant("unchanged", "the checkout as it is"), *content.variant]
    for pattern in content.without:
        paths = sorted(str(each.relative_to(root)) for each in root.glob(pattern) if each.is_file())
        if not paths:
            document.fail(("without",), f"no file matches {pattern}")
        for each in paths:
            name = f"without-{Path(each).name.lower()}"
            variants.append(Variant(name, f"without {each}", remove=(each,)))
    names = [each.name for each in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        document.fail(("variant",), f"two variants have the name {twice}")
    for variant in variants:
        changed = [*(each.file for each in variant.append), *(each.file for each in variant.replace)]
        for file in (*variant.remove, *changed):
            if file.partition("/")[0] not in FOLDERS or ".." in Path(file).parts:
                document.fail(("variant",), f"{variant.name}: {file} is in none of the folders {', '.join(FOLDERS)}")
    return Matrix(content.tasks, content.test, content.hours, tuple(variants))


def apply(variant: Variant, root: Path) -> None:
    """Change a checkout. Raises `ConfigError` if a file or a text is absent."""
    for name in variant.remove:
        if not (root / name).is_file():
            raise ConfigError(f"{variant.name}: there is no file {name}", "see `remove` in the matrix")
        (root / name).unlink()
    for append in variant.append:
        path = root / append.file
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(before + ("" if before.endswith("\n") or not before else "\n") + append.text, encoding="utf-8")
    for replace in variant.replace:
        path = root / replace.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if text.count(replace.old) != 1:
            raise ConfigError(
                f"{variant.name}: {replace.file} contains {replace.old!r} {text.count(replace.old)} times",
                "`replace` needs a text that occurs once",
            )
        path.write_text(text.replace(replace.old, replace.new), encoding="utf-8")
