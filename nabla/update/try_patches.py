# SPDX-License-Identifier: Apache-2.0
"""Try a patch series on the tree of another version, in a folder that is thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nabla.build.series import Series
from nabla.core.errors import PatchError
from nabla.sandbox import buildroot
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources.recipe import Source
from nabla.sources.store import cache


def failures(archive: Path, source: Source, patches: Sequence[Path]) -> list[PatchError]:
    """Return an error for each patch that does not apply to the unpacked archive, in their order.

    One that fails is left out, and the next ones are tried without it: those that build on it fail too.
    """
    if not patches or not source.unpack:
        return []
    buildroot.ensure()
    with cache().scratch() as folder:
        tree = folder / "tree"
        tree.mkdir()
        place = Sandbox((Bind(tree, "/build", writable=True), Bind(archive.parent, "/src")))
        options = f"--strip-components={source.strip} --no-same-owner --no-same-permissions"
        place.run(f"tar -xf /src/{archive.name} {options}", title=f"unpack {source.name}")
        return _try(Series(tree, folder / "memory"), patches)


def _try(series: Series, patches: Sequence[Path]) -> list[PatchError]:
    """Apply all at once where that works; else the patches one after the other, on top of those that did apply."""
    try:
        series.apply(patches)
        return []
    except PatchError:
        good: list[Path] = []
        problems = []
    for patch in patches:
        try:
            series.apply([*good, patch])
            good.append(patch)
        except PatchError as error:
            place = error.message.partition(" (patch ")[0]
            problems.append(PatchError(place, error.hint))
    return problems
