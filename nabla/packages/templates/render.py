# SPDX-License-Identifier: Apache-2.0
"""The template of a new recipe, and the graph of build dependencies; neither affects artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nabla.core import log
from nabla.core.errors import FetchError, NablaError, RecipeError
from nabla.packages.templates import steps, survey
from nabla.packages.templates.steps import Steps
from nabla.packages.templates.survey import Survey
from nabla.sources import apt, fetch, recipe
from nabla.sources.apt import SourcePackage
from nabla.sources.recipe import DebianOrigin, Source
from nabla.sources.store import is_offline

SUITES = ("trixie", "bookworm")

_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
name = "{name}"
version = "{version}"
license = {license}
summary = {summary}
homepage = {homepage}

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
# Without a source to look into.
_UNKNOWN = Steps(
    './configure --build=$CBUILD --host=$CHOST --prefix=/usr --sysconfdir=/etc --localstatedir=/var\nmake -j"$JOBS"',
    'make install DESTDIR="$DESTDIR"',
)


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
        package = choose(packages, version)
        if package is not None:
            return package
    return None


def look_into(package: SourcePackage) -> Survey | None:
    """Fetch the source and Debian's packaging of it, and read both.

    Return None if the source cannot be fetched, or if the package is native and has no tarball of upstream.
    """
    tarball = _fetch(package, package.tarball.name) if package.tarball is not None else None
    if tarball is None:
        return None
    return survey.read(tarball, next(filter(None, map(_packaging, _versions(package))), None))


def _versions(package: SourcePackage) -> Iterator[SourcePackage]:
    """Yield the package and its other versions in Debian, which describe it as well."""
    yield package
    for suite in SUITES:
        try:
            yield from apt.source_packages(suite, [package.name], package.name)
        except NablaError:
            continue


def _packaging(package: SourcePackage) -> Path | None:
    name = next((name for name in package.files if re.search(r"\.debian\.tar\.\w+$", name)), None)
    return _fetch(package, name) if name else None


def _fetch(package: SourcePackage, name: str) -> Path | None:
    file = package.files[name]
    origin = DebianOrigin(
        suite=package.suite,
        package=package.name,
        version=package.version,
        file=name,
        sha256=file.sha256,
        size=file.size,
    )
    try:
        return fetch.fetch(Source(name=package.name, origin=(origin,)))
    except FetchError as error:
        log.info(f"{name} cannot be fetched: {error.message}")
        return None


def check_names(name: str, version: str) -> None:
    """Raise `RecipeError` for a name or a version that no package can have."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", name):
        raise RecipeError(f"{name!r} cannot be the name of a package", "lower-case letters, digits, + . -")
    if not re.fullmatch(recipe.APK_VERSION, version):
        raise RecipeError(f"{version!r} is not a version that apk can compare", "such as 1.2.3 or 6.5_p20250216")


def choose(packages: Sequence[SourcePackage], version: str) -> SourcePackage | None:
    """Return the first package with upstream's version and tarball."""
    return next((each for each in packages if version in each.upstream and each.tarball), None)


def render(
    name: str,
    version: str,
    package: SourcePackage | None,
    seen: Survey | None = None,
    known: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the text of the template. Raises `RecipeError` for an invalid name or version.

    `seen`: the survey of the source. `known`: the packages of this repository.
    """
    check_names(name, version)
    if package is not None and package.tarball is not None:
        origin = _DEBIAN.format(
            suite=package.suite,
            package=package.name,
            version=package.version,
            file=package.tarball.name,
            sha256=package.tarball.sha256,
            size=package.tarball.size,
        )
    else:
        origin = _URL.format(name=name, version=version, zeros="0" * 64)
    source = seen or Survey(frozenset(), {}, {})
    head = _HEAD.format(
        name=name,
        version=version,
        license=_quoted(source.license or "LICENSE"),
        summary=_quoted(source.summary or "WHAT IT IS AND WHAT FOR"),
        homepage=_quoted(source.homepage or "https://HOMEPAGE/"),
    )
    return head + origin + _package(name, seen, known)


def _package(name: str, seen: Survey | None, known: Mapping[str, str]) -> str:
    """Return the table [package]."""
    chosen = steps.of(name, seen) if seen is not None else _UNKNOWN
    libraries, missing = survey.libraries(seen.build_depends if seen is not None else (), known)
    lines = ["", "[package]", "# Packages that it is compiled against, and those that it needs beside libraries."]
    if missing:
        lines.append(f"# Debian also builds it against {', '.join(missing)}, which no recipe makes.")
    lines.append(f"makedepends = {_list([*libraries, *chosen.makedepends])}")
    lines.append(f"depends = {_list(chosen.depends)}")
    if chosen.note:
        lines.append(f"# {chosen.note}")
    for key in ("prepare", "build", "package"):
        script = getattr(chosen, key)
        if script:
            # Literal: backslashes and quotation marks are the shell's.
            lines += [f"{key} = '''", script, "'''"]
    if seen is None or seen.is_library:
        lines += ["", "[[package.subpackage]]", f'name = "{name}-dev"']
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a basic string of TOML."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "")


def _list(words: Sequence[str]) -> str:
    return json.dumps(list(words))


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
