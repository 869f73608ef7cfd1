# SPDX-License-Identifier: Apache-2.0
"""Find build system, license, purpose, site and libraries of a new package in its source.

Debian's packaging of it (debian/control, debian/copyright) is read too, if it exists. Archives are read, never
unpacked. The results are a starting point for the packager, who corrects them in the recipe; they do not affect
artifacts.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import tomllib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core.errors import RecipeError
from nabla.sources import deb822

# The first of these at the top of a source decides how it is built.
SYSTEMS = (
    "configure",
    "configure.ac",
    "configure.in",
    "CMakeLists.txt",
    "meson.build",
    "Cargo.toml",
    "pyproject.toml",
    "go.mod",
    "GNUmakefile",
    "makefile",
    "Makefile",
)
_LICENSES = re.compile(r"(?:COPYING|LICEN[CS]E|UNLICENSE)(?:[._-].*)?|copyright", re.IGNORECASE)
_PACKAGING = ("debian/control", "debian/copyright")
_MOST = 200_000  # bytes of a file that are read
_MEMBERS = 200_000  # of an archive

# Debian's short names (debian/copyright) -> SPDX.
_SPDX = {
    "expat": "MIT",
    "mit": "MIT",
    "isc": "ISC",
    "zlib": "Zlib",
    "apache-2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "mpl-2.0": "MPL-2.0",
    "cc0-1.0": "CC0-1.0",
    "artistic": "Artistic-1.0",
    "curl": "curl",
}
_GNU = re.compile(r"(A?GPL|LGPL|GFDL)-(\d)(?:\.(\d))?(\+?)", re.IGNORECASE)
# Sentences of license texts, the more specific first.
_TEXTS = (
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1", "LGPL-2.1-or-later"),
    (r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3", "LGPL-3.0-or-later"),
    (r"GNU AFFERO GENERAL PUBLIC LICENSE\s+Version 3", "AGPL-3.0-or-later"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 3", "GPL-3.0-or-later"),
    (r"GNU GENERAL PUBLIC LICENSE\s+Version 2", "GPL-2.0-or-later"),
    (r"Apache License\s+Version 2\.0", "Apache-2.0"),
    (r"Mozilla Public License,? [Vv]ersion 2\.0", "MPL-2.0"),
    (r"Permission is hereby granted, free of charge", "MIT"),
    (r"Permission to use, copy, modify, and(?:/or)? distribute", "ISC"),
    (r"Redistribution and use in source and binary forms(?:.|\n)*Neither the names?", "BSD-3-Clause"),
    (r"Redistribution and use in source and binary forms", "BSD-2-Clause"),
    (r"This is free and unencumbered software", "Unlicense"),
)
# Debian's names of -dev packages that differ from the project's by more than a `lib` or a number.
_LIBRARIES = {
    "libssl-dev": "openssl-dev",
    "zlib1g-dev": "zlib-dev",
    "libz-dev": "zlib-dev",
    "liblzma-dev": "xz-dev",
    "libcurl4-dev": "curl-dev",
    "libcurl4-openssl-dev": "curl-dev",
    "libcurl4-gnutls-dev": "curl-dev",
    "libsqlite3-dev": "sqlite-dev",
}

# Names of that form that are tools of Debian.
_TOOLS = {"autotools-dev", "dpkg-dev"}


@dataclass(frozen=True)
class Survey:
    """The results. `files`: paths in the source, its leading folder left out; `texts`: some of their contents."""

    files: frozenset[str]
    texts: Mapping[str, str]
    packaging: Mapping[str, str]

    @property
    def system(self) -> str:
        """Return the file that decides how the source is built; empty if there is none."""
        return next((name for name in SYSTEMS if name in self.files), "")

    @property
    def text(self) -> str:
        """Return the content of that file."""
        return self.texts.get(self.system, "")

    @property
    def is_library(self) -> bool:
        """Whether it installs files to compile against."""
        if any(re.fullmatch(r"[^/]+\.pc(\.in|\.cmake)?", name) for name in self.files):
            return True
        return any(re.search(pattern, text, re.MULTILINE) for pattern, text in self._library_rules())

    def _library_rules(self) -> Iterator[tuple[str, str]]:
        for name, text in self.texts.items():
            if name.endswith((".am", ".ac", ".in")):
                yield r"lib_LTLIBRARIES|^LT_INIT", text
            elif name == "CMakeLists.txt":
                yield r"^[^#\n]*\badd_library\s*\(", text
            elif name == "meson.build":
                yield r"^[^#\n]*\b(?:shared_|both_)?library\s*\(", text

    @property
    def license(self) -> str:
        """Return an SPDX expression; empty if the source names no license."""
        paragraphs = deb822.paragraphs(self.packaging.get("debian/copyright", ""))
        main = next((each["license"] for each in paragraphs if each.get("files") == "*" and "license" in each), "")
        project = self._project.get("license", "")
        stated = project if isinstance(project, str) else ""
        if not main and self.system == "meson.build":
            stated = (re.findall(r"^\s*license\s*:\s*\[?\s*'([^']+)'", self.text, re.MULTILINE) or [""])[0]
        return spdx(main.splitlines()[0] if main else "") or stated or self._license_of_text()

    @property
    def summary(self) -> str:
        """Return a line about its purpose; empty if the source has none."""
        control = deb822.paragraphs(self.packaging.get("debian/control", ""))
        source = control[0].get("source", "") if control else ""
        programs = [each for each in control[1:] if not each.get("package", "").endswith(("-dev", "-doc", "-dbg"))]
        own = [each for each in programs if each.get("package") == source]
        described = next((each["description"] for each in [*own, *programs] if "description" in each), "")
        line = described.splitlines()[0] if described else str(self._project.get("description", ""))
        line = " ".join(line.split()).rstrip(".")
        return line[:1].upper() + line[1:]

    @property
    def homepage(self) -> str:
        """Return upstream's site; empty if the source does not name it."""
        control = deb822.paragraphs(self.packaging.get("debian/control", ""))
        links = self._project.get("urls", {})
        own = {str(key).lower(): str(value) for key, value in links.items()} if isinstance(links, dict) else {}
        site = control[0].get("homepage", "") if control else ""
        for name in ("homepage", "repository", "source"):
            site = site or str(self._project.get(name, "")) or own.get(name, "")
        return site if re.fullmatch(r"https?://[^\s\"\\]+", site) else ""

    @property
    def build_depends(self) -> tuple[str, ...]:
        """Return the libraries that Debian builds it against, by Debian's names of the packages."""
        control = deb822.paragraphs(self.packaging.get("debian/control", ""))
        field = control[0].get("build-depends", "") if control else ""
        alternatives = [part.split("|")[0].split() for part in field.replace("\n", " ").split(",") if part.strip()]
        names = [words[0].split(":")[0] for words in alternatives if words and "<!nocheck>" not in words]
        return tuple(sorted({name for name in names if re.fullmatch(r"[a-z0-9][a-z0-9+.-]*-dev", name)} - _TOOLS))

    @property
    def _project(self) -> Mapping[str, Any]:
        """Return the table in which pyproject.toml or Cargo.toml describes the project."""
        for name, table in (("pyproject.toml", "project"), ("Cargo.toml", "package")):
            try:
                project = tomllib.loads(self.texts.get(name, "")).get(table)
            except tomllib.TOMLDecodeError:
                continue
            if isinstance(project, dict):
                return project
        return {}

    def _license_of_text(self) -> str:
        texts = [text for name, text in sorted(self.texts.items()) if _LICENSES.fullmatch(name)]
        return next((name for text in texts for pattern, name in _TEXTS if re.search(pattern, text)), "")


def read(tarball: Path, packaging: Path | None = None) -> Survey:
    """Inspect a source archive, and Debian's packaging of it. Raises `RecipeError` if one cannot be read."""
    files, texts = _look(tarball, strip=1)
    return Survey(files, texts, _look(packaging, strip=0)[1] if packaging is not None else {})


def _look(archive: Path, strip: int) -> tuple[frozenset[str], dict[str, str]]:
    files: set[str] = set()
    texts: dict[str, str] = {}
    try:
        with tarfile.open(archive) as tar:
            for number, member in enumerate(tar):
                if number >= _MEMBERS:
                    break
                name = "/".join(member.name.removeprefix("./").split("/")[strip:])
                if not name or not member.isfile():
                    continue
                files.add(name)
                if name in (*SYSTEMS, *_PACKAGING) or _LICENSES.fullmatch(name) or name.endswith("Makefile.am"):
                    stream = tar.extractfile(member)
                    texts[name] = stream.read(_MOST).decode(errors="replace") if stream is not None else ""
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as error:
        raise RecipeError(f"{archive.name}: the archive cannot be read: {error}") from error
    return frozenset(files), texts


def spdx(short: str) -> str:
    """Return Debian's words for a license as an SPDX expression; empty if one of them is unknown."""
    parts = re.split(r",?\s+(and|or)\s+", short.strip())
    names = [part if part in ("and", "or") else _spdx_name(part) for part in parts]
    if not all(names):
        return ""
    # `and` binds more tightly in both languages.
    return " ".join(name.upper() if name in ("and", "or") else name for name in names)


def _spdx_name(name: str) -> str:
    match = _GNU.fullmatch(name)
    if match:
        kind, major, minor, later = match.groups()
        return f"{kind.upper()}-{major}.{minor or '0'}-{'or-later' if later else 'only'}"
    return _SPDX.get(name.lower(), "")


def libraries(wanted: Sequence[str], known: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the packages of this repository for Debian's -dev packages, and the names that have none."""
    names, missing = set(), []
    for name in wanted:
        bare = name.removeprefix("lib")
        unnumbered = re.sub(r"\d+-dev$", "-dev", bare)
        candidates = (_LIBRARIES.get(name, name), name, bare, unnumbered, f"lib{unnumbered}")
        match = next((each for each in candidates if each in known), None)
        if match is None:
            missing.append(name)
        else:
            names.add(match)
    return sorted(names), missing
