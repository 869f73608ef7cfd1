# SPDX-License-Identifier: Apache-2.0
"""The full texts of all licenses, from the locked archives of the components, and a list of them.

    licenses/<recipe>/…        texts in the archives of a recipe
    licenses/standard/<name>   texts by SPDX name, for Alpine's binary packages, which contain no texts

A text is recognized by its name (LICENSE, COPYING, NOTICE …) or listed in a recipe's `license_files`. The result cache
stores the texts of an archive, so that a kernel is not unpacked again for a few files.
"""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from nabla.core import files, manifest
from nabla.core.errors import NablaError
from nabla.core.paths import ROOT, cache_dir
from nabla.engine import code, result_cache
from nabla.sandbox import buildroot, deb, lockfile
from nabla.sbom.inventory import Inventory, license_names, spdx_expression
from nabla.sources import recipe
from nabla.sources.archives import fetched
from nabla.sources.recipe import Recipe
from verify.epoch import SOURCE_DATE_EPOCH

_NAME = re.compile(r"(un)?licen[cs]e|copying|copyright|notice", re.IGNORECASE)
_NO_TEXT = (".py", ".sh", ".pm", ".h", ".c", ".in", ".tex", ".texi", ".xml", ".html", ".rtf", ".tpl", ".diff")
# Folders that are not packaged: documentation, tests, build tools, files for other systems.
_IGNORED = {
    *("doc", "docs", "documentation", "examples", "test", "tests", "testsuite"),
    *("build", "build-aux", "cmake", "contrib", "debian", "external", "mac", "package", "tools"),
}
_DEB = b"!<arch>\n"

# SPDX name -> its standard text: a package of the build root or a recipe, and the path in its archive.
_COMMON = "usr/share/common-licenses/"
STANDARD: dict[str, tuple[str, str]] = {
    "0BSD": ("xz", "COPYING.0BSD"),
    "Apache-2.0": ("base-files", f"{_COMMON}Apache-2.0"),
    "BSD-2-Clause": ("linux", "LICENSES/preferred/BSD-2-Clause"),
    "BSD-3-Clause": ("linux", "LICENSES/preferred/BSD-3-Clause"),
    "GPL-1.0-or-later": ("base-files", f"{_COMMON}GPL-1"),
    "GPL-2.0-only": ("base-files", f"{_COMMON}GPL-2"),
    "GPL-2.0-or-later": ("base-files", f"{_COMMON}GPL-2"),
    "GPL-3.0-or-later": ("base-files", f"{_COMMON}GPL-3"),
    "ISC": ("linux", "LICENSES/deprecated/ISC"),
    "LGPL-2.0-or-later": ("base-files", f"{_COMMON}LGPL-2"),
    "LGPL-2.1-or-later": ("base-files", f"{_COMMON}LGPL-2.1"),
    "LGPL-3.0-or-later": ("base-files", f"{_COMMON}LGPL-3"),
    "MIT": ("linux", "LICENSES/preferred/MIT"),
    "MPL-2.0": ("base-files", f"{_COMMON}MPL-2.0"),
    "X11": ("linux", "LICENSES/deprecated/X11"),
    "Zlib": ("linux", "LICENSES/deprecated/Zlib"),
    "curl": ("curl", "COPYING"),
}
# Names in Alpine's license fields without a text, with the reason, which the list states.
NO_STANDARD = {
    "Public-Domain": "no license: public domain",
    "custom": "Alpine's term for a project's own wording; no locked archive contains the text",
    "cryptsetup-OpenSSL-exception": "no locked archive contains the text",
}


class LicenseError(NablaError):
    """The text of a license is missing, or an expression is not an SPDX expression."""


@dataclass(frozen=True)
class Text:
    """One text. `path`: in the archive, without the archive's top folder."""

    path: str
    content: str

    @property
    def file(self) -> str:
        """Name of its file in the folder of texts."""
        return re.sub(r"[^A-Za-z0-9._+-]+", "_", self.path.rsplit("!", 1)[-1])


@dataclass(frozen=True)
class Row:
    """One row of the list. `texts`: paths below the folder of texts."""

    component: str
    version: str
    license: str
    texts: tuple[str, ...]
    remark: str = ""


def write(inventory: Inventory, folder: Path) -> str:
    """Write all texts to `folder` and return the list, a Markdown page for the parent folder.

    Raises `LicenseError` for a component without a text, `FetchError`.
    """
    base = {component.ref for component in inventory.of_kind("base")}
    holders = [c for c in inventory.of_kind("wheel") if base & {*c.contains}]
    built = inventory.of_kind("kernel", "library", "program", "package", "wheel")
    names = {c.origin for c in built if c.origin} - {c.origin for c in holders}
    recipes = [recipe.load(name) for name in sorted(names)]
    rows = []
    with ThreadPoolExecutor(2) as pool:
        for loaded, texts in zip(recipes, pool.map(of_recipe, recipes), strict=True):
            check_expression(loaded.name, loaded.license)
            version = inventory.version if all(s.local for s in loaded.source) else loaded.version
            rows.append(Row(loaded.name, version, loaded.license, _write(texts, folder, loaded.name)))
    standard = _Standard(folder)
    rows += [standard.row(f"{c.name} (the base)", c.version, c.license) for c in holders]
    rows += [standard.row(f"{c.name} (Alpine)", c.version, c.license) for c in inventory.of_kind("base")]
    rows += _bundled(inventory, {row.component: row for row in rows})
    manifest.normalize_metadata(folder, SOURCE_DATE_EPOCH)
    return report(rows)


def of_recipe(loaded: Recipe) -> list[Text]:
    """Return the texts of a recipe's sources without duplicates. Raises `LicenseError` if one is missing, or all."""
    texts: list[Text] = []
    archives = fetched(loaded) if loaded.is_remote else {}
    for source in loaded.source:
        if source.local is not None:
            texts.append(Text("LICENSE", (ROOT / "LICENSE").read_text(encoding="utf-8")))
        else:
            texts += of_archive(archives[source.name], loaded.license_files)
    missing = set(loaded.license_files) - {text.path for text in texts}
    if missing:
        raise LicenseError(f"{loaded.name}: no source contains {min(missing)}, which `license_files` lists")
    if not texts:
        raise LicenseError(
            f"{loaded.name}: its sources contain no license text",
            f"list the files in `license_files` in recipes/{loaded.name}/recipe.toml (docs/sbom.md)",
        )
    once: dict[str, Text] = {}
    for text in sorted(texts, key=lambda each: (each.path.count("/"), each.path)):
        once.setdefault(text.content, text)
    return sorted(once.values(), key=lambda each: each.path)


def of_archive(archive: Path, wanted: Sequence[str] = ()) -> list[Text]:
    """Return the texts in an archive, whose file name is its sha256: those in `wanted`, or all license texts.

    Raises `LicenseError` if it is damaged.
    """
    key = result_cache.key("license texts", archive.name, sorted(wanted), dict(code.closure(__name__)))
    # Two recipes with the same archive may run in parallel.
    with result_cache.lock(key):
        entry = result_cache.find(key)
        if entry is None:
            try:
                texts = [dataclasses.asdict(text) for text in _read(archive, wanted)]
            except (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, EOFError) as error:
                raise LicenseError(f"the archive {archive} cannot be read: {error}") from error
            with files.scratch(cache_dir() / "tmp") as scratch:
                (scratch / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
                entry = result_cache.add(
                    key, f"{archive.name}: license texts", {"texts.json": scratch / "texts.json"}, move=True
                )
    return [Text(**fields) for fields in json.loads((entry / "texts.json").read_text(encoding="utf-8"))]


def check_expression(name: str, text: str) -> None:
    """Raise `LicenseError` if a recipe's license is not an SPDX expression."""
    if spdx_expression(text) is None:
        raise LicenseError(f"{name}: {text!r} is not an SPDX license expression", "see https://spdx.org/licenses/")


def report(rows: Iterable[Row]) -> str:
    """Return the page, with links to the texts in the folder `licenses`."""
    lines = [
        "# Licenses",
        "",
        "All components with their licenses and full texts. The texts of compiled components come from their source",
        "archives. Binary packages of Alpine contain no texts; theirs are the standard texts of the licenses that",
        "Alpine names, without the names of copyright holders.",
        "",
        "| component | version | license | texts |",
        "|---|---|---|---|",
    ]
    for row in rows:
        links = [f"[{path.rsplit('/', 1)[-1]}](licenses/{path})" for path in row.texts]
        cells = (row.component, row.version, row.license, ", ".join([*links, *([row.remark] if row.remark else [])]))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


class _Standard:
    """Standard texts, written on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, str] = {}

    def row(self, component: str, version: str, expression: str) -> Row:
        """Return the row of a component whose license is known only by name. Raises `LicenseError`."""
        names = license_names(expression)
        lacking = [name for name in names if name not in STANDARD]
        unknown = [name for name in lacking if name not in NO_STANDARD]
        if unknown or len(lacking) == len(names):
            name = (unknown or [expression])[0]
            raise LicenseError(
                f"{component}: there is no text of the license {name!r}", "add its path to nabla/sbom/licenses.py"
            )
        remark = "; ".join(f"{name}: {NO_STANDARD[name]}" for name in lacking)
        texts = dict.fromkeys(self._path(name) for name in names if name in STANDARD)
        return Row(component, version, expression, tuple(texts), remark)

    def _path(self, name: str) -> str:
        if name not in self._paths:
            holder, path = STANDARD[name]
            archive, wanted = _holder(holder)
            for text in of_archive(archive, wanted):
                if text.path == path:
                    self._paths[name] = _write([Text(name, text.content)], self._folder, "standard")[0]
                    break
            else:
                raise LicenseError(f"{holder} contains no {path}, the text of {name}")
        return self._paths[name]


def _holder(name: str) -> tuple[Path, Sequence[str]]:
    """Return an archive with standard texts, and the paths of its texts."""
    for file in (lock := lockfile.read_lock()).files:
        if file.name == name:
            (path,) = buildroot.fetch(dataclasses.replace(lock, files=(file,)))
            return path, sorted(p for holder, p in STANDARD.values() if holder == name)
    loaded = recipe.load(name)
    return fetched(loaded)[loaded.source[0].name], loaded.license_files


def _bundled(inventory: Inventory, rows: dict[str, Row]) -> Iterator[Row]:
    """Yield the libraries in wheels: the texts of the wheel contain their licenses."""
    for component in inventory.of_kind("bundled"):
        holder = next(c for c in inventory.of_kind("wheel") if component.ref in c.contains)
        texts = rows[holder.origin or ""].texts[:1]  # the wheel's own text, which lists its libraries
        yield Row(f"{component.name} (in {holder.name})", component.version, "see the wheel", texts)


def _write(texts: Sequence[Text], folder: Path, name: str) -> tuple[str, ...]:
    """Write texts to `folder`/`name`; return their paths below `folder`. Texts with equal names get numbers."""
    files.make_folder(folder / name)
    paths: list[str] = []
    for text in texts:
        path, number = f"{name}/{text.file}", 1
        while path in paths:
            number += 1
            path = f"{name}/{text.file}.{number}"
        (folder / path).write_text(text.content, encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def _read(archive: Path, wanted: Sequence[str]) -> Iterator[Text]:
    with archive.open("rb") as stream:
        head = stream.read(len(_DEB))
    if head == _DEB:
        with deb.data_archive(archive) as tar:
            yield from _read_deb(tar, wanted)
    elif zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as whole:
            for name in sorted(whole.namelist()):
                if not name.endswith("/") and (name in wanted if wanted else _is_license(name)):
                    yield Text(name, _decode(whole.read(name)))
    else:
        with tarfile.open(archive, "r|*") as tar:
            yield from _read_tar(tar, wanted)


def _read_tar(tar: tarfile.TarFile, wanted: Sequence[str], prefix: str = "") -> Iterator[Text]:
    """Yield the texts in a tar with one top folder. Stops after all `wanted` ones."""
    left = set(wanted)
    for member in tar:
        path = "/".join(PurePosixPath(member.name).parts[1:])
        if member.isfile() and (prefix + path in left if wanted else _is_license(path)):
            yield Text(prefix + path, _content(tar, member))
            left.discard(prefix + path)
            if wanted and not left:
                return


def _read_deb(tar: tarfile.TarFile, wanted: Sequence[str]) -> Iterator[Text]:
    """Yield the texts in a Debian package; a path with `!` is in an inner archive."""
    inner = {path.split("!")[0] for path in wanted if "!" in path}
    for member in tar:
        path = member.name.removeprefix("./")
        if not member.isfile():
            continue
        if path in inner:
            stream = tar.extractfile(member)
            assert stream is not None
            with tarfile.open(fileobj=_buffered(stream), mode="r|*") as below:
                yield from _read_tar(below, [each for each in wanted if each.startswith(f"{path}!")], f"{path}!")
        elif path in wanted or (not wanted and re.fullmatch(r"usr/share/doc/[^/]+/copyright", path)):
            yield Text(path, _content(tar, member))


def _buffered(stream: IO[bytes]) -> IO[bytes]:
    return io.BufferedReader(stream, 1 << 20) if isinstance(stream, io.RawIOBase) else stream


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    stream = tar.extractfile(member)
    assert stream is not None
    return _decode(stream.read())


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # old texts with names


def _is_license(name: str) -> bool:
    """Return whether a path is probably the license text of a packaged file."""
    path = PurePosixPath(name)
    if {part.lower() for part in path.parts[:-1]} & _IGNORED or path.suffix.lower() in _NO_TEXT:
        return False
    return _NAME.match(path.name) is not None or "LICENSES" in path.parts[:-1] or "licenses" in path.parts[:-1]
