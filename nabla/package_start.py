# SPDX-License-Identifier: Apache-2.0
"""The start of a new recipe, and the graph of all: what helps packagers and decides no bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nabla import apt, log, recipe, store
from nabla.errors import NablaError, RecipeError
from nabla.fetch import is_offline
from nabla.paths import cache_dir

SUITES = ("trixie", "bookworm")
_LINE = re.compile(r"'\S+' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")

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


@dataclass(frozen=True)
class Found:
    """A tarball of a source package in Debian's archive."""

    suite: str
    package: str
    version: str
    file: str
    size: int
    sha256: str


def look_up(name: str, version: str) -> Found | None:
    """Return where Debian's archive has that source; None where it has not, or nobody may ask."""
    if is_offline():
        log.info("offline: Debian's archive is not asked for the source")
        return None
    for suite in SUITES:
        archive = apt.Apt(cache_dir() / "apt" / f"{suite}-src", suite, kind="deb-src")
        try:
            with store.lock(archive.directory / "lock", f"{name}: waiting for another apt"):
                archive.update()
                printed = archive.newest_source(name)
        except NablaError as error:
            log.info(f"Debian {suite}: {error.message}")
            continue
        found = _choose(printed, suite, name, version)
        if found is not None:
            return found
    return None


def _choose(printed: str, suite: str, name: str, version: str) -> Found | None:
    """Take the upstream tarball out of what apt prints about a source package, if it is of that version."""
    lines = [match for match in map(_LINE.fullmatch, printed.splitlines()) if match]
    full = next((m["file"].removesuffix(".dsc").split("_", 1)[1] for m in lines if m["file"].endswith(".dsc")), None)
    for match in lines:
        if re.search(r"\.orig\.tar\.\w+$", match["file"]) and full is not None and version in full:
            return Found(suite, name, full, match["file"], int(match["size"]), match["sha256"])
    return None


def render(name: str, version: str, found: Found | None) -> str:
    """Return the text of a recipe to be completed. Raises `RecipeError` for a name or version that cannot be."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", name):
        raise RecipeError(f"{name!r} cannot be the name of a package", "lower-case letters, digits, + . -")
    if not re.fullmatch(recipe.APK_VERSION, version):
        raise RecipeError(f"{version!r} is no version that apk could compare", "such as 1.2.3 or 6.5_p20250216")
    if found is not None:
        origin = _DEBIAN.format(
            suite=found.suite,
            package=found.package,
            version=found.version,
            file=found.file,
            sha256=found.sha256,
            size=found.size,
        )
    else:
        origin = _URL.format(name=name, version=version, zeros="0" * 64)
    return _HEAD.format(name=name, version=version) + origin + _TAIL.format(name=name)


def as_dot(edges: Mapping[str, Sequence[str]]) -> str:
    """Return the graph for graphviz: an arrow from what is built to what it is built against."""
    lines = [f'  "{name}" -> "{other}";' for name in sorted(edges) for other in edges[name]]
    return "\n".join(["digraph packages {", "  rankdir=LR;", *(f'  "{n}";' for n in sorted(edges)), *lines, "}"]) + "\n"


def as_mermaid(edges: Mapping[str, Sequence[str]]) -> str:
    """Return the same as mermaid in Markdown."""
    numbers = {name: f"p{number}" for number, name in enumerate(sorted(edges))}
    nodes = [f'  {numbers[name]}["{name}"]' for name in sorted(edges)]
    lines = [f"  {numbers[name]} --> {numbers[other]}" for name in sorted(edges) for other in edges[name]]
    return "\n".join(["```mermaid", "graph LR", *nodes, *lines, "```"]) + "\n"
