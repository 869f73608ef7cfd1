# SPDX-License-Identifier: Apache-2.0
"""The guest kernel: Linux for ARCH=um with our no-MMU port.

    fetch:linux -> kernel:unpack -> :patch -> :config -> :build -> out/kernel/{vmlinux,config,System.map,sources}
                            patches/linux ^      ^ kernel-config/*.config

It is compiled beside its source (O=), which is mounted read-only, and stays in place between builds: a change compiles
what depends on it. Everything else would be safe but take minutes each time.
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
# The files of the source tree that were compiled, or read by what was: one path a line, sorted.
SOURCES = KERNEL / "sources"

# Without these three the kernel asks the clock, the user and the host name.
IDENTITY = {
    "KBUILD_BUILD_TIMESTAMP": BUILD_TIMESTAMP,
    "KBUILD_BUILD_USER": "nabla",
    "KBUILD_BUILD_HOST": "build",
    "KBUILD_BUILD_VERSION": "1",
}
_MAKE = "make ARCH=um CC='ccache gcc-12' HOSTCC='ccache gcc-12' -C /build/linux O=/build/obj"

# The compiler tells which headers it read, so that the cache need not preprocess each file once more on its own. Right
# for the kernel, whose headers are all told; elsewhere `-MMD` keeps silent about those of the sysroot, which change.
_CACHE = {"CCACHE_DEPEND": "1"}

# A dry run prints the compiler's command lines; each compiles one object.
_COMPILES = re.compile(r"gcc-12 .* -c -o \S+\.o ")
_COMPILED = re.compile(r"^  (?:CC|AS) ")
# A file of the source tree in what kbuild writes down for each object: its command, and all that it read.
_READ = re.compile(r"/build/linux/([^\s:;\"'=)]+)")


def config(job: Job, name: str) -> None:
    """Merge the fragments on top of "no to everything", by the kernel's own script, in a folder of its own."""
    work, parts = Work(name), fragments()
    if not parts:
        raise ConfigError(f"there is no fragment in {relative(KERNEL_CONFIG)}/")
    kconfig.wanted(parts)
    source_tree.ensure_source_tree(job, recipe.load(name))
    # The script calls make without our compiler, whose name and abilities are options too: hence one more olddefconfig.
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
    """Run the kernel's make; after a killed build, which may have left half objects, from nothing."""
    work = Work(name)
    objects = work.objects
    source_tree.ensure_source_tree(job, recipe.load(name))
    # Objects are only as good as the compiler and the tree they came from: another build root starts over.
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
        # make ended by itself and removed what it could not finish; after a signal nobody did.
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
    """Return what the objects in `objects` were made of, paths relative to the source tree."""
    named: set[str] = set()
    for command in objects.rglob(".*.cmd"):
        named.update(_READ.findall(command.read_text(encoding="utf-8", errors="replace")))
    # What is absent stays: nobody shall overlook that it was wanted.
    return sorted({os.path.normpath(path) for path in named if not (tree / path).is_dir()})


def _make(job: Job, objects: Path) -> None:
    place = enter(objects)
    jobs = bwrap.jobs()
    place.run(f"{_MAKE} -j{jobs} olddefconfig prepare", title="kernel: prepare", log=job.log)
    # -k: a dry run cannot link what it did not compile, and says so at its end.
    planned = place.run(f"{_MAKE} -n -k vmlinux || true", title="kernel: count the objects")
    total = sum(1 for line in planned.stdout.splitlines() if _COMPILES.search(line))
    job.note(f"{total} objects to compile")
    with progress.counting("kernel: compile", RECIPE, total, _COMPILED) as counter:
        place.run(f"{_MAKE} -j{jobs} vmlinux", title="kernel: compile", log=job.log, progress=counter)


def enter(objects: Path, *more: Bind) -> Sandbox:
    """Return the sandbox of the kernel's build: source at /build/linux, `objects` at /build/obj."""
    binds = (Bind(Work(RECIPE).source, "/build/linux"), Bind(objects, "/build/obj", writable=True), *more)
    env = {**IDENTITY, **_CACHE}
    return Sandbox((_mount_points(), *binds), env, "/build/obj", shell_command="./doit.sh shell kernel")


def _mount_points() -> Bind:
    """An empty /build with the two folders to mount on; the build root is read-only."""
    folder = Work(RECIPE).base / "mount"
    for name in ("linux", "obj"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Bind(folder, "/build")


def fragments() -> list[Path]:
    """Return the fragments of the configuration, in the order in which they are merged."""
    return sorted(KERNEL_CONFIG.glob("*.config"))
