# SPDX-License-Identifier: Apache-2.0
"""The content of a bill of materials, independent of a standard: components, their sources, patches and relations.

nabla.sbom.collect collects it; nabla.sbom.spdx and nabla.sbom.cyclonedx write it. All items are sorted and independent
of date, host and user, so the documents are reproducible.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nabla.core.errors import NablaError

NAME = "nabla-linux"
# Increment it when the documents describe the same content differently.
_FORM = 3

# kernel, library, program: built from the recipes of kernel, libc, busybox, launcher and init.
# package: of the repository. base: a package of Alpine, in the root file system of images.
# wheel: of the Python package index, unchanged. bundled: a library that a wheel lists.
Kind = Literal["kernel", "library", "program", "package", "base", "wheel", "bundled", "image"]


class SbomError(NablaError):
    """A bill of materials cannot be written or is invalid."""


@dataclass(frozen=True)
class SourceFile:
    """One archive of a source. `places`: its addresses; `purl`: identifies an archive without an address."""

    file: str
    sha256: str
    places: tuple[str, ...]
    purl: str | None


@dataclass(frozen=True)
class Source:
    """A locked source of a component, as one or more archives that build to the same bytes."""

    ref: str
    name: str
    version: str
    license: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Patch:
    """One patch. `path`: in the repository. `fixes`: the CVEs that it fixes.

    `backport`: whether the patch names the upstream commit that it comes from.
    """

    path: str
    title: str
    sha256: str
    sha1: str
    fixes: tuple[str, ...]
    backport: bool

    @property
    def ref(self) -> str:
        """The reference in the document."""
        return f"patch:{self.path.removeprefix('patches/')}"


@dataclass(frozen=True)
class ComponentFile:
    """The file of a component: its name in a release, its digests in hexadecimal."""

    name: str
    sha256: str
    sha512: str


@dataclass(frozen=True)
class Component:
    """One component of a release.

    `license`: the author's text, possibly not an SPDX expression. `origin`: the recipe, or Alpine's source package.
    `file`: the component's file and its digests, if the component is one. `sources`: references of sources.
    `contains`, `depends`: references of components.
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
    file: ComponentFile | None = None
    sources: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()
    contains: tuple[str, ...] = ()
    depends: tuple[str, ...] = ()


def supplier(component: Component) -> str:
    """Return the name of the organization from which users get a component."""
    purl = component.purl or ""
    if purl.startswith("pkg:apk/alpine/"):
        return "Alpine Linux"
    return "Python Package Index" if component.kind == "wheel" else NAME


@dataclass(frozen=True)
class Inventory:
    """The content of a release. `epoch`: the date of all builds, in seconds since 1970."""

    version: str
    epoch: int
    components: tuple[Component, ...]
    sources: tuple[Source, ...]

    @property
    def patches(self) -> tuple[Patch, ...]:
        """All patches, sorted by path."""
        patches = {patch.path: patch for component in self.components for patch in component.patches}
        return tuple(patches[path] for path in sorted(patches))

    def content(self) -> list[str]:
        """Return the content for a document's serial number: repr() of a data class includes the names of fields."""
        return [str(_FORM), self.version, str(self.epoch), *map(repr, self.components), *map(repr, self.sources)]

    def of_kind(self, *kinds: Kind) -> Iterator[Component]:
        """Yield the components of these kinds."""
        return (component for component in self.components if component.kind in kinds)


def make_inventory(version: str, epoch: int, components: Sequence[Component], sources: Sequence[Source]) -> Inventory:
    """Return a sorted inventory. Raises `SbomError` for a duplicate or dangling reference."""
    known: set[str] = set()
    for ref in (*(c.ref for c in components), *(s.ref for s in sources)):
        if ref in known:
            raise SbomError(f"two components have the reference {ref}")
        known.add(ref)
    for component in components:
        for ref in (*component.sources, *component.contains, *component.depends):
            if ref not in known:
                raise SbomError(f"{component.ref} refers to {ref}, which is not in the inventory")
    return Inventory(
        version, epoch, tuple(sorted(components, key=lambda c: c.ref)), tuple(sorted(sources, key=lambda s: s.ref))
    )


def apk_purl(owner: str, name: str, version: str, **qualifiers: str) -> str:
    """Return the package URL of an apk package. `owner`: nabla or alpine."""
    return purl("apk", name, version, namespace=owner, **qualifiers)


def purl(kind: str, name: str, version: str, *, namespace: str = "", **qualifiers: str) -> str:
    """Return a package URL in the canonical form of the purl specification."""
    from packageurl import PackageURL

    return PackageURL(kind, namespace or None, name, version, qualifiers or None).to_string()


@functools.cache
def licensing() -> Any:
    """Return the parser of SPDX expressions with all names of SPDX."""
    # Imported when needed: the import would delay each start of doit.
    from license_expression import get_spdx_licensing  # type: ignore[import-untyped]

    return get_spdx_licensing()


def spdx_expression(text: str) -> str | None:
    """Return a license as a canonical SPDX expression; None if the text is not a valid one."""
    from license_expression import ExpressionError

    try:
        return str(licensing().parse(text, validate=True, strict=True))
    except ExpressionError:
        return None


def license_names(text: str) -> list[str]:
    """Return the names of licenses and exceptions in an expression, valid or not, in order."""
    words = re.findall(r"[A-Za-z0-9.+-]+", text)
    return list(dict.fromkeys(word for word in words if word not in ("AND", "OR", "WITH")))
