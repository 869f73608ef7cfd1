# SPDX-License-Identifier: Apache-2.0
"""Rules for recipes with packages, beyond what the schema demands.

A rule yields a sentence for each violation. `EXCEPTIONS` lists accepted violations, each with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from license_expression import ExpressionError, get_spdx_licensing  # type: ignore[import-untyped]

from nabla.core.paths import TESTS
from nabla.packages import builder
from nabla.sources.recipe import DebianOrigin, PackageRecipe, PypiOrigin, UrlOrigin

# The sandbox has no network and no root; a package owns only system folders.
_FORBIDDEN = {
    r"\b(curl|wget|git (clone|fetch|pull)|pip3? (install|download)|npm)\b": "builds have no network: add a source",
    r"\b(sudo|chown|chgrp)\b": "root owns all files of packages; image descriptions set other owners",
    r"/usr/local\b": "packages use /usr",
    r"\bmake\b.*-j ?[0-9]": '-j"$JOBS" is the number of processes',
    r"-march=native|-mtune=native": "results must not depend on the host's processor",
    r"\bldconfig\b": "musl has no cache of libraries",
}
_SUMMARY = 100


@dataclass(frozen=True)
class Finding:
    """A violation of one rule. `component`: a recipe or a package; `sentence`: what is wrong."""

    component: str
    rule: str
    sentence: str


def _license(loaded: PackageRecipe) -> Iterator[str]:
    try:
        unknown = get_spdx_licensing().unknown_license_keys(loaded.license)
    except ExpressionError as error:
        yield f"{loaded.license!r} is not an SPDX expression: {error}"
        return
    if unknown:
        yield f"SPDX has no license {', '.join(map(str, unknown))}"


def _summary(loaded: PackageRecipe) -> Iterator[str]:
    text = loaded.summary
    if len(text) > _SUMMARY:
        yield f"the summary has {len(text)} characters, more than {_SUMMARY}"
    if text.endswith((".", "!")) or text != text.strip() or not (text[0].isupper() or text[0].isdigit()):
        yield "a summary starts with a capital and ends without a full stop"
    if "WHAT IT IS" in text:
        yield "the summary is that of the template"


def _homepage(loaded: PackageRecipe) -> Iterator[str]:
    if loaded.homepage is None:
        yield "the key `homepage` is missing"
    elif "HOMEPAGE" in loaded.homepage:
        yield "the homepage is that of the template"


def _sources(loaded: PackageRecipe) -> Iterator[str]:
    for source in loaded.source:
        for origin in source.origin:
            if set(origin.sha256) == {"0"}:
                yield f"source {source.name}: the sha256 is that of the template"
            if isinstance(origin, UrlOrigin):
                for address in origin.url:
                    if not address.startswith("https://") and origin.signature is None:
                        yield f"source {source.name}: {address} is neither encrypted nor signed"


def _versions(loaded: PackageRecipe) -> Iterator[str]:
    """The name of the first source contains the recipe's version; otherwise an update forgot one of them."""
    digits = re.findall(r"\d+", loaded.version)
    for origin in loaded.source[0].origin:
        text = origin.url[0] if isinstance(origin, UrlOrigin) else origin.file
        if isinstance(origin, DebianOrigin | UrlOrigin | PypiOrigin) and not _in_order(digits, text):
            yield f"the version {loaded.version} is not in the name {text}"


def _in_order(numbers: list[str], text: str) -> bool:
    # Adjacent digits would form another number: 1.2 is not the version of x-11.20.
    return re.search(r"(?<!\d)" + r"\D*".join(map(re.escape, numbers)) + r"(?!\d)", text) is not None


def _scripts(loaded: PackageRecipe) -> Iterator[str]:
    for step in builder.STEPS:
        for line in getattr(loaded.package, step).splitlines():
            for pattern, reason in _FORBIDDEN.items():
                if not line.lstrip().startswith("#") and re.search(pattern, line):
                    yield f"{step}: {line.strip()!r}: {reason}"


def _files(loaded: PackageRecipe) -> Iterator[str]:
    """A file that no step and no script of a package mentions has no effect, or was forgotten."""
    text = loaded.path.read_text(encoding="utf-8")
    for path in builder.extra_files(loaded):
        if path.name not in text:
            yield f"nothing uses the file {path.name}"


def _tests(loaded: PackageRecipe) -> Iterator[str]:
    if not (TESTS / "packages" / f"{loaded.name}.toml").is_file():
        yield f"tests/packages/{loaded.name}.toml is missing: each package is tested in a VM"


RULES: Mapping[str, Callable[[PackageRecipe], Iterator[str]]] = {
    "license": _license,
    "summary": _summary,
    "homepage": _homepage,
    "sources": _sources,
    "version": _versions,
    "scripts": _scripts,
    "files": _files,
    "tests": _tests,
}

# (recipe, rule) -> the reason why the violation is accepted.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("luajit", "version"): "Debian names its archive after the commit of OpenResty's branch",
}


def examine(loaded: PackageRecipe) -> Iterator[Finding]:
    """Yield the violations of a recipe."""
    for rule, find in RULES.items():
        if (loaded.name, rule) not in EXCEPTIONS:
            yield from (Finding(loaded.name, rule, sentence) for sentence in find(loaded))
