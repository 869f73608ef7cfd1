# SPDX-License-Identifier: Apache-2.0
"""From a recipe to its result: unpack, patch, configure, build and install inside the sandbox.

    fetch:<name> -> unpack -> patch -> configure -> build -> install

Each step leaves a small record, out/work/<name>/<step>.json, which says what it was made from; the next step depends on
that file alone. So a change of a patch message rebuilds nothing, and a change of the compiler everything.

    build/<name>    a copy of the patched source, in which the build works; /build/<name> in the sandbox
    build/dest      what it installed
    build/phase     how far the copy got, and of what; a step that finds less than it needs makes up for it

The last line is for builds that were killed: half an object must not be taken for a whole one. The kernel has steps of
its own (tasks/kernel.py): it is built beside its source, hence again in parts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nabla.build import series, source_tree
from nabla.build.source_tree import Work, alone
from nabla.core import digest, files, progress
from nabla.core.artifacts import Tree
from nabla.core.errors import NablaError
from nabla.core.paths import MUSL, TOOLCHAIN, relative
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe


@alone
def configure(job: Job, name: str, with_musl: bool) -> None:
    """Step: start over with a fresh copy of the source and run the recipe's `configure`."""
    _configure(job, name, with_musl)
    source_tree.write(job.out(Work(name).configured), _facts(name, with_musl))


@alone
def build(job: Job, name: str, with_musl: bool) -> None:
    """Step: run the recipe's `build`."""
    _build(job, name, with_musl)
    source_tree.write(job.out(Work(name).built), _facts(name, with_musl))


@alone
def install(job: Job, name: str, with_musl: bool, results: Mapping[str, str]) -> None:
    """Step: run the recipe's `install` into an empty $DESTDIR and copy `results` (path in it -> output) from there."""
    if source_tree.read(Work(name).phase) != ["built", _key(name, with_musl)]:
        _build(job, name, with_musl)
    destination = Work(name).build / "dest"
    files.remove(destination)
    destination.mkdir()
    _run(job, name, "install", with_musl)
    for inside, place in results.items():
        found = destination / inside
        if not found.exists():
            raise NablaError(f"{name}: `install` made no {inside} below $DESTDIR", f"see {relative(job.log)}")
        output = next(item for item in job.outputs if str(item.path if isinstance(item, Tree) else item) == place)
        if isinstance(output, Tree):
            shutil.copytree(found, job.out(output), symlinks=True)
        else:
            shutil.copy(found, job.out(output))


def steps(
    area: str,
    name: str,
    results: Mapping[str, Path | Tree],
    *,
    doc: str,
    with_musl: bool,
) -> Iterator[TaskDict]:
    """Yield the tasks `area:unpack` … `area:install` for recipe `name`.

    `results`: path below $DESTDIR ("." = all of it) -> output. `with_musl`: built for the guest by our wrapper against
    out/musl, mounted at /sysroot; else by the build root's own compiler.
    """
    loaded, work = recipe.load(name), Work(name)
    facts = loaded.config()["build"]
    tools = [lockfile.LOCK, lockfile.PACKAGES, *task.source_files(TOOLCHAIN / "bin")]
    needs: list[Path | Tree] = [*tools, *([Tree(MUSL)] if with_musl else [])]
    after = ["toolchain:unpack", *(["musl:install"] if with_musl else [])]
    scripts = {key: facts[key] for key in ("configure", "build", "install")} if facts else {}
    env = facts["env"] if facts else {}
    code = (bwrap, series, source_tree)
    yield task.group(area, doc)
    yield from source_tree.steps(area, name)
    yield task.step(
        f"{area}:configure",
        configure,
        doc=f"configure {name} in a fresh copy of its source",
        inputs=[work.patched, *needs, *_recipe_files(loaded)],
        outputs=[work.configured],
        after=after,
        # `build` counts too: objects made with other flags must not stay.
        config=[env, scripts.get("configure"), scripts.get("build")],
        code=code,
        args=[name, with_musl],
        kept=True,
    )
    yield task.step(
        f"{area}:build",
        build,
        doc=f"compile {name}",
        inputs=[work.configured],
        outputs=[work.built],
        after=[f"{area}:configure"],
        config=[env, scripts.get("build")],
        code=code,
        args=[name, with_musl],
        kept=True,
    )
    yield task.step(
        f"{area}:install",
        install,
        doc="install into " + ", ".join(relative(_path(item)) for item in results.values()),
        inputs=[work.built, *tools],
        outputs=list(results.values()),
        after=[f"{area}:build"],
        config=[env, scripts.get("install")],
        code=code,
        args=[name, with_musl, {inside: str(_path(item)) for inside, item in results.items()}],
        kept=True,
    )


def enter(name: str, with_musl: bool) -> Sandbox:
    """Return the sandbox in which a recipe is built: its build folder at /build, the recipe's own folder at /src."""
    binds = [Bind(Work(name).build, "/build", writable=True), Bind(recipe.load(name).folder, "/src")]
    if with_musl:
        binds.append(Bind(MUSL, "/sysroot"))
    env = {
        "JOBS": str(bwrap.jobs()),
        "DESTDIR": "/build/dest",
        "RECIPE": "/src",
        "VERSION": recipe.load(name).version,
    }
    loaded = recipe.load(name).build
    env = {**env, **(loaded.env if loaded else {})}
    return Sandbox(tuple(binds), env, f"/build/{name}", shell_command=f"./doit.sh shell {name}")


def _configure(job: Job, name: str, with_musl: bool) -> None:
    work = Work(name)
    source_tree.ready(job, name)
    files.remove(work.build)
    work.build.mkdir(parents=True)
    shutil.copytree(work.source, work.build / name, symlinks=True)
    _run(job, name, "configure", with_musl)
    source_tree.write(work.phase, ["configured", _key(name, with_musl)])


def _build(job: Job, name: str, with_musl: bool) -> None:
    work = Work(name)
    if source_tree.read(work.phase) != ["configured", _key(name, with_musl)]:
        job.note("there is no fresh copy (the last build failed or was killed): starting over")
        _configure(job, name, with_musl)
    work.phase.unlink()
    with progress.counting(f"{name}: compile", name) as counter:
        _run(job, name, "build", with_musl, counter)
    source_tree.write(work.phase, ["built", _key(name, with_musl)])


def _run(job: Job, name: str, which: str, with_musl: bool, counter: Callable[[str], None] | None = None) -> None:
    recipe_build = recipe.load(name).build
    script: str = getattr(recipe_build, which) if recipe_build else ""
    if script:
        enter(name, with_musl).run(script, title=f"{name}: {which}", log=job.log, progress=counter)


def _facts(name: str, with_musl: bool) -> dict[str, Any]:
    """What the compiled copy is made from: source, scripts, compiler, libc, further files of the recipe."""
    loaded = recipe.load(name)
    scripts = loaded.config()["build"] or {}
    return {
        "patched": digest.sha256_file(Work(name).patched),
        "scripts": {key: scripts.get(key) for key in ("env", "configure", "build")},
        "files": {path.name: digest.sha256_file(path) for path in _recipe_files(loaded)},
        "buildroot": lockfile.read_lock().tree,
        "wrappers": digest.tree_digest(TOOLCHAIN / "bin"),
        "musl": Tree(MUSL).stamp.read_text(encoding="utf-8").strip() if with_musl else None,
    }


def _key(name: str, with_musl: bool) -> str:
    return digest.config_digest(_facts(name, with_musl))


def _recipe_files(loaded: recipe.Recipe) -> list[Path]:
    """Files beside recipe.toml which a build script may read (a .config for instance)."""
    return [path for path in task.source_files(loaded.folder) if path.name != "recipe.toml"]


def _path(item: Path | Tree) -> Path:
    return item.path if isinstance(item, Tree) else item
