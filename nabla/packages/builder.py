# SPDX-License-Identifier: Apache-2.0
"""Build one recipe for the repository: compile against a sysroot of its own, install, split into packages, keep.

    out/work/<recipe>/sysroot       libc, libgcc and the files of all packages it is built against, by hard links
    out/work/<recipe>/build/<name>  a copy of the patched source, /build/<name> in the sandbox
    out/work/<recipe>/build/dest    $DESTDIR

What was installed, and the packages made of it, go to the cache, each under a digest of all that went in: no checkout
builds the same thing twice, another division into packages compiles nothing, and an earlier state is there at once.
What a dependant is built against is told by the digest of the files: a change that makes no difference ends there.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from nabla.build import source_tree
from nabla.build.source_tree import Work
from nabla.core import digest, files, progress
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.paths import MUSL, STATE, TOOLCHAIN, cache_dir
from nabla.core.process import run
from nabla.engine import task
from nabla.engine.task import Job
from nabla.packages import elf, split
from nabla.packages.catalog import Built, PackageError, built_tree, closure, read_record
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import fetch, recipe, store
from nabla.sources.recipe import Recipe

TRIPLET = "x86_64-nabla-linux-musl"
CROSS = TOOLCHAIN / "cross"
STEPS = ("prepare", "build", "package")
# To be raised by whoever changes this module so that the same recipe installs other bytes.
FORM = 1

# Names of folders on the build machine, indexes over several packages; of no use on a system with packages.
_RUBBISH = re.compile(r".*\.la|usr/share/info/dir|.*/perllocal\.pod|.*/\.packlist|.*/__pycache__/.*")

# No debug information: it would name paths, and be cut off anyway.
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


def compile_facts(name: str) -> dict[str, Any]:
    """Return all that decides what a recipe installs, as JSON data."""
    loaded = recipe.load(name)
    assert loaded.package is not None
    package = loaded.package
    tree = built_tree(loaded)
    return {
        **({"built": tree.stamp.read_text(encoding="utf-8").strip()} if tree else {}),
        **({"options": package.options} if package.options else {}),
        "recipe": [name, loaded.version, package.env, [getattr(package, step) for step in STEPS]],
        "sources": [
            [s.name, s.unpack, s.strip, fetch.fetch(s).name if s.local is None else _local(s.local_path)]
            for s in loaded.source
        ],
        "patches": [digest.sha256_file(path) for path in loaded.patches],
        "files": {str(path.relative_to(loaded.folder)): digest.sha256_file(path) for path in extra_files(loaded)},
        "root": lockfile.read_lock(lockfile.PACKAGING.lock).tree,
        "toolchain": digest.tree_digest(CROSS),
        "musl": Tree(MUSL).stamp.read_text(encoding="utf-8").strip(),
        "depends": {each: read_record(each).tree for each in closure(name)},
        "form": [FORM, sorted({**bwrap.ENVIRONMENT, **ENVIRONMENT}.items()), _RUBBISH.pattern],
    }


def split_facts(loaded: Recipe, installed: str) -> dict[str, Any]:
    """Return all that decides a recipe's packages; `installed`: digest of what it installed."""
    assert loaded.package is not None
    package = msgspec.to_builtins(loaded.package)
    for step in (*STEPS, "env", "options", "makedepends", "check"):
        package.pop(step, None)
    return {
        "installed": installed,
        "recipe": [loaded.name, loaded.version, loaded.license, loaded.summary, loaded.homepage, package],
        "files": {str(path.relative_to(loaded.folder)): digest.sha256_file(path) for path in extra_files(loaded)},
        "code": [digest.python_digest(path) for path in split.CODE],
    }


def extra_files(loaded: Recipe) -> list[Path]:
    """Return the files beside recipe.toml which a step may read."""
    return [path for path in task.source_files(loaded.folder) if path.name != "recipe.toml"]


def files_path(key: str, part: str) -> Path:
    """Return the folder that holds the files of one package."""
    return _entry(key) / "files" / part


def obtain(job: Job, name: str) -> Built:
    """Return the packages of a recipe: from the cache, or built now. Raises `PackageError`, `CommandError`."""
    loaded = recipe.load(name)
    waiting = f"{job.name}: waiting for another step of {name}"
    with files.lock(STATE / "locks" / f"work-{name}", waiting):
        installed = _installed(job, name)
        key = digest.config_digest(split_facts(loaded, digest.tree_digest(installed)))
        with store.cache().lock(f"package-{key[:32]}"):
            built = _find(key)
            if built is None:
                compose_sysroot(sysroot_path(name), closure(name))
                built = _split(job, loaded, installed, key)
    return built


def enter(name: str) -> Sandbox:
    """Return the sandbox in which a recipe is built, its sysroot as the last build left it."""
    loaded, work = recipe.load(name), Work(name)
    assert loaded.package is not None
    binds = [
        Bind(work.build, "/build", writable=True),
        Bind(loaded.folder, "/src"),
        Bind(sysroot_path(name), "/sysroot"),
    ]
    if tree := built_tree(loaded):
        binds.append(Bind(tree.path, "/extra"))
    env = {**ENVIRONMENT, "JOBS": str(bwrap.jobs()), "VERSION": loaded.version, **loaded.package.env}
    return Sandbox(tuple(binds), env, f"/build/{name}", lockfile.PACKAGING, f"./doit.sh shell {name}")


def sysroot_path(name: str) -> Path:
    """Return the folder of a recipe's sysroot."""
    return Work(name).base / "sysroot"


def compose_sysroot(root: Path, recipes: Sequence[str]) -> None:
    """Link libc and the packages of these recipes together. Raises `PackageError` when two packages hold one file."""
    files.remove(root)
    root.mkdir(parents=True)
    _link_tree(MUSL, root, "libc")
    for each in recipes:
        built = read_record(each)
        for part in built.parts:
            _link_tree(files_path(built.key, part.name), root, part.name)


def _installed(job: Job, name: str) -> Path:
    """Return the folder with all that a recipe installs, from the cache or built now."""
    key = digest.config_digest(compile_facts(name))
    with store.cache().lock(f"package-{key[:32]}"):
        entry = _entry(key)
        with suppress(FileNotFoundError):
            if digest.path_digest(entry / "installed") == (entry / "tree").read_text(encoding="utf-8"):
                job.note(f"taken from the cache: {key}")
                return entry / "installed"
        _compile(job, name)
        destination = Work(name).build / "dest"
        with store.cache().scratch() as scratch:
            _move(destination, scratch / "installed")
            (scratch / "tree").write_text(digest.tree_digest(scratch / "installed"), encoding="utf-8")
            _publish(scratch, ("installed", "tree"), entry)
        # What was built lies in the cache now; a failed build keeps its folder, for `doit shell`.
        files.remove(Work(name).build)
    return entry / "installed"


def _compile(job: Job, name: str) -> None:
    loaded, work = recipe.load(name), Work(name)
    assert loaded.package is not None
    source_tree.ready(job, name)
    files.remove(work.build)
    work.build.mkdir(parents=True)
    shutil.copytree(work.source, work.build / name, symlinks=True)
    compose_sysroot(sysroot_path(name), closure(name))
    place = enter(name)
    destination = work.build / "dest"
    for step in STEPS:
        script: str = getattr(loaded.package, step)
        if step == "package":
            destination.mkdir()
        if not script:
            continue
        if step == "build":
            with progress.counting(f"{name}: compile", name) as counter:
                _run(place, job, name, step, script, counter)
        else:
            _run(place, job, name, step, script)
    _tidy(place, job, loaded, destination)


def _tidy(place: Sandbox, job: Job, loaded: Recipe, destination: Path) -> None:
    """Remove what no package shall hold, cut off symbols."""
    assert loaded.package is not None
    name, options = loaded.name, loaded.package.options
    programs: list[str] = []
    archives: list[str] = []
    for path in split.files(destination):
        full = destination / path
        if "/__pycache__/" in path and "bytecode" in options:
            continue
        if _RUBBISH.fullmatch(path):
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
    place.run(script, title=f"{name}: strip", log=job.log)


def _split(job: Job, loaded: Recipe, installed: Path, key: str) -> Built:
    with store.cache().scratch() as scratch:
        parts = split.split(installed, scratch / "files", loaded, sysroot_path(loaded.name), job.note)
        built = Built(
            recipe=loaded.name,
            license=loaded.license,
            homepage=loaded.homepage,
            key=key,
            tree=digest.tree_digest(scratch / "files"),
            parts=tuple(parts),
        )
        (scratch / "built.json").write_bytes(msgspec.json.format(msgspec.json.encode(built), indent=1))
        _publish(scratch, ("files", "built.json"), _entry(key))
    return built


def _move(source: Path, target: Path) -> None:
    """Move a folder, also to another file system. Hard links stay what they are: apk records them in packages."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        run(["cp", "-a", source, target])
        files.remove(source)


def _find(key: str) -> Built | None:
    """Return what lies in the cache under a key; None where nothing does, or what is there was damaged."""
    entry = _entry(key)
    try:
        built = msgspec.json.decode((entry / "built.json").read_bytes(), type=Built)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return built if digest.path_digest(entry / "files") == built.tree else None


def _entry(key: str) -> Path:
    """Return where the result of that key lies, or would lie."""
    return cache_dir() / "packages" / key[:2] / key


def _publish(scratch: Path, names: Sequence[str], entry: Path) -> None:
    """Move finished results to their place in the cache, by one rename."""
    whole = scratch / "entry"
    whole.mkdir()
    for name in names:
        (scratch / name).rename(whole / name)
    files.make_folder(entry.parent)
    files.remove(entry)
    whole.rename(entry)


def _run(
    place: Sandbox, job: Job, name: str, step: str, script: str, counter: Callable[[str], None] | None = None
) -> None:
    place.run(script, title=f"{name}: {step}", log=job.log, progress=counter)


def _link_tree(source: Path, target: Path, what: str) -> None:
    if not source.is_dir():
        raise NablaError(f"the files of {what} are gone from the cache", f"run the task that makes {what} again")
    for folder, names, others in os.walk(source):
        inside = target / os.path.relpath(folder, source)
        inside.mkdir(exist_ok=True)
        for entry in [*others, *(each for each in names if os.path.islink(os.path.join(folder, each)))]:
            place = inside / entry
            if place.is_symlink() or place.exists():
                raise PackageError(
                    f"{what} holds {place.relative_to(target)}, which something else in the sysroot holds too"
                )
            _link(Path(folder) / entry, place)


def _link(source: Path, target: Path) -> None:
    if source.is_symlink():
        target.symlink_to(source.readlink())
        return
    try:
        os.link(source, target)
    except OSError:  # the cache lies on another file system
        shutil.copy2(source, target)


def _local(path: Path | None) -> dict[str, str]:
    assert path is not None
    return {str(file.relative_to(path)): digest.sha256_file(file) for file in source_tree.local_files(path)}


def describe(built: Built) -> list[str]:
    """Return a line for each package: name, version, number of files."""
    return [f"{part.name} {part.version}: {len(part.files)} files" for part in built.parts]
