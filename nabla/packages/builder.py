# SPDX-License-Identifier: Apache-2.0
"""Build one recipe for the repository: compile against its own sysroot, install, split into packages.

    out/work/<recipe>/sysroot       libc, libgcc and the files of all its build dependencies, by hard links
    out/work/<recipe>/build/<name>  a copy of the patched source, /build/<name> in the sandbox
    out/work/<recipe>/build/dest    $DESTDIR

The result cache stores the installed files and the packages split from them under separate keys: no checkout builds the
same recipe twice, and a changed division into packages compiles nothing. The key of a dependent contains the digest of
the files that it is built against, so a change that does not affect them rebuilds nothing else.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from nabla.build import source_tree
from nabla.build.source_tree import Work
from nabla.core import digest, files, progress
from nabla.core.artifacts import APK_TOOLS, Tree, package_record
from nabla.core.errors import NablaError
from nabla.core.paths import MUSL, TOOLCHAIN, cache_dir
from nabla.engine import code, result_cache, task
from nabla.engine.action import Job
from nabla.engine.remote import elsewhere, timeline
from nabla.packages import apk, catalog, elf, split
from nabla.packages.catalog import BuildRecord, PackageError, built_tree, closure, read_build_record
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources.archives import read_record
from nabla.sources.recipe import PackageRecipe, Recipe

TRIPLET = "x86_64-nabla-linux-musl"
CROSS = TOOLCHAIN / "cross"
STEPS = ("prepare", "build", "package")

# These contain paths of the build machine, or are indexes of several packages; a package must not contain them.
_UNWANTED = re.compile(r".*\.la|usr/share/info/dir|.*/perllocal\.pod|.*/\.packlist|.*/__pycache__/.*")

# No debug information: it contains paths, and the packages are stripped anyway.
_FLAGS = "-O2 -g0 -pipe -Wformat -Werror=format-security"
ENVIRONMENT = {
    "PATH": "/tools/cross/bin:/usr/bin:/usr/sbin",
    "CHOST": TRIPLET,
    "CBUILD": "x86_64-pc-linux-gnu",
    "CC": f"{TRIPLET}-gcc",
    "CXX": f"{TRIPLET}-g++",
    "AR": f"{TRIPLET}-ar",
    "NM": f"{TRIPLET}-nm",
    "RANLIB": f"{TRIPLET}-ranlib",
    "STRIP": f"{TRIPLET}-strip",
    "PKG_CONFIG": f"{TRIPLET}-pkg-config",
    "CC_FOR_BUILD": "gcc",
    "BUILD_CC": "gcc",
    "CFLAGS": _FLAGS,
    "CXXFLAGS": _FLAGS,
    "CONFIG_SITE": "/tools/cross/config.site",
    "SYSROOT": "/sysroot",
    "DESTDIR": "/build/dest",
    "RECIPE": "/src",
}


def compile_inputs(loaded: PackageRecipe) -> dict[str, Any]:
    """Return the inputs that determine the installed files of a recipe, as JSON data."""
    package = loaded.package
    tree = built_tree(loaded)
    archives = {archive.source: archive.sha256 for archive in read_record(loaded.name)} if loaded.is_remote else {}
    return {
        **({"built": tree.stamp.read_text(encoding="utf-8").strip()} if tree else {}),
        **({"options": package.options} if package.options else {}),
        "recipe": [loaded.name, loaded.version, package.env, [getattr(package, step) for step in STEPS]],
        "sources": [
            [s.name, s.unpack, s.strip, archives[s.name] if s.local_path is None else _local(s.local_path)]
            for s in loaded.source
        ],
        "patches": [digest.sha256_file(path) for path in loaded.patches],
        "files": {str(path.relative_to(loaded.folder)): digest.sha256_file(path) for path in extra_files(loaded)},
        "root": lockfile.read_lock(lockfile.PACKAGING.lock).tree,
        "toolchain": digest.tree_digest(CROSS),
        "musl": Tree(MUSL).stamp.read_text(encoding="utf-8").strip(),
        "depends": {each: read_build_record(each).tree for each in closure(loaded.name)},
        "environment": [sorted({**bwrap.ENVIRONMENT, **ENVIRONMENT}.items()), _UNWANTED.pattern],
    }


def installed_key(loaded: PackageRecipe) -> str:
    """Return the key of the installed files of a recipe. Raises `NablaError` or `OSError` if an input is absent."""
    return result_cache.key("installed", compile_inputs(loaded))


def split_inputs(loaded: PackageRecipe, installed: str) -> dict[str, Any]:
    """Return the inputs that determine a recipe's packages. `installed`: digest of its installed files."""
    package = msgspec.to_builtins(loaded.package)
    for step in (*STEPS, "env", "options", "makedepends", "check"):
        package.pop(step, None)
    return {
        "installed": installed,
        "recipe": [loaded.name, loaded.version, loaded.license, loaded.summary, loaded.homepage, package],
        "files": {str(path.relative_to(loaded.folder)): digest.sha256_file(path) for path in extra_files(loaded)},
        "code": dict(code.closure(split.__name__)),
    }


def extra_files(loaded: Recipe) -> list[Path]:
    """Return the files beside recipe.toml, which a step may read."""
    return [path for path in task.source_files(loaded.folder) if path.name != "recipe.toml"]


def files_path(key: str, part: str) -> Path:
    """Return the folder with the files of one package."""
    return result_cache.entry(key) / "files" / part


def obtain(job: Job, loaded: PackageRecipe) -> BuildRecord:
    """Return the packages of a recipe, from the cache or after a build. Raises `PackageError`, `CommandError`."""
    # If the packages exist, the installed files are not needed, and a store would send everything twice.
    known = result_cache.known_digests(installed_key(loaded))
    if known is not None:
        key = package_key(loaded, known["installed"])
        with result_cache.lock(key):
            entry = result_cache.find(key)
        if entry is not None:
            job.note(f"restored from the cache: {key}")
            timeline.note("restored")
            return _read_built(entry)
    installed = _installed(job, loaded)
    key = package_key(loaded, digest.tree_digest(installed))
    with result_cache.lock(key):
        entry = result_cache.find(key)
        if entry is None or not result_cache.is_reusable():
            compose_sysroot(job, sysroot_path(loaded.name), closure(loaded.name))
            entry = _split(job, loaded, installed, key)
    return _read_built(entry)


def compile_package(job: Job, loaded: PackageRecipe) -> None:
    """Ensure that the cache contains the installed files of a recipe. Raises `PackageError`, `CommandError`."""
    _installed(job, loaded)


def package_key(loaded: PackageRecipe, installed: str) -> str:
    """Return the key of a recipe's packages. `installed`: digest of its installed files."""
    return result_cache.key("package", split_inputs(loaded, installed))


def _read_built(entry: Path) -> BuildRecord:
    return msgspec.json.decode((entry / "built.json").read_bytes(), type=BuildRecord)


def enter(loaded: PackageRecipe) -> Sandbox:
    """Return the sandbox in which a recipe is built, with the sysroot of its last build."""
    work = Work(loaded.name)
    binds = [
        Bind(work.build, "/build", writable=True),
        Bind(loaded.folder, "/src"),
        Bind(sysroot_path(loaded.name), "/sysroot"),
    ]
    if tree := built_tree(loaded):
        binds.append(Bind(tree.path, "/extra"))
    env = {**ENVIRONMENT, "JOBS": str(bwrap.jobs()), "VERSION": loaded.version, **loaded.package.env}
    shell = f"./doit.sh shell {loaded.name}"
    return Sandbox(tuple(binds), env, f"/build/{loaded.name}", lockfile.PACKAGING, shell)


def sysroot_path(name: str) -> Path:
    """Return the folder of a recipe's sysroot."""
    return Work(name).base / "sysroot"


def compose_sysroot(job: Job, root: Path, recipes: Sequence[str]) -> None:
    """Link libc and the packages of these recipes into `root`. Raises `PackageError` if two contain the same file."""
    files.remove(root)
    root.mkdir(parents=True)
    _link_tree(MUSL, root, "libc")
    for each in recipes:
        built = read_build_record(each)
        if result_cache.find(built.key) is None:
            # The entry was unused and removed, or is damaged.
            built = obtain(job, catalog.load(each))
        for part in built.parts:
            _link_tree(files_path(built.key, part.name), root, part.name)


def _installed(job: Job, loaded: PackageRecipe) -> Path:
    """Return the folder with the installed files of a recipe, from the cache or after a build."""
    key = installed_key(loaded)
    with result_cache.lock(key):
        entry = result_cache.find(key) if result_cache.is_reusable() else None
        if entry is None and elsewhere.build(job.name, key, job.log):
            entry = result_cache.find(key)
        if entry is None:
            _compile(job, loaded)
            build = Work(loaded.name).build
            entry = result_cache.add(key, f"{loaded.name}: installed", {"installed": build / "dest"}, move=True)
            # The result is in the cache. A failed build keeps its folder, for `doit shell`.
            files.remove(build)
        else:
            job.note(f"restored from the cache: {key}")
    return entry / "installed"


def _compile(job: Job, loaded: PackageRecipe) -> None:
    name, work = loaded.name, Work(loaded.name)
    source_tree.ensure_source_tree(job, loaded)
    files.remove(work.build)
    work.build.mkdir(parents=True)
    shutil.copytree(work.source, work.build / name, symlinks=True)
    compose_sysroot(job, sysroot_path(name), closure(name))
    sandbox = enter(loaded)
    destination = work.build / "dest"
    for step in STEPS:
        script: str = getattr(loaded.package, step)
        if step == "package":
            destination.mkdir()
        if not script:
            continue
        title = f"{name}: {step}"
        if step == "build":
            with progress.counting(f"{name}: compile", name) as counter:
                sandbox.run(script, title=title, log=job.log, progress=counter)
        else:
            sandbox.run(script, title=title, log=job.log)
    _strip(sandbox, job, loaded, destination)


def _strip(sandbox: Sandbox, job: Job, loaded: PackageRecipe, destination: Path) -> None:
    """Remove unwanted files and strip programs, libraries and archives."""
    name, options = loaded.name, loaded.package.options
    programs: list[str] = []
    archives: list[str] = []
    for path in split.files(destination):
        full = destination / path
        if "/__pycache__/" in path and "bytecode" in options:
            continue
        if _UNWANTED.fullmatch(path):
            full.unlink()
        elif "!strip" in options:
            continue
        elif elf.is_elf(full):
            (archives if full.suffix == ".o" else programs).append(path)
        elif full.suffix == ".a" and not full.is_symlink():
            archives.append(path)
    for title, paths in (("programs", programs), ("archives", archives)):
        (Work(name).build / title).write_text("".join(f"/build/dest/{path}\0" for path in paths))
    script = """
        cd /build
        xargs -0 -r chmod u+w <programs
        xargs -0 -r chmod u+w <archives
        xargs -0 -r "$STRIP" --strip-unneeded -R .comment <programs
        xargs -0 -r "$STRIP" --strip-debug --enable-deterministic-archives <archives
    """
    sandbox.run(script, title=f"{name}: strip", log=job.log)


def _split(job: Job, loaded: PackageRecipe, installed: Path, key: str) -> Path:
    """Split the installed files into packages; return the entry of the cache."""
    with files.scratch(cache_dir() / "tmp") as scratch:
        parts = split.split(installed, scratch / "files", loaded, sysroot_path(loaded.name), job.note)
        built = BuildRecord(
            recipe=loaded.name,
            license=loaded.license,
            homepage=loaded.homepage,
            key=key,
            tree=digest.tree_digest(scratch / "files"),
            parts=tuple(parts),
        )
        (scratch / "built.json").write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=1))
        results = {name: scratch / name for name in ("files", "built.json")}
        return result_cache.add(key, f"{loaded.name}: packages", results, move=True)


def _link_tree(source: Path, target: Path, what: str) -> None:
    if not source.is_dir():
        raise NablaError(f"the files of {what} are missing: {source}", f"run the task that builds {what} again")
    for folder, names, others in os.walk(source):
        inside = target / os.path.relpath(folder, source)
        inside.mkdir(exist_ok=True)
        for entry in [*others, *(each for each in names if os.path.islink(os.path.join(folder, each)))]:
            path = inside / entry
            if path.is_symlink() or path.exists():
                raise PackageError(f"{what} and another package in the sysroot contain {path.relative_to(target)}")
            _link(Path(folder) / entry, path)


def _link(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    try:
        os.link(source, target)
    except OSError:  # the cache is on another file system
        shutil.copy2(source, target)


def _local(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): digest.sha256_file(file) for file in source_tree.local_files(path)}


def make_packages(job: Job, name: str) -> None:
    """Step: build one recipe, or restore it from the cache, and write its package files."""
    loaded = catalog.load(name)
    built = obtain(job, loaded)
    parts = {part.apk: part for part in built.parts}
    for path in catalog.apks(loaded):
        if path not in parts:
            raise PackageError(f"{name}: the package {path.stem} contains no file", "see docs/packages.md")
        content = files_path(built.key, parts[path].name)
        scratch = job.scratch() / parts[path].name
        apk.make_package(built, parts[path], content, job.out(path), tools=APK_TOOLS.path, scratch=scratch, log=job.log)
    for part in built.parts:
        job.note(f"{part.name} {part.version}: {len(part.files)} files")
    job.out(package_record(name)).write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=1) + b"\n")
