# SPDX-License-Identifier: Apache-2.0
"""Try a patch series on the tree of another version, in a temporary folder."""

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
    """Return an error for each patch that does not apply to the unpacked archive, in order.

    The next patches are tried without a failed one; those that depend on it fail, too.
    """
    if not patches or not source.unpack:
        return []
    buildroot.ensure()
    with cache().scratch() as folder:
        tree = folder / "tree"
        tree.mkdir()
        sandbox = Sandbox((Bind(tree, "/build", writable=True), Bind(archive.parent, "/src")))
        options = f"--strip-components={source.strip} --no-same-owner --no-same-permissions"
        sandbox.run(f"tar -xf /src/{archive.name} {options}", title=f"unpack {source.name}")
        return _try(Series(tree, folder / "saved"), patches)


def _try(series: Series, patches: Sequence[Path]) -> list[PatchError]:
    """Apply all patches at once, or else one after the other, on top of those that applied."""
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
            message = error.message.partition(" (patch ")[0]
            problems.append(PatchError(message, error.hint))
    return problems
