# SPDX-License-Identifier: Apache-2.0
"""Which versions the origins of recipes have that are newer than ours.

Debian is asked by the source package, in the origin's own suite and in later ones; the Python index for wheels that fit
the same Python and platform; upstream's server for the page of the folder that our file lies in. An origin that does
not answer, or has no list, is an answer too: nothing is silently taken for up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nabla.core.errors import FetchError, NablaError, OfflineError
from nabla.sources import apt, recipe
from nabla.sources.origins import pypi
from nabla.sources.recipe import DebianOrigin, DebOrigin, Origin, PypiOrigin, UrlOrigin
from nabla.sources.store import is_offline

# Debian's suites, oldest first.
SUITES = ("bookworm", "trixie", "forky", "sid")


@dataclass(frozen=True)
class Answer:
    """What one place said about one recipe: `newest` is empty where it has nothing newer, or where `problem` is set."""

    recipe: str
    ours: str
    where: str
    newest: str = ""
    problem: str = ""


@dataclass(frozen=True)
class DebianName:
    """How Debian calls the source of an origin: `version` without epoch and revision."""

    package: str
    version: str
    suite: str


def ask(names: Sequence[str]) -> list[Answer]:
    """Ask all origins of these recipes. Raises `OfflineError`, and `FetchError` when none gave any answer."""
    if is_offline():
        raise OfflineError(
            "connections are forbidden (offline), so nobody can be asked for newer versions", "unset NABLA_OFFLINE"
        )
    origins = [(name, origin) for name in names for source in recipe.load(name).source for origin in source.origin]
    answers = [*_ask_debian(origins), *_ask_others(origins)]
    if answers and all(answer.problem for answer in answers):
        reasons = dict.fromkeys(f"{answer.where}: {answer.problem}" for answer in answers)
        raise FetchError("no origin said which versions it has", "\n".join(reasons))
    # By recipe; within one as asked, older suites first.
    return sorted(dict.fromkeys(answers), key=lambda answer: answer.recipe)


def debian_name(origin: DebianOrigin | DebOrigin) -> DebianName:
    """Return what an origin is called in Debian; for a path in the pool (pool/main/x/PACKAGE/…) the oldest suite."""
    if isinstance(origin, DebianOrigin):
        return DebianName(origin.package, apt.upstream_version(origin.version), origin.suite)
    version = re.sub(r"\.orig\.tar\.\w+$|\.deb$", "", origin.file).split("_")[1]
    version = version if ".orig." in origin.file else apt.upstream_version(version)
    return DebianName(PurePosixPath(origin.pool).parent.name, version, SUITES[0])


def later_suites(suite: str) -> tuple[str, ...]:
    """Return a suite and those after it; one that we do not know stands alone."""
    return SUITES[SUITES.index(suite) :] if suite in SUITES else (suite,)


def newest_listed(page: str, file: str, version: str) -> str:
    """Return the newest version in a page that names files like `file`, which is of `version`; "" where it names none.

    Versions are numbers with the same signs between them; those with letters (rc1) are passed over.
    """
    head, found, tail = file.partition(version)
    if not found:
        return ""
    numbers = re.escape(head) + r"(\d+(?:[._-]\d+)*)" + re.escape(tail) + r"(?![.\w])"
    return max(set(re.findall(r"(?<![\w.-])" + numbers, page)), key=_numbers, default="")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _ask_debian(origins: Sequence[tuple[str, Origin]]) -> Iterator[Answer]:
    """Ask each suite once for all source packages."""
    wanted = [(name, debian_name(origin)) for name, origin in origins if isinstance(origin, DebianOrigin | DebOrigin)]
    for suite in dict.fromkeys(suite for _, known in wanted for suite in later_suites(known.suite)):
        asked = [(name, known) for name, known in wanted if suite in later_suites(known.suite)]
        where = f"Debian {suite}"
        try:
            packages = apt.source_packages(suite, sorted({known.package for _, known in asked}), "outdated")
        except NablaError as error:
            yield from (Answer(name, known.version, where, problem=error.message) for name, known in asked)
            continue
        for name, known in asked:
            has = next((each.upstream for each in packages if each.name == known.package), None)
            if has is None:
                yield Answer(name, known.version, where, problem=f"it has no source package {known.package}")
            else:
                newer = apt.compare(has, known.version) > 0
                yield Answer(name, known.version, where, has if newer else "")


def _ask_others(origins: Sequence[tuple[str, Origin]]) -> Iterator[Answer]:
    for name, origin in origins:
        match origin:
            case PypiOrigin():
                yield _ask_pypi(name, origin)
            case UrlOrigin():
                yield _ask_upstream(name, origin)


def _ask_pypi(name: str, origin: PypiOrigin) -> Answer:
    try:
        newest = pypi.versions(origin)[0]
    except NablaError as error:
        return Answer(name, origin.version, "PyPI", problem=error.message)
    # pip sorts them: another one in front is a newer one.
    return Answer(name, origin.version, "PyPI", "" if newest == origin.version else newest)


def _ask_upstream(name: str, origin: UrlOrigin) -> Answer:
    # Imported when needed: requests takes longer to load than doit itself.
    from nabla.sources.origins import url

    ours = recipe.load(name).version
    folder = origin.url[0].split("?")[0].rpartition("/")[0] + "/"
    where = re.sub(r"^https?://([^/:]+).*", r"\1", folder)
    try:
        page = url.listing(folder)
    except NablaError as error:
        return Answer(
            name, ours, where, problem=error.message.removeprefix(f"{where}: ").removesuffix(" (not tried again)")
        )
    # The file's own spelling of the version: 6.5-20250216, R_2_8_3.
    spelled = re.search(r"\d+(?:[._-]\d+)+", origin.file)
    newest = newest_listed(page, origin.file, spelled[0]) if spelled else ""
    if not spelled or not newest:
        return Answer(name, ours, where, problem="it lists no files of that name")
    newer = _numbers(newest) > _numbers(spelled[0])
    return Answer(name, ours, where, newest if newer else "")


def rows(answers: Sequence[Answer]) -> list[tuple[str, str, str, str]]:
    """Return the lines of the table: recipe, our version, the newest of a place, the place; one without news for each
    recipe that has none."""
    lines = []
    for name in dict.fromkeys(answer.recipe for answer in answers):
        here = [answer for answer in answers if answer.recipe == name]
        # A version that stands in several suites is told once, for the first of them.
        news: dict[str, Answer] = {}
        for answer in here:
            if answer.newest:
                news.setdefault(answer.newest, answer)
        heard = [answer.where for answer in here if not answer.problem]
        if news:
            lines += [(name, each.ours, each.newest, each.where) for each in news.values()]
        elif heard:
            lines.append((name, here[0].ours, "-", ", ".join(dict.fromkeys(heard))))
        else:
            lines.append((name, here[0].ours, "?", "nobody answered"))
    return lines


def problems(answers: Sequence[Answer]) -> list[str]:
    """Return a line for each place and reason why it told nothing, with the recipes that it concerns."""
    reasons: dict[str, list[str]] = {}
    for answer in answers:
        if answer.problem:
            reasons.setdefault(f"{answer.where}: {answer.problem}", []).append(answer.recipe)
    return [f"{reason} ({', '.join(names)})" for reason, names in sorted(reasons.items())]
