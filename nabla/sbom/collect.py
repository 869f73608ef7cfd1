# SPDX-License-Identifier: Apache-2.0
"""Collect the inventory from recipes, records of built packages, images, and the Alpine base."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nabla.core import digest
from nabla.core.artifacts import ARCH
from nabla.core.paths import ROOT
from nabla.fs import nodes
from nabla.images import descriptions
from nabla.packages import catalog
from nabla.packages.apkdb import Installed, bare, read_image, read_tree, resolve
from nabla.sbom.inventory import (
    NAME,
    Component,
    ComponentFile,
    Inventory,
    Kind,
    Patch,
    SbomError,
    Source,
    SourceFile,
    apk_purl,
    make_inventory,
    purl,
)
from nabla.sources import recipe
from nabla.sources.archives import fetched
from nabla.sources.recipe import DebianOrigin, DebOrigin, Origin, PypiOrigin, Recipe, UrlOrigin
from verify.epoch import SOURCE_DATE_EPOCH

# Components that are files of a release, or parts of images that are not packages.
FIXED: Mapping[str, Kind] = {
    "linux": "kernel",
    "musl": "library",
    "busybox": "program",
    "nabla-init": "program",
    "nabla-run": "program",
    "nabla": "program",
    "nabla-oci": "program",
}
# Part of an image -> its recipe.
_PARTS = {"init": "nabla-init", "musl": "musl", "busybox": "busybox"}
# Component -> its dependencies: busybox is linked against libc, the launcher starts the kernel, and the
# OCI runtime starts the launcher.
_NEEDS = {"busybox": ("musl",), "nabla-run": ("linux",), "nabla-oci": ("nabla-run",)}
_CVE = re.compile(r"^CVE:[ \t]*(CVE-\d{4}-\d{4,}(?:[ ,\t]+CVE-\d{4}-\d{4,})*)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Inputs:
    """The inputs of an inventory.

    `version`: of the release. `files`: recipe in `FIXED` -> its file. `images`: name -> file. `repository`: the folder
    of the package files. `built`: recipe -> record of its build. `base`: recipe of the root file system of images.
    `recipes`: overrides recipes of the repository.
    """

    version: str
    files: Mapping[str, Path]
    images: Mapping[str, Path]
    repository: Path
    built: Mapping[str, catalog.BuildRecord]
    base: str = "alpine-base"
    recipes: Mapping[str, Recipe] = field(default_factory=dict)

    def load(self, name: str) -> Recipe:
        """Return a recipe by name; `recipes` take precedence over the repository."""
        return self.recipes.get(name) or recipe.load(name)


def collect(inputs: Inputs) -> Inventory:
    """Return the inventory. Raises `SbomError`, `FetchError`, `ImageError`, `RecipeError`."""
    sources: dict[str, Source] = {}
    wheels: dict[str, Component] = {}

    def add_sources(name: str) -> tuple[str, ...]:
        """Add the sources of a recipe; return their references."""
        own = list(_sources(inputs.load(name)))
        sources.update({source.ref: source for source in own})
        return tuple(source.ref for source in own)

    components: list[Component] = []
    for name, kind in FIXED.items():
        components.append(_fixed(inputs, name, kind, add_sources(name)))
    providers = _providers(inputs.built)
    for name, built in inputs.built.items():
        refs = add_sources(name)
        inside = _wheels(inputs.load(name), wheels)
        components += [_package(inputs, built, part, refs, inside, providers) for part in built.parts]
    started = _base_packages(inputs, wheels)
    known = {(c.name, c.version): c.ref for c in (*started, *(c for c in components if c.kind == "package"))}
    for name, path in inputs.images.items():
        components.append(_image(inputs, name, path, known))
    return make_inventory(
        inputs.version, SOURCE_DATE_EPOCH, [*components, *started, *wheels.values()], list(sources.values())
    )


def read_patch(path: Path, fixes: Mapping[str, Sequence[str]]) -> Patch:
    """Read a patch. Its message (`CVE: CVE-2024-12345`) and the recipe's table list the CVEs that it fixes."""
    data = path.read_bytes()
    message = data.decode(errors="replace").split("\ndiff --git ", 1)[0]
    listed = {number for line in _CVE.findall(message) for number in re.findall(r"CVE-\d{4}-\d+", line)}
    listed |= {number for number, names in fixes.items() if path.name in names}
    # A long subject continues in the next lines, which start with a space.
    subject = re.search(r"^Subject: (?:\[PATCH[^\]]*\] )?(.*(?:\n[ \t].*)*)", message, re.MULTILINE)
    title = " ".join(subject[1].split()) if subject else path.stem
    inner = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-3:])
    backport = re.search(r"^[\[(]?(cherry picked from )?commit [0-9a-f]{40}\b", message, re.MULTILINE) is not None
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return Patch(str(inner), title, hashlib.sha256(data).hexdigest(), sha1, tuple(sorted(listed)), backport)


def _patches(loaded: Recipe) -> tuple[Patch, ...]:
    return tuple(read_patch(path, loaded.fixes) for path in loaded.patches)


def _fixed(inputs: Inputs, name: str, kind: Kind, refs: tuple[str, ...]) -> Component:
    loaded = inputs.load(name)
    # nabla's own components have the version of the release.
    own = not refs
    version = inputs.version if own else loaded.version
    return Component(
        ref=f"{NAME}:{name}",
        kind=kind,
        name=name,
        version=version,
        license=loaded.license,
        summary=loaded.summary,
        homepage=loaded.homepage,
        purl=purl("generic", name, version),
        origin=name,
        file=_file(inputs.files[name]),
        sources=refs,
        patches=_patches(loaded),
        depends=tuple(f"{NAME}:{each}" for each in _NEEDS.get(name, ())),
    )


def _file(path: Path) -> ComponentFile:
    return ComponentFile(path.name, digest.sha256_file(path), digest.sha512_file(path))


def _package(
    inputs: Inputs,
    built: catalog.BuildRecord,
    part: catalog.BinaryPackage,
    refs: tuple[str, ...],
    inside: tuple[str, ...],
    providers: Mapping[str, str],
) -> Component:
    loaded = inputs.load(built.recipe)
    ref = _package_ref(part)
    path = inputs.repository / part.apk.name
    if not path.is_file():
        raise SbomError(f"there is no package file {path}", f"run `doit packages:{built.recipe}`")
    return Component(
        ref=ref,
        kind="package",
        name=part.name,
        version=part.version,
        license=built.license,
        summary=part.summary,
        homepage=built.homepage,
        purl=ref,
        origin=built.recipe,
        file=_file(path),
        sources=refs,
        patches=_patches(loaded),
        contains=inside if part.name == built.recipe else (),
        depends=tuple(each for each in resolve(part.depends, providers) if each != ref),
    )


def _package_ref(part: catalog.BinaryPackage) -> str:
    return apk_purl("nabla", part.name, part.version, arch=ARCH)


def _providers(built: Mapping[str, catalog.BuildRecord]) -> dict[str, str]:
    """Return provided name -> reference of the package."""
    parts = [part for each in built.values() for part in each.parts]
    provided = {bare(word): _package_ref(part) for part in parts for word in part.provides}
    return provided | {part.name: _package_ref(part) for part in parts}


def _sources(loaded: Recipe) -> Iterator[Source]:
    for source in loaded.source:
        if source.local is not None:
            continue
        files: dict[str, SourceFile] = {}
        for origin in source.origin:
            file = _source_file(origin)
            before = files.get(file.sha256)
            # Several origins of the same file are merged; the first name and package URL are used.
            files[file.sha256] = (
                file
                if before is None
                else SourceFile(before.file, before.sha256, (*before.places, *file.places), before.purl or file.purl)
            )
        ref = f"source:{loaded.name}/{source.name}"
        yield Source(ref, source.name, loaded.version, loaded.license, tuple(files.values()))


def _source_file(origin: Origin) -> SourceFile:
    match origin:
        case UrlOrigin():
            return SourceFile(origin.file, origin.sha256, origin.url, None)
        case DebianOrigin():
            name = purl("deb", origin.package, origin.version, namespace="debian", arch="source", distro=origin.suite)
            return SourceFile(origin.file, origin.sha256, (), name)
        case DebOrigin():
            return SourceFile(origin.file, origin.sha256, (), _deb_purl(origin))
        case PypiOrigin():
            return SourceFile(origin.file, origin.sha256, (), _wheel_purl(origin))


def _deb_purl(origin: DebOrigin) -> str:
    if origin.file.endswith(".deb"):
        name, version, arch = origin.file.removesuffix(".deb").split("_")
        return purl("deb", name, version, namespace="debian", arch=arch)
    # pool/main/z/zlib/zlib_1.3.orig.tar.gz: the name contains upstream's version only
    name, version = origin.file.split(".orig.tar.")[0].split("_", 1)
    return purl("deb", name, version, namespace="debian", arch="source")


def _wheel_purl(origin: PypiOrigin) -> str:
    return purl("pypi", origin.package.lower(), origin.version, file_name=origin.file)


def _wheels(loaded: Recipe, wheels: dict[str, Component]) -> tuple[str, ...]:
    """Add the wheels of a recipe and their bundled libraries to `wheels`; return the references of the wheels."""
    refs = []
    for source in loaded.source:
        for origin in source.origin:
            if not isinstance(origin, PypiOrigin):
                continue
            ref = _wheel_purl(origin)
            refs.append(ref)
            wheel = fetched(loaded)[source.name]
            inner = _bundled(wheel, origin.file)
            wheels.update({component.ref: component for component in inner})
            wheels[ref] = Component(
                ref=ref,
                kind="wheel",
                name=origin.package.lower(),
                version=origin.version,
                license=loaded.license,
                summary=loaded.summary,
                homepage=loaded.homepage,
                purl=ref,
                origin=loaded.name,
                file=ComponentFile(origin.file, origin.sha256, digest.sha512_file(wheel)),
                contains=tuple(sorted(component.ref for component in inner)),
            )
    return tuple(refs)


def _bundled(wheel: Path, name: str) -> list[Component]:
    """Return the bundled libraries that a wheel lists (PEP 770: a CycloneDX document in .dist-info/sboms)."""
    with zipfile.ZipFile(wheel) as archive:
        documents = [
            json.loads(archive.read(member))
            for member in sorted(archive.namelist())
            if re.fullmatch(r"[^/]+\.dist-info/sboms/[^/]+\.cdx\.json", member)
        ]
    libraries = {}
    for document in documents:
        own = document.get("metadata", {}).get("component", {}).get("bom-ref")
        for entry in document.get("components", ()):
            if entry.get("bom-ref") != own and entry.get("purl"):
                ref = str(entry["purl"])
                libraries[ref] = Component(
                    ref=ref,
                    kind="bundled",
                    name=entry["name"],
                    version=entry.get("version", ""),
                    license="",
                    purl=ref,
                    summary=f"a library inside of {name}",
                )
    return list(libraries.values())


def _base_packages(inputs: Inputs, wheels: dict[str, Component]) -> list[Component]:
    """Return the packages of the base; adds the wheel that contains them."""
    loaded = inputs.load(inputs.base)
    (ref,) = _wheels(loaded, wheels)
    tree = nodes.read_base(fetched(loaded)[loaded.source[0].name])
    installed = read_tree(tree)
    refs = {each.name: _base_ref(each, loaded.version) for each in installed}
    providers = {bare(word): refs[each.name] for each in installed for word in each.provides} | refs
    components = [
        Component(
            ref=refs[each.name],
            kind="base",
            name=each.name,
            version=each.version,
            license=each.license,
            summary=each.summary,
            homepage=each.homepage,
            purl=refs[each.name],
            origin=each.origin,
            depends=tuple(other for other in resolve(each.depends, providers) if other != refs[each.name]),
        )
        for each in installed
    ]
    holder = wheels[ref]
    wheels[ref] = Component(**{**vars(holder), "contains": tuple(sorted({*holder.contains, *refs.values()}))})
    return components


def _base_ref(each: Installed, release: str) -> str:
    return apk_purl("alpine", each.name, each.version, arch=ARCH, distro=f"alpine-{release}")


def _image(inputs: Inputs, name: str, path: Path, known: Mapping[tuple[str, str], str]) -> Component:
    """Return an image with the packages of its database, and nabla's programs instead of those that they replace."""
    description = descriptions.load(name)
    installed, present = read_image(path)
    parts = [_PARTS[part] for part in description.parts]
    contains = [f"{NAME}:{part}" for part in parts]
    for each in installed:
        ref = known.get((each.name, each.version))
        if ref is None:
            raise SbomError(
                f"the image {name} has {each.name} {each.version}, which is neither in the base nor in the repository"
            )
        # Alpine's musl and busybox are still in the database if nabla's files replaced them.
        replaced = each.name in parts and not ref.startswith("pkg:apk/nabla/")
        # An image drops most files of some packages (the base's kernel), which remain in the database.
        dropped = len(present & {*each.files}) * 2 < len(each.files)
        if not replaced and not dropped:
            contains.append(ref)
    started = [_wheel_ref(inputs.load(description.base))] if description.base else []
    return Component(
        ref=f"{NAME}:image/{name}",
        kind="image",
        name=f"{NAME}-{name}",
        version=inputs.version,
        license="NOASSERTION",
        summary=description.summary,
        purl=purl("generic", f"{NAME}-{name}", inputs.version),
        origin=name,
        file=_file(path),
        contains=tuple(sorted(contains)),
        depends=tuple(started),
    )


def _wheel_ref(loaded: Recipe) -> str:
    return next(_wheel_purl(o) for s in loaded.source for o in s.origin if isinstance(o, PypiOrigin))
