# SPDX-License-Identifier: Apache-2.0
"""The template of a new recipe, and the graph of build dependencies; neither affects artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nabla.core import log
from nabla.core.errors import NablaError, RecipeError
from nabla.sources import apt, recipe
from nabla.sources.apt import SourcePackage
from nabla.sources.store import is_offline

SUITES = ("trixie", "bookworm")

_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
name = "{name}"
version = "{version}"
license = "LICENSE"
summary = "WHAT IT IS AND WHAT FOR"
homepage = "https://HOMEPAGE/"

[[source]]
name = "{name}"
"""
_DEBIAN = """
[[source.origin]]
type = "debian"
suite = "{suite}"
package = "{package}"
version = "{version}"
file = "{file}"
sha256 = "{sha256}"
size = {size}
"""
_URL = """
# Debian's archive has no source package of that name and version. Size and sha256 of upstream's file:
[[source.origin]]
type = "url"
url = ["https://HOMEPAGE/{name}-{version}.tar.gz"]
sha256 = "{zeros}"
size = 1
"""
_TAIL = """
[package]
# What it is compiled against, what must be installed with it beside libraries: packages by name.
makedepends = []
depends = []
build = \"\"\"
./configure --build=$CBUILD --host=$CHOST --prefix=/usr --sysconfdir=/etc --localstatedir=/var
make -j"$JOBS"
\"\"\"
package = \"\"\"
make install DESTDIR="$DESTDIR"
\"\"\"

[[package.subpackage]]
name = "{name}-dev"
"""


def look_up(name: str, version: str) -> SourcePackage | None:
    """Return the source package with that source; None if Debian's archive has none, or offline."""
    if is_offline():
        log.info("offline: Debian's archive is not asked for the source")
        return None
    for suite in SUITES:
        try:
            packages = apt.source_packages(suite, [name], name)
        except NablaError as error:
            log.info(f"Debian {suite}: {error.message}")
            continue
        found = choose(packages, version)
        if found is not None:
            return found
    return None


def choose(packages: Sequence[SourcePackage], version: str) -> SourcePackage | None:
    """Return the first package with upstream's version and tarball."""
    return next((each for each in packages if version in each.upstream and each.tarball), None)


def render(name: str, version: str, found: SourcePackage | None) -> str:
    """Return the text of the template. Raises `RecipeError` for an invalid name or version."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", name):
        raise RecipeError(f"{name!r} cannot be the name of a package", "lower-case letters, digits, + . -")
    if not re.fullmatch(recipe.APK_VERSION, version):
        raise RecipeError(f"{version!r} is not a version that apk can compare", "such as 1.2.3 or 6.5_p20250216")
    if found is not None and found.tarball is not None:
        origin = _DEBIAN.format(
            suite=found.suite,
            package=found.name,
            version=found.version,
            file=found.tarball.name,
            sha256=found.tarball.sha256,
            size=found.tarball.size,
        )
    else:
        origin = _URL.format(name=name, version=version, zeros="0" * 64)
    return _HEAD.format(name=name, version=version) + origin + _TAIL.format(name=name)


def as_dot(edges: Mapping[str, Sequence[str]]) -> str:
    """Return the graph for graphviz: arrows from recipes to their build dependencies."""
    lines = [f'  "{name}" -> "{other}";' for name in sorted(edges) for other in edges[name]]
    return "\n".join(["digraph packages {", "  rankdir=LR;", *(f'  "{n}";' for n in sorted(edges)), *lines, "}"]) + "\n"


def as_mermaid(edges: Mapping[str, Sequence[str]]) -> str:
    """Return the graph for mermaid in Markdown."""
    numbers = {name: f"p{number}" for number, name in enumerate(sorted(edges))}
    nodes = [f'  {numbers[name]}["{name}"]' for name in sorted(edges)]
    lines = [f"  {numbers[name]} --> {numbers[other]}" for name in sorted(edges) for other in edges[name]]
    return "\n".join(["```mermaid", "graph LR", *nodes, *lines, "```"]) + "\n"
