# SPDX-License-Identifier: Apache-2.0
"""Results of steps in the user's cache, by the digest of all that went into them: no checkout makes one twice.

<cache>/results/ab/abcd…/told.json   the step, and the digest of each output
<cache>/results/ab/abcd…/0, 1, …     the outputs, in the order in which the step declares them

What is taken is checked by its digest; what was damaged is made again. A step may be kept if its declared inputs,
configuration and code are all that decides its outputs, which is what doit goes by as well, and if nobody needs what it
leaves besides its outputs, or makes that himself (nabla.build.source_tree.ready).

With `NABLA_FRESH=1` nothing is taken. What nobody took for a month goes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nabla.core import digest, files, manifest
from nabla.core.errors import CommandError
from nabla.core.paths import ROOT, cache_dir
from nabla.core.process import run

# To be raised by whoever changes how results are laid out.
FORM = 1


def key(name: str, record: Any, code: str, inputs: Mapping[str, str | None]) -> str:
    """Return the digest under which a step's outputs are kept; the place of the checkout does not count.

    `record`: configuration and arguments, JSON data; `code`: digest of what it runs; `inputs`: digests by path relative
    to the checkout.
    """
    facts = [FORM, name, record, code, dict(inputs)]
    return digest.sha256_bytes(digest.canonical(facts).replace(f"{ROOT}/", "").encode())


def take(found: str, places: Sequence[Path]) -> bool:
    """Put copies of the outputs kept under a key at `places`, and tell whether that went well.

    Afterwards there is either all of them or none.
    """
    if os.environ.get("NABLA_FRESH", "0") not in ("", "0"):
        return False
    entry = _entry(found)
    try:
        told = json.loads((entry / "told.json").read_text(encoding="utf-8"))
        for number, (place, expected) in enumerate(zip(places, told["outputs"], strict=True)):
            _copy(entry / str(number), place)
            if _digest(place) != expected:
                raise ValueError
        os.utime(entry)
    except (OSError, ValueError, KeyError, TypeError, CommandError):
        for place in places:
            files.remove(place)
        return False
    return True


def keep(found: str, name: str, places: Sequence[Path]) -> None:
    """Keep the outputs of a step, which lie at `places`. Raises `DiskFullError`, `CommandError`."""
    entry = _entry(found)
    with files.scratch(cache_dir() / "tmp") as scratch:
        whole = scratch / "entry"
        whole.mkdir()
        for number, place in enumerate(places):
            _copy(place, whole / str(number))
        told = {"step": name, "outputs": [_digest(place) for place in places]}
        (whole / "told.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        files.make_folder(entry.parent)
        files.remove(entry)
        files.remove_unused((cache_dir() / "results").glob("??/*"))
        try:
            whole.rename(entry)
        except OSError:
            # Another process kept the same at this moment.
            if not entry.is_dir():
                raise


def _entry(found: str) -> Path:
    return cache_dir() / "results" / found[:2] / found


def _digest(place: Path) -> str:
    return manifest.digest(place) if place.is_dir() else manifest.file_sha256(place)


def _copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--sparse=always", "--reflink=auto", source, target])
