# SPDX-License-Identifier: Apache-2.0
"""Build a component from its recipe in the sandbox: unpack, patch, configure, build, install.

    fetch:<name> -> unpack -> patch -> configure -> build -> install

Each step writes a small record of its inputs, out/work/<name>/<step>.json; the next step depends only on that file. A
changed patch message therefore rebuilds nothing, and a changed compiler rebuilds everything.

    build/<name>    a copy of the patched source, the working folder of the build; /build/<name> in the sandbox
    build/dest      $DESTDIR, the installed files
    build/state     the last complete step and its inputs; a step that needs a later one starts over

`state` detects builds that were killed and may have left incomplete objects. The kernel has its own steps
(nabla.build.kernel): its build is incremental and outside of the source.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.build import source_tree
from nabla.build.source_tree import Work
from nabla.core import digest, files, progress
from nabla.core.artifacts import BUILD_ROOT, Tree
from nabla.core.errors import NablaError
from nabla.core.paths import MUSL, TOOLCHAIN, relative
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.engine.uptodate import real_path
from nabla.sandbox import bwrap, lockfile
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe
from nabla.sources.recipe import Recipe


@dataclass(frozen=True)
class Build:
    """One build of a recipe. `with_musl`: for the guest, by the compiler wrapper for out/musl, mounted at /sysroot;
    otherwise by the build root's compiler."""

    recipe: Recipe
    with_musl: bool

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe.name

    @property
    def work(self) -> Work:
        """The folders of the recipe."""
        return Work(self.name)

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of the compiled copy: source, scripts, compiler, libc, other files of the recipe."""
        scripts = self.recipe.config()["build"] or {}
        return {
            "patched": digest.sha256_file(self.work.patched),
            "scripts": {key: scripts.get(key) for key in ("env", "configure", "build")},
            "files": {path.name: digest.sha256_file(path) for path in _recipe_files(self.recipe)},
            "buildroot": lockfile.read_lock().tree,
            "wrappers": digest.tree_digest(TOOLCHAIN / "bin"),
            "musl": Tree(MUSL).stamp.read_text(encoding="utf-8").strip() if self.with_musl else None,
        }

    def state(self, step: str) -> list[str]:
        """Return the content of `state` after a step."""
        return [step, digest.config_digest(self.inputs())]

    def sandbox(self) -> Sandbox:
        """Return the sandbox of the build: its folder at /build, the recipe's folder at /src."""
        binds = [Bind(self.work.build, "/build", writable=True), Bind(self.recipe.folder, "/src")]
        if self.with_musl:
            binds.append(Bind(MUSL, "/sysroot"))
        env = {
            "JOBS": str(bwrap.jobs()),
            "DESTDIR": "/build/dest",
            "RECIPE": "/src",
            "VERSION": self.recipe.version,
        }
        build = self.recipe.build
        env.update(build.env if build else {})
        return Sandbox(tuple(binds), env, f"/build/{self.name}", shell_command=f"./doit.sh shell {self.name}")

    def configure(self, job: Job) -> None:
        """Create a fresh copy of the source and run the script `configure` in it."""
        source_tree.ensure_source_tree(job, self.recipe)
        files.remove(self.work.build)
        self.work.build.mkdir(parents=True)
        shutil.copytree(self.work.source, self.work.build / self.name, symlinks=True)
        self.run(job, "configure")
        source_tree.write(self.work.state, self.state("configured"))

    def compile(self, job: Job) -> None:
        """Run the script `build`, in a fresh copy if the present one is used."""
        if source_tree.read(self.work.state) != self.state("configured"):
            job.note("the last build failed or was killed: starting over with a fresh copy")
            self.configure(job)
        self.work.state.unlink()
        with progress.counting(f"{self.name}: compile", self.name) as counter:
            self.run(job, "build", counter)
        source_tree.write(self.work.state, self.state("built"))

    def run(self, job: Job, step: str, counter: Callable[[str], None] | None = None) -> None:
        """Run one script of the recipe."""
        script: str = getattr(self.recipe.build, step) if self.recipe.build else ""
        if script:
            self.sandbox().run(script, title=f"{self.name}: {step}", log=job.log, progress=counter)


def configure(job: Job, name: str, with_musl: bool) -> None:
    """Step: configure the component."""
    build = Build(recipe.load(name), with_musl)
    build.configure(job)
    source_tree.write(job.out(build.work.configured), build.inputs())


def compile_component(job: Job, name: str, with_musl: bool) -> None:
    """Step: compile the component."""
    build = Build(recipe.load(name), with_musl)
    build.compile(job)
    source_tree.write(job.out(build.work.built), build.inputs())


def install(job: Job, name: str, with_musl: bool, results: Mapping[str, str]) -> None:
    """Step: run the recipe's `install` with an empty $DESTDIR and copy `results` (path in it -> output) from there."""
    build = Build(recipe.load(name), with_musl)
    if source_tree.read(build.work.state) != build.state("built"):
        build.compile(job)
    destination = build.work.build / "dest"
    files.remove(destination)
    destination.mkdir()
    build.run(job, "install")
    for inside, target in results.items():
        path = destination / inside
        if not path.exists():
            raise NablaError(f"{name}: `install` created no {inside} below $DESTDIR", f"see {relative(job.log)}")
        output = next(item for item in job.outputs if str(real_path(item)) == target)
        if isinstance(output, Tree):
            shutil.copytree(path, job.out(output), symlinks=True)
        else:
            shutil.copy(path, job.out(output))


def steps(
    area: str,
    name: str,
    results: Mapping[str, Path | Tree],
    *,
    doc: str,
    with_musl: bool,
) -> Iterator[TaskDict]:
    """Yield the tasks `area:unpack` … `area:install` for recipe `name`.

    `results`: path below $DESTDIR ("." = all of it) -> output. `with_musl`: see `Build`.
    """
    loaded, work = recipe.load(name), Work(name)
    config = loaded.config()["build"]
    tools = [BUILD_ROOT, *task.source_files(TOOLCHAIN / "bin")]
    scripts = {key: config[key] for key in ("configure", "build", "install")} if config else {}
    env = config["env"] if config else {}
    yield task.group(area, doc)
    yield from source_tree.steps(area, loaded)
    yield task.step(
        f"{area}:configure",
        configure,
        doc=f"configure {name} in a fresh copy of its source",
        inputs=[work.patched, *tools, *([Tree(MUSL)] if with_musl else []), *_recipe_files(loaded)],
        outputs=[work.configured],
        # `build` counts, too: objects that were compiled with other flags must not stay.
        config=[env, scripts.get("configure"), scripts.get("build")],
        args=[name, with_musl],
        cacheable=True,
    )
    yield task.step(
        f"{area}:build",
        compile_component,
        doc=f"compile {name}",
        inputs=[work.configured],
        outputs=[work.built],
        config=[env, scripts.get("build")],
        args=[name, with_musl],
        cacheable=True,
    )
    yield task.step(
        f"{area}:install",
        install,
        doc="install into " + ", ".join(relative(real_path(item)) for item in results.values()),
        inputs=[work.built, *tools],
        outputs=list(results.values()),
        config=[env, scripts.get("install")],
        args=[name, with_musl, {inside: str(real_path(item)) for inside, item in results.items()}],
        cacheable=True,
    )


def _recipe_files(loaded: Recipe) -> list[Path]:
    """Return the files beside recipe.toml, which a build script may read (for example a .config)."""
    return [path for path in task.source_files(loaded.folder) if path.name != "recipe.toml"]
