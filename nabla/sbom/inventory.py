# SPDX-License-Identifier: Apache-2.0
"""What a bill of materials tells, in a form that belongs to no standard: components, where each comes from, what
changed it, what it needs and what holds it.

nabla.sbom.collect fills it; nabla.sbom.spdx and nabla.sbom.cyclonedx write it down; verify/scan reads it back.
Everything is sorted and nothing depends on the day, the host or the user: the same inputs give the same bytes.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nabla.core.errors import NablaError

NAME = "nabla-linux"

# kernel, library, program: what the recipes of kernel, libc, busybox, launcher and init make.
# package: of our repository. base: of Alpine, in the root file system that images start from.
# wheel: of Python's package index, unchanged. bundled: a library that a wheel says it brought along.
Kind = Literal["kernel", "library", "program", "package", "base", "wheel", "bundled", "image"]


class SbomError(NablaError):
    """A bill of materials could not be made, or is not what it must be."""


@dataclass(frozen=True)
class SourceFile:
    """One form in which a source can be had. `places`: addresses; where there are none, `purl` says what it is."""

    file: str
    sha256: str
    places: tuple[str, ...]
    purl: str | None


@dataclass(frozen=True)
class Source:
    """A locked source: what a component is made of, in one or more forms that build to the same bytes."""

    ref: str
    name: str
    version: str
    license: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Patch:
    """One patch that we apply. `path`: in the repository. `fixes`: numbers of the vulnerabilities that it mends.

    `backport`: it names the commit of upstream that it was taken from.
    """

    path: str
    title: str
    sha256: str
    sha1: str
    fixes: tuple[str, ...]
    backport: bool

    @property
    def ref(self) -> str:
        """Its name within the document."""
        return f"patch:{self.path.removeprefix('patches/')}"


@dataclass(frozen=True)
class Component:
    """One thing that is shipped.

    `license`: as its maker writes it, an SPDX expression or not. `origin`: the recipe, or Alpine's source package.
    `sha256`: of the file, where it is one. `sources`: references of sources. `contains`, `depends`: of components.
    """

    ref: str
    kind: Kind
    name: str
    version: str
    license: str
    summary: str = ""
    homepage: str | None = None
    purl: str | None = None
    origin: str | None = None
    sha256: str | None = None
    sources: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()
    contains: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All that a release holds. `epoch`: seconds since 1970, the date of all our builds."""

    version: str
    epoch: int
    components: tuple[Component, ...]
    sources: tuple[Source, ...]

    @property
    def patches(self) -> tuple[Patch, ...]:
        """Every patch once, sorted by its path."""
        found = {patch.path: patch for component in self.components for patch in component.patches}
        return tuple(found[path] for path in sorted(found))

    def of_kind(self, *kinds: Kind) -> Iterator[Component]:
        """Yield the components of these kinds."""
        return (component for component in self.components if component.kind in kinds)


def make_inventory(version: str, epoch: int, components: Sequence[Component], sources: Sequence[Source]) -> Inventory:
    """Return a sorted inventory. Raises `SbomError` when two things have one name, or a relation leads nowhere."""
    known: set[str] = set()
    for ref in (*(c.ref for c in components), *(s.ref for s in sources)):
        if ref in known:
            raise SbomError(f"two components are called {ref}")
        known.add(ref)
    for component in components:
        for ref in (*component.sources, *component.contains, *component.depends):
            if ref not in known:
                raise SbomError(f"{component.ref} refers to {ref}, which is not in the inventory")
    return Inventory(
        version, epoch, tuple(sorted(components, key=lambda c: c.ref)), tuple(sorted(sources, key=lambda s: s.ref))
    )


def apk_purl(owner: str, name: str, version: str, **qualifiers: str) -> str:
    """Return the package URL of an apk package; `owner`: who makes it (nabla, alpine)."""
    return purl("apk", name, version, namespace=owner, **qualifiers)


def purl(kind: str, name: str, version: str, *, namespace: str = "", **qualifiers: str) -> str:
    """Return a package URL, in the canonical writing of the purl specification."""
    from packageurl import PackageURL

    return PackageURL(kind, namespace or None, name, version, qualifiers or None).to_string()


@functools.cache
def licensing() -> Any:
    """Return the parser of SPDX expressions with all names that SPDX knows."""
    # Loading its list takes longer than a start of doit may.
    from license_expression import get_spdx_licensing  # type: ignore[import-untyped]

    return get_spdx_licensing()


def spdx_expression(text: str) -> str | None:
    """Return a licence in SPDX's canonical writing; None where the text is no valid SPDX expression."""
    from license_expression import ExpressionError

    try:
        return str(licensing().parse(text, validate=True, strict=True))
    except ExpressionError:
        return None


def license_names(text: str) -> list[str]:
    """Return the names of licences and exceptions in an expression, valid or not, in order."""
    words = re.findall(r"[A-Za-z0-9.+-]+", text)
    return list(dict.fromkeys(word for word in words if word not in ("AND", "OR", "WITH")))
