# SPDX-License-Identifier: Apache-2.0
"""The parts of the report as tables: what was built, sizes, times, what the checkers found, sums, licences."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from nabla.core import digest, log
from nabla.core.errors import NablaError
from nabla.core.paths import relative
from nabla.images import descriptions
from nabla.packages.catalog import Built
from nabla.policy.document import Rates
from nabla.release import digests
from nabla.report import benchmarks
from nabla.report.benchmarks import Benchmark, BuildTimes, UpstreamTests
from nabla.report.html import Bar, Cell, Column, Row, Table, anchor, number, size, table
from nabla.sources import recipe
from nabla.sources.recipe import Recipe
from verify import pie, syscalls

OWN_LICENCE = "Apache-2.0"
# Steps of a build that took less are told together.
BRIEF = 5.0  # seconds
Fields = list[list[Cell | str]]
# Group of artifacts -> path -> sha256.
Sums = Mapping[str, Mapping[str, str]]
_SUPERBLOCK = 1024  # bytes before it


class ReportError(NablaError):
    """The report cannot be written."""


@dataclass(frozen=True)
class Product:
    """One file of the release. `path`: in it; `used`: of `size` bytes, where a part of the file is empty."""

    name: str
    path: str
    what: str
    version: str
    license: str
    size: int
    sha256: str
    used: int | None = None


@dataclass(frozen=True)
class PackageFile:
    """One package of the repository."""

    name: str
    recipe: str
    version: str
    license: str
    summary: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Examined:
    """What the checkers found in one image."""

    name: str
    pie: tuple[pie.Finding, ...]
    syscalls: tuple[syscalls.Finding, ...]

    @property
    def programs(self) -> int:
        """Number of files that were checked."""
        return len(self.pie)


def products(
    version: str,
    vmlinux: Path,
    launcher: Path,
    images: Mapping[str, Path],
    repository: Path,
    further: Mapping[str, Path],
) -> list[Product]:
    """Look at the files of a release. Raises `ReportError` when one is absent."""
    linux, own = recipe.load("linux"), recipe.load("nabla-run")
    found = [
        _product("vmlinux", "kernel/vmlinux", linux.summary, linux.version, linux.license, vmlinux),
        _product("nabla-run", "bin/nabla-run", own.summary, version, own.license, launcher),
    ]
    for name, path in sorted(images.items()):
        what = descriptions.load(name).summary
        found.append(
            _product(f"{name}.ext3", f"images/{name}.ext3.zst", what, version, "many", path, used=used_bytes(path))
        )
    index = "apk/x86_64/Packages.adb"
    found.append(
        _product("Packages.adb", index, "index of our packages", version, OWN_LICENCE, repository / "Packages.adb")
    )
    for place, path in sorted(further.items()):
        kind, licence = _further(place)
        found.append(_product(place.rpartition("/")[2], place, kind, version, licence, path))
    return found


def _further(place: str) -> tuple[str, str]:
    """Return in words what a further file of the release is, and its licence."""
    if place.startswith("oci/"):
        return "machine as a container image, for docker, podman and others", "many"
    if place.endswith(".spdx.json"):
        return "bill of materials, SPDX 2.3", OWN_LICENCE
    if place.endswith(".cdx.json"):
        return "bill of materials, CycloneDX 1.6", OWN_LICENCE
    raise ReportError(f"the report has no words for {place}", "add them to nabla/report/tables.py")


def _product(name: str, place: str, what: str, version: str, licence: str, path: Path, **more: int) -> Product:
    if not path.is_file():
        raise ReportError(f"{relative(path)} is missing", "build it: `doit report` builds all that it tells of")
    return Product(name, place, what, version, licence, path.stat().st_size, digest.sha256_file(path), **more)


def used_bytes(image: Path) -> int:
    """Return how many bytes of an ext2, ext3 or ext4 file system are in use, by its superblock."""
    with image.open("rb") as stream:
        stream.seek(_SUPERBLOCK)
        block = stream.read(64)
    if len(block) < 64 or block[56:58] != b"\x53\xef":
        raise ReportError(f"{relative(image)} holds no ext file system")
    (blocks,), (free,), (log2,) = (struct.unpack_from("<I", block, at) for at in (4, 12, 24))
    return int((blocks - free) << (10 + log2))


def packages(built: Iterable[Built], repository: Path) -> list[PackageFile]:
    """Look at all packages. Raises `ReportError` when one is absent."""
    found = []
    for each in built:
        for part in each.parts:
            path = repository / part.apk.name
            if not path.is_file():
                raise ReportError(f"{relative(path)} is missing", f"run `doit packages:{each.recipe}`")
            facts = (part.name, each.recipe, part.version, each.license, part.summary, path.name)
            found.append(PackageFile(*facts, path.stat().st_size, digest.sha256_file(path)))
    return sorted(found, key=lambda package: package.name)


def examined(name: str, folder: Path) -> Examined:
    """Read what the checkers wrote about an image. Raises `ReportError`."""
    paths = [folder / f"{name}-{kind}.json" for kind in ("pie", "syscalls")]
    try:
        return Examined(
            name,
            msgspec.json.decode(paths[0].read_bytes(), type=tuple[pie.Finding, ...]),
            msgspec.json.decode(paths[1].read_bytes(), type=tuple[syscalls.Finding, ...]),
        )
    except (FileNotFoundError, msgspec.DecodeError) as problem:
        raise ReportError(
            f"what was found out about {name} cannot be read: {problem}", f"`doit verify:{name}`"
        ) from None


def product_table(found: Sequence[Product]) -> Table:
    """Return the table of what was built."""
    columns = (
        *(Column("file"), Column("what"), Column("version"), Column("licence")),
        *(Column("size", "number"), Column("sha256", "code")),
    )
    rows: Fields = [
        [Cell(p.name, href=f"../{p.path}"), p.what, p.version, _licence(p), number(p.size, size(p.size)), p.sha256]
        for p in found
    ]
    return table("products", "The files of this release", columns, rows)


def _licence(product: Product) -> Cell:
    return Cell("see licences", href="#licences") if product.license == "many" else Cell(product.license)


def size_chart(found: Sequence[Product]) -> Table:
    """Return the chart of sizes. An image's file is larger than what is in it: the bar has both."""
    longest = max((p.size for p in found), default=1)
    rows: Fields = []
    for p in sorted(found, key=lambda p: (-p.size, p.name)):
        full, used = p.size / longest, (p.size if p.used is None else p.used) / longest
        words = size(p.size) if p.used is None else f"{size(p.used)} of {size(p.size)}"
        bar = Bar(f"{p.name}: {words}", used, whole=full)
        rows.append([p.name, number(p.size, words), Cell("", bar=bar)])
    return _chart("chart-sizes", "Sizes of files; of images what is in use, and the whole", "size", rows)


def package_table(found: Sequence[PackageFile]) -> Table:
    """Return the table of packages."""
    columns = (
        *(Column("package"), Column("what"), Column("version"), Column("licence")),
        *(Column("size", "number"), Column("sha256", "code")),
    )
    rows = tuple(
        Row(
            (
                Cell(p.name, href=f"../apk/x86_64/{p.file}"),
                *(Cell(p.summary), Cell(p.version), Cell(p.license)),
                *(number(p.size, size(p.size)), Cell(p.sha256)),
            ),
            id=f"package-{anchor(p.name)}",
        )
        for p in found
    )
    return Table("packages-table", "All packages of the repository", columns, rows)


def package_chart(found: Sequence[PackageFile]) -> Table:
    """Return the chart of what the packages of each recipe take."""
    sums: dict[str, list[int]] = {}
    for p in found:
        sums.setdefault(p.recipe, []).append(p.size)
    longest = max(map(sum, sums.values()), default=1)
    rows: Fields = []
    for name, sizes in sorted(sums.items(), key=lambda item: (-sum(item[1]), item[0])):
        words = size(sum(sizes))
        bar = Bar(f"{name}: {words} in {len(sizes)} packages", sum(sizes) / longest)
        rows.append([name, number(sum(sizes), words), Cell("", bar=bar)])
    return _chart("chart-packages", "Packages of each recipe together, compressed", "size", rows)


def time_chart(build: BuildTimes) -> Table:
    """Return the chart of build times; downloads and brief steps are one row each."""
    groups: dict[str, list[float]] = {}
    for step in build.steps:
        if step.name.startswith("fetch:"):
            name = "download and check"
        else:
            name = step.name if step.seconds >= BRIEF else f"each below {BRIEF:.0f} s"
        groups.setdefault(name, []).append(step.seconds)
    longest = max(map(sum, groups.values()))
    rows: Fields = []
    for name, times in sorted(groups.items(), key=lambda item: (-sum(item[1]), item[0])):
        label = name if len(times) == 1 else f"{len(times)} steps: {name}"
        words = log.seconds(sum(times))
        bar = Bar(f"{label}: {words}", sum(times) / longest)
        rows.append([label, number(sum(times), words), Cell("", bar=bar)])
    return _chart("chart-times", "Time of each step", "time", rows)


def _chart(name: str, caption: str, unit: str, rows: Fields) -> Table:
    return table(name, caption, (Column("what"), Column(unit, "number"), Column("", "bar")), rows, sortable=False)


def pie_table(images: Sequence[Examined]) -> Table:
    """Return how many programs and libraries of each image there are, and how many are not as they must be."""
    kinds = ("program", "static program", "library", "object")
    columns = (
        Column("image"),
        *(Column({"library": "libraries"}.get(kind, f"{kind}s"), "number") for kind in kinds),
        *(Column("all", "number"), Column("result")),
    )
    rows: Fields = []
    for image in images:
        counts = [sum(finding.kind == kind for finding in image.pie) for kind in kinds]
        bad = sum(bool(finding.problems) for finding in image.pie)
        verdict = Cell("all sound", mark="good") if not bad else Cell(f"{bad} with faults", mark="bad")
        rows.append([image.name, *map(number, counts), number(len(image.pie)), verdict])
    return table("pie-table", "Programs and libraries by image", columns, rows, sortable=False)


def pie_files(image: Examined) -> Table:
    """Return each file of an image with its verdict."""
    columns = (Column("file"), Column("kind"), Column("package"), Column("result"))
    rows: Fields = [
        [
            *(finding.path, finding.kind, finding.owner or "–"),
            Cell(", ".join(finding.problems) or "sound", mark="bad" if finding.problems else ""),
        ]
        for finding in image.pie
    ]
    return table(f"pie-{anchor(image.name)}", f"{image.name}: {len(rows)} files", columns, rows)


def syscall_table(images: Sequence[Examined]) -> Table:
    """Return how many system call instructions of their own the programs of each image have."""
    columns = (
        Column("image"),
        *(Column("files looked at", "number"), Column("with such instructions", "number")),
        *(Column("instructions", "number"), Column("result")),
    )
    rows: Fields = []
    for image in images:
        own = [finding for finding in image.syscalls if not finding.sound]
        uses = sum(len(finding.uses) for finding in own)
        verdict = Cell("none but libc's", mark="good") if not own else Cell("these calls trap: slower, and sound")
        rows.append([image.name, number(len(image.syscalls)), number(len(own)), number(uses), verdict])
    return table("syscalls-table", "Raw system calls by image", columns, rows, sortable=False)


def syscall_files(image: Examined) -> Table:
    """Return each function of an image that has such instructions, libc's with them."""
    columns = (Column("file"), Column("package"), Column("function"), Column("number", "number"), Column("what"))
    rows: Fields = []
    for finding in image.syscalls:
        if finding.problem:
            rows.append([finding.path, finding.owner or "–", "–", number(0), Cell(finding.problem, mark="bad")])
        functions: dict[str, list[syscalls.Use]] = {}
        for use in finding.uses:
            functions.setdefault(use.function, []).append(use)
        for name, uses in functions.items():
            words = sorted({use.instruction + ("" if use.sure else " (in doubt)") for use in uses})
            what = "libc" if finding.allowed else ", ".join(words)
            rows.append([finding.path, finding.owner or "–", name, number(len(uses)), what])
    return table(f"syscalls-{anchor(image.name)}", f"{image.name}: {len(rows)} functions", columns, rows)


def rate_table(rates: Rates) -> Table:
    """Return host calls a second by kind and load."""
    head, rows = benchmarks.host_calls(rates)
    columns = (Column(head[0]), *(Column(name, "number") for name in head[1:]))
    return table("rates", "Host calls a second", columns, rows, sortable=False)


def digest_table(expected: Sums, got: Sums) -> Table:
    """Return the sums that each build must have, and whether this one has them."""
    columns = (Column("artifact"), Column("file"), Column("expected sha256", "code"), Column("this build"))
    rows: Fields = []
    for group in sorted({*expected, *got}):
        wanted, found = expected.get(group, {}), got.get(group, {})
        wrong = dict(digests.differences(wanted, found))
        for name in sorted({*wanted, *found}):
            verdict = Cell(wrong[name], mark="bad") if name in wrong else Cell("the same", mark="good")
            rows.append([group, name, wanted.get(name, "–"), verdict])
    return table("digests-table", f"{len(rows)} sums", columns, rows)


def faults(found: Table) -> int:
    """Return how many rows have a field that is marked as bad."""
    return sum(any(cell.mark == "bad" for cell in row.cells) for row in found.rows)


def benchmark_table(found: Benchmark) -> tuple[Benchmark, Table]:
    """Return a measurement with its table; the first column and units are text."""
    columns = tuple(Column(name, "text" if name in ("what", "operation", "unit") else "number") for name in found.head)
    return found, table(f"bench-{anchor(found.title)}", found.about, columns, found.rows, sortable=False)


def upstream_table(found: Sequence[UpstreamTests], built: Sequence[Built]) -> Table:
    """Return what came of upstream's tests, and whether the very files of this release were tested."""
    trees = {each.recipe: each.tree for each in built}
    columns = (
        *(Column("package"), Column("version"), Column("tests", "number"), Column("failed", "number")),
        *(Column("result"), Column("tested files")),
    )
    rows: Fields = []
    for each in found:
        result = Cell("passed", mark="good") if not each.failed else Cell("failed", mark="bad")
        same = "those of this release" if trees.get(each.recipe) == each.tree else "those of an earlier build"
        rows.append([each.recipe, each.version, number(each.tests), number(each.failed), result, same])
    return table("upstream-table", "Tests that upstream made, run in the machine", columns, rows, sortable=False)


def licence_table(recipes: Sequence[Recipe]) -> Table:
    """Return the licence of each component, with the project's own page."""
    columns = (Column("component"), Column("version"), Column("licence"), Column("what"), Column("patches", "number"))
    rows: Fields = [
        [Cell(r.name, href=r.homepage), r.version, r.license, r.summary, number(len(r.patches))] for r in recipes
    ]
    return table("licences-table", "Components", columns, rows)
