# SPDX-License-Identifier: Apache-2.0
"""The guest kernel: Linux for ARCH=um without an MMU.

    fetch:linux -> kernel:unpack -> :patch -> :config -> :build -> out/kernel/{vmlinux,config,System.map,sources}
                            patches/linux ^      ^ kernel-config/*.config

The kernel is compiled outside of its source (O=), which is mounted read-only. The objects stay between builds, so that
a change compiles only what depends on it; a full build would take minutes each time.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from nabla.build import kconfig, source_tree
from nabla.build.source_tree import Work
from nabla.core import digest, files, progress
from nabla.core.errors import CommandError, ConfigError
from nabla.core.paths import KERNEL, KERNEL_CONFIG, VMLINUX, relative
from nabla.engine.action import Job
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe
from verify.epoch import BUILD_TIMESTAMP

RECIPE = "linux"
CONFIG = KERNEL / "config"
SYMBOLS = KERNEL / "System.map"
# The files of the source tree that the compiler read: one path on each line, sorted.
SOURCES = KERNEL / "sources"

# Without these variables, the kernel contains the time, the user and the host name of the build.
IDENTITY = {
    "KBUILD_BUILD_TIMESTAMP": BUILD_TIMESTAMP,
    "KBUILD_BUILD_USER": "nabla",
    "KBUILD_BUILD_HOST": "build",
    "KBUILD_BUILD_VERSION": "1",
}
_MAKE = "make ARCH=um CC='ccache gcc-12' HOSTCC='ccache gcc-12' -C /build/linux O=/build/obj"

# ccache takes the headers from the compiler's dependency file instead of preprocessing each file. The kernel's
# dependency files list all headers; elsewhere `-MMD` omits those of the sysroot, which can change.
_CACHE = {"CCACHE_DEPEND": "1"}

# A dry run prints one command line of the compiler for each object.
_COMPILES = re.compile(r"gcc-12 .* -c -o \S+\.o ")
_COMPILED = re.compile(r"^  (?:CC|AS) ")
# A file of the source tree in the records of kbuild: the command of each object, and the files that it read.
_READ = re.compile(r"/build/linux/([^\s:;\"'=)]+)")


def config(job: Job, name: str) -> None:
    """Merge the fragments into an allnoconfig by the kernel's script, in a separate folder."""
    work, parts = Work(name), fragments()
    if not parts:
        raise ConfigError(f"there is no fragment in {relative(KERNEL_CONFIG)}/")
    kconfig.merged(parts)
    source_tree.ensure_source_tree(job, recipe.load(name))
    # The script calls make without CC; the compiler's version and features are options, too: hence the olddefconfig.
    scratch = work.base / "config"
    files.remove(scratch)
    scratch.mkdir(parents=True)
    names = " ".join(f"/src/{path.name}" for path in parts)
    script = f"""
        {_MAKE} -s outputmakefile
        cd /build/obj
        ARCH=um /build/linux/scripts/kconfig/merge_config.sh -n {names}
        {_MAKE} -s olddefconfig
    """
    enter(scratch, Bind(KERNEL_CONFIG, "/src")).run(script, title="merging the kernel's configuration", log=job.log)
    kconfig.check(parts, scratch / ".config")
    shutil.copy(scratch / ".config", job.out(CONFIG))


def compile_kernel(job: Job, name: str) -> None:
    """Run the kernel's make. Starts over after a killed build, which may have left incomplete objects."""
    work = Work(name)
    objects = work.objects
    source_tree.ensure_source_tree(job, recipe.load(name))
    # Objects belong to one compiler and one tree: another build root starts over.
    origin = "\n".join([lockfile.read_lock().tree, digest.sha256_file(work.unpacked), BUILD_TIMESTAMP])
    mark, dirty = objects / ".nabla-origin", objects / ".nabla-running"
    if dirty.exists() or not mark.exists() or mark.read_text() != origin:
        files.remove(objects)
        objects.mkdir(parents=True)
        mark.write_text(origin)
    if digest.path_digest(objects / ".config") != digest.sha256_file(CONFIG):
        shutil.copy(CONFIG, objects / ".config")
    dirty.touch()
    try:
        _make(job, objects)
    except CommandError as error:
        # make has exited and removed incomplete objects; after a signal nothing has.
        if error.returncode > 0:
            dirty.unlink()
        raise
    dirty.unlink()
    if digest.sha256_file(objects / ".config") != digest.sha256_file(CONFIG):
        raise ConfigError("the kernel's build changed its configuration", f"compare {relative(objects)}/.config")
    shutil.copy(objects / "vmlinux", job.out(VMLINUX))
    shutil.copy(objects / "System.map", job.out(SYMBOLS))
    job.out(SOURCES).write_text("".join(f"{path}\n" for path in _sources(objects, work.source)), encoding="utf-8")


def _sources(objects: Path, tree: Path) -> list[str]:
    """Return the source files of the objects in `objects`, relative to the source tree."""
    paths: set[str] = set()
    for command in objects.rglob(".*.cmd"):
        paths.update(_READ.findall(command.read_text(encoding="utf-8", errors="replace")))
    # Absent files stay in the list, so that they are noticed.
    return sorted({os.path.normpath(path) for path in paths if not (tree / path).is_dir()})


def _make(job: Job, objects: Path) -> None:
    sandbox = enter(objects)
    jobs = bwrap.jobs()
    sandbox.run(f"{_MAKE} -j{jobs} olddefconfig prepare", title="kernel: prepare", log=job.log)
    # -k: a dry run cannot link objects that it did not compile, and fails at its end.
    planned = sandbox.run(f"{_MAKE} -n -k vmlinux || true", title="kernel: count the objects")
    total = sum(1 for line in planned.stdout.splitlines() if _COMPILES.search(line))
    job.note(f"{total} objects to compile")
    with progress.counting("kernel: compile", RECIPE, total, _COMPILED) as counter:
        sandbox.run(f"{_MAKE} -j{jobs} vmlinux", title="kernel: compile", log=job.log, progress=counter)


def enter(objects: Path, *more: Bind) -> Sandbox:
    """Return the sandbox of the kernel's build: source at /build/linux, `objects` at /build/obj."""
    binds = (Bind(Work(RECIPE).source, "/build/linux"), Bind(objects, "/build/obj", writable=True), *more)
    env = {**IDENTITY, **_CACHE}
    return Sandbox((_mount_points(), *binds), env, "/build/obj", shell_command="./doit.sh shell kernel")


def _mount_points() -> Bind:
    """Return an empty /build with two mount points; the build root is read-only."""
    folder = Work(RECIPE).base / "mount"
    for name in ("linux", "obj"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Bind(folder, "/build")


def fragments() -> list[Path]:
    """Return the fragments of the configuration in the order of their merge."""
    return sorted(KERNEL_CONFIG.glob("*.config"))
