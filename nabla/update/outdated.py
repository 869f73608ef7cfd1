# SPDX-License-Identifier: Apache-2.0
"""Find newer versions of recipes at their origins.

Debian is queried by source package, in the origin's suite and in later ones; the Python index for wheels of the same
Python version and platform; upstream's server for the listing of the file's folder. An origin that does not answer, or
has no listing, is reported, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nabla.core.errors import FetchError, NablaError, OfflineError
from nabla.sources import apt, recipe
from nabla.sources.origins import pypi
from nabla.sources.recipe import DebianOrigin, DebOrigin, Origin, PypiOrigin, Recipe, UrlOrigin
from nabla.sources.store import is_offline

# Debian's suites, oldest first.
SUITES = ("bookworm", "trixie", "forky", "sid")


@dataclass(frozen=True)
class Answer:
    """The answer of one origin about one recipe. `newest`: empty if there is no newer version, or a `problem`."""

    recipe: str
    current: str
    where: str
    newest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class DebianName:
    """The source package of an origin in Debian. `version`: without epoch and revision."""

    package: str
    version: str
    suite: str


def query(names: Sequence[str]) -> list[Answer]:
    """Query all origins of these recipes. Raises `OfflineError`, and `FetchError` if no origin answers."""
    if is_offline():
        raise OfflineError("connections are forbidden (offline), so no origin can be queried", "unset NABLA_OFFLINE")
    origins = [
        (loaded, origin) for loaded in map(recipe.load, names) for source in loaded.source for origin in source.origin
    ]
    answers = [*_query_debian(origins), *_query_others(origins)]
    if answers and all(answer.problem for answer in answers):
        reasons = dict.fromkeys(f"{answer.where}: {answer.problem}" for answer in answers)
        raise FetchError("no origin listed its versions", "\n".join(reasons))
    # By recipe; the order of suites stays.
    return sorted(dict.fromkeys(answers), key=lambda answer: answer.recipe)


def debian_name(origin: DebianOrigin | DebOrigin) -> DebianName:
    """Return the source package of an origin; for a path in the pool (pool/main/x/PACKAGE/…) in the oldest suite."""
    if isinstance(origin, DebianOrigin):
        return DebianName(origin.package, apt.upstream_version(origin.version), origin.suite)
    version = re.sub(r"\.orig\.tar\.\w+$|\.deb$", "", origin.file).split("_")[1]
    version = version if ".orig." in origin.file else apt.upstream_version(version)
    return DebianName(PurePosixPath(origin.pool).parent.name, version, SUITES[0])


def later_suites(suite: str) -> tuple[str, ...]:
    """Return a suite and the later ones; an unknown suite alone."""
    return SUITES[SUITES.index(suite) :] if suite in SUITES else (suite,)


def newest_listed(page: str, file: str, version: str) -> str:
    """Return the newest version in a page with names like `file`, which has `version`; "" if there is none.

    Versions consist of numbers and separators; those with letters (rc1) are ignored.
    """
    head, separator, tail = file.partition(version)
    if not separator:
        return ""
    numbers = re.escape(head) + r"(\d+(?:[._-]\d+)*)" + re.escape(tail) + r"(?![.\w])"
    return max(set(re.findall(r"(?<![\w.-])" + numbers, page)), key=_numbers, default="")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _query_debian(origins: Sequence[tuple[Recipe, Origin]]) -> Iterator[Answer]:
    """Query each suite once for all source packages."""
    wanted = [
        (loaded.name, debian_name(origin)) for loaded, origin in origins if isinstance(origin, DebianOrigin | DebOrigin)
    ]
    for suite in dict.fromkeys(suite for _, known in wanted for suite in later_suites(known.suite)):
        queried = [(name, known) for name, known in wanted if suite in later_suites(known.suite)]
        where = f"Debian {suite}"
        try:
            packages = apt.source_packages(suite, sorted({known.package for _, known in queried}), "outdated")
        except NablaError as error:
            yield from (Answer(name, known.version, where, problem=error.message) for name, known in queried)
            continue
        for name, known in queried:
            has = next((each.upstream for each in packages if each.name == known.package), None)
            if has is None:
                yield Answer(name, known.version, where, problem=f"it has no source package {known.package}")
            else:
                newer = apt.compare(has, known.version) > 0
                yield Answer(name, known.version, where, has if newer else "")


def _query_others(origins: Sequence[tuple[Recipe, Origin]]) -> Iterator[Answer]:
    for loaded, origin in origins:
        match origin:
            case PypiOrigin():
                yield _query_pypi(loaded.name, origin)
            case UrlOrigin():
                yield _query_upstream(loaded, origin)


def _query_pypi(name: str, origin: PypiOrigin) -> Answer:
    try:
        newest = pypi.versions(origin)[0]
    except NablaError as error:
        return Answer(name, origin.version, "PyPI", problem=error.message)
    # pip sorts them: a different first version is newer.
    return Answer(name, origin.version, "PyPI", "" if newest == origin.version else newest)


def _query_upstream(loaded: Recipe, origin: UrlOrigin) -> Answer:
    # Imported when needed: requests takes longer to load than doit itself.
    from nabla.sources.origins import url

    name, current = loaded.name, loaded.version
    folder = origin.url[0].split("?")[0].rpartition("/")[0] + "/"
    where = re.sub(r"^https?://([^/:]+).*", r"\1", folder)
    try:
        page = url.listing(folder)
    except NablaError as error:
        return Answer(
            name, current, where, problem=error.message.removeprefix(f"{where}: ").removesuffix(" (not tried again)")
        )
    # The file's own spelling of the version: 6.5-20250216, R_2_8_3.
    spelled = re.search(r"\d+(?:[._-]\d+)+", origin.file)
    newest = newest_listed(page, origin.file, spelled[0]) if spelled else ""
    if not spelled or not newest:
        return Answer(name, current, where, problem="it lists no files with that name")
    newer = _numbers(newest) > _numbers(spelled[0])
    return Answer(name, current, where, newest if newer else "")


def rows(answers: Sequence[Answer]) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: recipe, its version, newest version, origin; one row for a recipe without a newer
    version."""
    lines = []
    for name in dict.fromkeys(answer.recipe for answer in answers):
        here = [answer for answer in answers if answer.recipe == name]
        # A version in several suites is listed once, for the first of them.
        newer: dict[str, Answer] = {}
        for answer in here:
            if answer.newest:
                newer.setdefault(answer.newest, answer)
        answered = [answer.where for answer in here if not answer.problem]
        if newer:
            lines += [(name, each.current, each.newest, each.where) for each in newer.values()]
        elif answered:
            lines.append((name, here[0].current, "-", ", ".join(dict.fromkeys(answered))))
        else:
            lines.append((name, here[0].current, "?", "no answer"))
    return lines


def problems(answers: Sequence[Answer]) -> list[str]:
    """Return a line for each origin without an answer, with the reason and the recipes."""
    reasons: dict[str, list[str]] = {}
    for answer in answers:
        if answer.problem:
            reasons.setdefault(f"{answer.where}: {answer.problem}", []).append(answer.recipe)
    return [f"{reason} ({', '.join(names)})" for reason, names in sorted(reasons.items())]
