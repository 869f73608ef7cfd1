# SPDX-License-Identifier: Apache-2.0
"""Update a recipe's source to another version; all files are fetched and verified before the recipe changes.

    find   each origin delivers its file of the new version; the recipe gets the sha256 and size of this file
    check  upstream's signature, with the keys that the recipe pins
    patch  the series is tried on the new tree, patch by patch (nabla.update.try_patches)
    write  version, origins and revision in recipe.toml; comments and layout stay (nabla.update.recipe_edit)

An unreachable origin is removed with a warning, because nobody has verified its file. It is kept if another origin
served the same file before and upstream's signature of that origin's new file verifies.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from nabla.core import log, manifest
from nabla.core.errors import ChecksumError, FetchError, NablaError, OfflineError, RecipeError, SignatureError
from nabla.sources import apt, fetch, recipe
from nabla.sources.apt import SourceFile, SourcePackage
from nabla.sources.origins import Delivery, Request, debian, pypi
from nabla.sources.recipe import DebianOrigin, DebOrigin, Origin, PypiOrigin, Recipe, Source, UrlOrigin
from nabla.sources.store import cache, is_offline
from nabla.update.outdated import SUITES, debian_name


@dataclass(frozen=True)
class Result:
    """The update of one origin. `new`: None if the origin is removed, for the reason in `problem`."""

    old: Origin
    new: Origin | None
    problem: str = ""


def the_source(loaded: Recipe) -> tuple[int, Source]:
    """Return the one source with origins, and its number. Raises `RecipeError` if there is none or several."""
    remote = [(number, source) for number, source in enumerate(loaded.source) if source.origin]
    if len(remote) != 1:
        raise RecipeError(
            f"{loaded.name} has {len(remote)} sources with origins; a bump updates one",
            "change its recipe.toml by hand; `doit fetch:NAME` checks it",
        )
    return remote[0]


def find(loaded: Recipe, source: Source, version: str) -> list[Result]:
    """Fetch the new version from every origin into the cache. Raises `FetchError` if no origin delivers it, and
    `ChecksumError` or `SignatureError` for the first wrong file."""
    if is_offline():
        raise OfflineError("connections are forbidden (offline), and a bump needs one", "unset NABLA_OFFLINE")
    if version == loaded.version:
        raise RecipeError(f"{loaded.name} already has version {version}")
    if loaded.package is not None and not re.fullmatch(recipe.APK_VERSION, version):
        raise RecipeError(f"{version!r} is not a version that apk can compare", "such as 1.2.3 or 6.5_p20250216")
    results: list[Result] = []
    for origin in source.origin:
        log.info(f"{loaded.name}: asking {fetch.provider(origin)} for {version}")
        try:
            results.append(Result(origin, _obtain(origin, loaded, version)))
        except (ChecksumError, SignatureError):
            raise
        except NablaError as error:
            results.append(Result(origin, None, f"{error.message}; {error.hint}".removesuffix("; ")))
    if not any(result.new for result in results):
        lines = [f"{fetch.provider(result.old)}: {result.problem}" for result in results]
        raise FetchError(f"{loaded.name}: no origin has version {version}", "\n".join(lines))
    results = [_keep(result, results, loaded.version, version) for result in results]
    if _differ(result.new for result in results) and not _differ(result.old for result in results):
        log.warn(f"{loaded.name}: the origins have different files of {version}, but equal files of {loaded.version}")
    return results


def spellings(old: str, new: str) -> list[tuple[str, str]]:
    """Return the spellings of a version in file names and addresses, as pairs of the old and the new version.

    1.2.3 may be 1_2_3 or 1-2-3; apk's 6.5_p20250216 is 6.5-20250216 or 6.5+20250216 elsewhere.
    """
    pairs = [(old, new)]
    for sign in ("-", "+", "."):
        pairs.append((old.replace("_p", sign), new.replace("_p", sign)))
    for sign in ("_", "-"):
        pairs.append((old.replace(".", sign), new.replace(".", sign)))
    return list(dict.fromkeys(pairs))


def renamed(text: str, old: str, new: str) -> str:
    """Return an address or file name of the new version. Raises `FetchError` if it does not contain the old one."""
    for before, after in spellings(old, new):
        changed, count = re.subn(rf"(?<![\d.]){re.escape(before)}(?!\d|\.\d)", after.replace("\\", ""), text)
        if count:
            return _series(changed, old, new)
    raise FetchError(f"{text} does not contain its version {old}", "change it by hand")


def _series(text: str, old: str, new: str) -> str:
    """Replace folders that are named by the first numbers of the version (v6.x, 3.13/)."""
    one, other = old.split("."), new.split(".")
    if len(one) > 1 and len(other) > 1:
        text = text.replace(f"/{one[0]}.{one[1]}/", f"/{other[0]}.{other[1]}/")
    return text.replace(f"/v{one[0]}.x/", f"/v{other[0]}.x/")


def _obtain(origin: Origin, loaded: Recipe, version: str) -> Origin:
    """Fetch and verify the file of another version; return the origin that pins it."""
    store = cache()
    with store.scratch() as folder:
        request = Request(loaded.name, store, folder)
        match origin:
            case UrlOrigin():
                delivery, new = _from_upstream(origin, request, loaded.version, version)
            case DebianOrigin():
                delivery, new = _from_debian(origin, request, loaded.version, version)
            case DebOrigin():
                delivery, new = _from_pool(origin, request, loaded.version, version)
            case PypiOrigin():
                delivery, new = _from_pypi(origin, request, version)
        fetch.accept(delivery, new, request)
    return new


def _from_upstream(origin: UrlOrigin, request: Request, old: str, new: str) -> tuple[Delivery, Origin]:
    # Imported when needed: requests takes longer to load than doit itself.
    from nabla.sources.origins import url

    signature = origin.signature
    if signature is not None:
        addresses = tuple(renamed(each, old, new) for each in signature.url)
        signature = msgspec.structs.replace(signature, url=addresses)
    addresses = tuple(renamed(each, old, new) for each in origin.url)
    changed = msgspec.structs.replace(origin, url=addresses, signature=signature)
    return _pinned(changed, url.obtain_unknown(changed, request))


def _from_debian(origin: DebianOrigin, request: Request, old: str, new: str) -> tuple[Delivery, Origin]:
    package, tarball = _source_package(origin, old, new)
    signature = origin.signature
    if signature is not None:
        signature = msgspec.structs.replace(signature, file=f"{tarball.name}.asc")
        if signature.file not in package.files:
            raise SignatureError(
                f"Debian's {package.name} {package.version} has no signature of upstream",
                "if upstream no longer signs, remove the signature from the recipe by hand",
            )
    changed = msgspec.structs.replace(
        origin,
        suite=package.suite,
        version=package.version,
        file=tarball.name,
        # From Debian's signed lists.
        sha256=tarball.sha256,
        size=tarball.size,
        signature=signature,
    )
    return debian.obtain_source(changed, request), changed


def _from_pool(origin: DebOrigin, request: Request, old: str, new: str) -> tuple[Delivery, Origin]:
    if ".orig.tar." not in origin.file:
        raise FetchError(f"{origin.file} is a binary package", "find the new one by hand")
    _, tarball = _source_package(origin, old, new)
    changed = msgspec.structs.replace(origin, pool=tarball.path, sha256=tarball.sha256, size=tarball.size)
    return debian.obtain_deb(changed, request), changed


def _from_pypi(origin: PypiOrigin, request: Request, version: str) -> tuple[Delivery, Origin]:
    file = pypi.newer_wheel(origin, version, request)
    return _pinned(msgspec.structs.replace(origin, version=version, file=file.name), Delivery(file))


def _pinned(origin: UrlOrigin | PypiOrigin, delivery: Delivery) -> tuple[Delivery, Origin]:
    """Pin a delivered file: return the delivery with its digest, and the origin with digest and size."""
    sha256, size = manifest.file_sha256(delivery.file), delivery.file.stat().st_size
    return dataclasses.replace(delivery, sha256=sha256), msgspec.structs.replace(origin, sha256=sha256, size=size)


def _source_package(origin: DebianOrigin | DebOrigin, old: str, new: str) -> tuple[SourcePackage, SourceFile]:
    """Return the source package of the new version, and its tarball: of the origin's suite, or else the first."""
    known = debian_name(origin)
    has: list[str] = []
    problems: list[str] = []
    for suite in dict.fromkeys((known.suite, *SUITES)):
        try:
            packages = apt.source_packages(suite, [known.package], known.package)
        except NablaError as error:
            problems.append(f"{suite}: {error.message}")
            continue
        has += [f"{each.upstream} ({suite})" for each in packages]
        for package in packages:
            tarball = package.tarball
            if tarball is not None and _is_version(package.upstream, old, new):
                return package, tarball
    raise FetchError(f"Debian has no {known.package} {new}, but {', '.join(has) or 'none at all'}", "\n".join(problems))


def _is_version(upstream: str, old: str, new: str) -> bool:
    """Return whether an upstream version in Debian is the new version, possibly repacked (+dfsg, +really)."""
    wanted = {after for _, after in spellings(old, new)}
    bare = re.sub(r"[+~.](dfsg|ds)\.?\d*", "", upstream).rpartition("+really")[2]
    return upstream in wanted or bare in wanted


def _differ(origins: Iterable[Origin | None]) -> bool:
    return len({origin.sha256 for origin in origins if origin is not None}) > 1


def _keep(result: Result, results: Sequence[Result], old: str, new: str) -> Result:
    """Keep an unreachable origin if the signature of another origin's file verifies."""
    if result.new is not None or not isinstance(result.old, UrlOrigin) or result.old.signature is None:
        return result
    for other in results:
        if other.new is None or other.new.signature is None or other.old.sha256 != result.old.sha256:
            continue
        signature = msgspec.structs.replace(
            result.old.signature, url=tuple(renamed(each, old, new) for each in result.old.signature.url)
        )
        addresses = tuple(renamed(each, old, new) for each in result.old.url)
        pinned = msgspec.structs.replace(
            result.old, url=addresses, sha256=other.new.sha256, size=other.new.size, signature=signature
        )
        return Result(result.old, pinned, result.problem)
    return result
