# SPDX-License-Identifier: Apache-2.0
"""From a recipe to its result: unpack, patch, configure, build and install inside the sandbox.

    fetch:<name> -> unpack -> patch -> configure -> build -> install

Each step leaves a small JSON file which says what it was made from; the next step depends on that file alone. So a
change of a patch message rebuilds nothing, and a change of the compiler everything. Below out/work/<name>/:

    source/tree        upstream's files with our patches        source/*.json   what they are
    build/<name>       a copy of it, in which the build works    build/dest      what it installed
    build/*.json       records of configure and build

The kernel has steps of its own (tasks/kernel.py): it is built beside its source, hence again in parts.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from nabla import digest, fetch, lockfile, progress, recipe, sandbox, series, store, tasklib, tree
from nabla.errors import NablaError
from nabla.paths import MUSL, STATE, TOOLCHAIN, WORK, relative
from nabla.sandbox import Bind, Sandbox
from nabla.tasklib import Job, TaskDict, Tree
from nabla.tasks.fetch import record_path

_CODE = (sandbox, series)


@dataclass(frozen=True)
class Work:
    """Where a recipe is built."""

    name: str

    @property
    def base(self) -> Path:
        """Everything of this recipe."""
        return WORK / self.name

    @property
    def source(self) -> Path:
        """The patched source tree."""
        return self.base / "source" / "tree"

    @property
    def build(self) -> Path:
        """The folder that is /build inside the sandbox."""
        return self.base / "build"

    @property
    def objects(self) -> Path:
        """Where the kernel is compiled, beside its source."""
        return self.base / "objects"

    @property
    def unpacked(self) -> Path:
        """Record of the step `unpack`."""
        return self.base / "source" / "unpacked.json"

    @property
    def patched(self) -> Path:
        """Record of the step `patch`."""
        return self.base / "source" / "patched.json"

    @property
    def configured(self) -> Path:
        """Record of the step `configure`."""
        return self.build / "configured.json"

    @property
    def built(self) -> Path:
        """Record of the step `build`."""
        return self.build / "built.json"

    @property
    def dirty(self) -> Path:
        """Exists while a build runs: found at the start of one, it tells that the last one was killed."""
        return self.build / "running"


P = ParamSpec("P")


def alone(action: Callable[Concatenate[Job, str, P], None]) -> Callable[Concatenate[Job, str, P], None]:
    """Let one step at a time work on a recipe, also when doit runs twice in this checkout."""

    @functools.wraps(action)
    def wrapper(job: Job, name: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with store.lock(STATE / "locks" / f"work-{name}", f"{job.name}: waiting for another step of {name}"):
            action(job, name, *args, **kwargs)

    return wrapper


@alone
def unpack(job: Job, name: str) -> None:
    """Bring the sources of a recipe, as upstream made them, to source/tree; nothing moves if they are there already."""
    loaded, work = recipe.load(name), Work(name)
    facts: list[dict[str, Any]] = []
    archives: list[tuple[recipe.Source, Path]] = []
    for source in loaded.source:
        local = source.local_path
        if local is not None:
            files = {path.relative_to(local).as_posix(): digest.sha256_file(path) for path in local_files(local)}
            facts.append({"name": source.name, "files": files})
            archives.append((source, local))
        else:
            path = fetch.fetch(source)
            facts.append({"name": source.name, "strip": source.strip, "sha256": tree.file_sha256(path)})
            archives.append((source, path))
    if _read(work.unpacked) != facts or not work.source.is_dir():
        work.unpacked.unlink(missing_ok=True)
        tasklib.remove(work.base / "source")
        work.source.mkdir(parents=True)
        for number, (source, path) in enumerate(archives):
            # The first source is the tree itself, further ones lie in a folder with their name.
            target = work.source if number == 0 else work.source / source.name
            _unpack_one(job, source, path, target)
    _write(job.out(work.unpacked), facts)


@alone
def patch(job: Job, name: str) -> None:
    """Apply the recipe's series; the record names the content of each patched file, not the patches."""
    loaded, work = recipe.load(name), Work(name)
    applied = series.Series(work.source, work.base / "source" / "memory")
    applied.apply(loaded.patches)
    paths = sorted({path for file in loaded.patches for path in series.touched(file)})
    facts = {
        "unpacked": digest.sha256_file(work.unpacked),
        "patched": {path: _content(work.source / path) for path in paths},
    }
    job.note(f"{len(loaded.patches)} patches, {len(paths)} files")
    _write(job.out(work.patched), facts)


@alone
def configure(job: Job, name: str, with_musl: bool) -> None:
    """Start over with a fresh copy of the source and run the recipe's `configure`."""
    work = Work(name)
    tasklib.remove(work.build)
    work.build.mkdir(parents=True)
    _run(job, name, "configure", with_musl)
    _write(job.out(work.configured), _facts(name, work.patched, with_musl))


@alone
def build(job: Job, name: str, with_musl: bool) -> None:
    """Run the recipe's `build`; after a killed build, which may have left half files, the copy is made anew."""
    work = Work(name)
    if work.dirty.exists():
        job.note("the last build was killed; starting over")
        tasklib.remove(work.build / name)
        _run(job, name, "configure", with_musl)
    work.dirty.touch()
    with progress.counting(f"{name}: compile", name) as counter:
        _run(job, name, "build", with_musl, counter)
    work.dirty.unlink()
    _write(job.out(work.built), _facts(name, work.configured, with_musl))


@alone
def install(job: Job, name: str, with_musl: bool, results: Mapping[str, str]) -> None:
    """Run the recipe's `install` into an empty $DESTDIR and copy `results` (path in it -> task output) from there."""
    work = Work(name)
    destination = work.build / "dest"
    tasklib.remove(destination)
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
    area: str, name: str, results: Mapping[str, Path | Tree], *, doc: str, with_musl: bool, extra: Sequence[Path] = ()
) -> Iterator[TaskDict]:
    """Yield the tasks `area:unpack` … `area:install` for recipe `name`.

    `results`: path below $DESTDIR ("." = all of it) -> output. `with_musl`: built for the guest by our wrapper against
    out/musl, mounted at /sysroot; else by the build root's own compiler. `extra`: further files whose content counts.
    """
    loaded, work = recipe.load(name), Work(name)
    facts = loaded.config()["build"]
    tools = [lockfile.LOCK, lockfile.PACKAGES, *tasklib.source_files(TOOLCHAIN / "bin")]
    needs: list[Path | Tree] = [*tools, *extra, *([Tree(MUSL)] if with_musl else [])]
    after = ["toolchain:unpack", *(["musl:install"] if with_musl else [])]
    scripts = {key: facts[key] for key in ("configure", "build", "install")} if facts else {}
    env = facts["env"] if facts else {}
    code = _CODE
    yield tasklib.group(area, doc)
    yield from source_steps(area, name)
    yield tasklib.step(
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
    )
    yield tasklib.step(
        f"{area}:build",
        build,
        doc=f"compile {name}",
        inputs=[work.configured],
        outputs=[work.built],
        after=[f"{area}:configure"],
        config=[env, scripts.get("build")],
        code=code,
        args=[name, with_musl],
    )
    yield tasklib.step(
        f"{area}:install",
        install,
        doc="install into " + ", ".join(relative(_path(item)) for item in results.values()),
        inputs=[work.built, *tools],
        outputs=list(results.values()),
        after=[f"{area}:build"],
        config=[env, scripts.get("install")],
        code=code,
        args=[name, with_musl, {inside: str(_path(item)) for inside, item in results.items()}],
    )


def source_steps(area: str, name: str) -> Iterator[TaskDict]:
    """Yield `area:unpack` and `area:patch` for recipe `name`."""
    loaded, work = recipe.load(name), Work(name)
    local = [path for s in loaded.source if s.local_path is not None for path in local_files(s.local_path)]
    remote = any(source.local is None for source in loaded.source)
    sources = [[s.name, s.strip, s.unpack] for s in loaded.source]
    yield tasklib.step(
        f"{area}:unpack",
        unpack,
        doc=f"unpack the source of {name} {loaded.version}",
        inputs=[*local, *([record_path(name)] if remote else [])],
        outputs=[work.unpacked],
        after=["toolchain:unpack", *([f"fetch:{name}"] if remote else [])],
        config=sources,
        args=[name],
    )
    yield tasklib.step(
        f"{area}:patch",
        patch,
        doc=f"apply patches/{name}" if loaded.patches else "nothing to patch",
        inputs=[work.unpacked, *loaded.patches],
        outputs=[work.patched],
        after=[f"{area}:unpack"],
        # The input files alone do not tell when one is gone.
        config=[path.name for path in loaded.patches],
        code=[series],
        args=[name],
    )


def enter(name: str, with_musl: bool) -> Sandbox:
    """Return the sandbox in which a recipe is built: its build folder at /build, the recipe's own folder at /src."""
    binds = [Bind(Work(name).build, "/build", writable=True), Bind(recipe.load(name).folder, "/src")]
    if with_musl:
        binds.append(Bind(MUSL, "/sysroot"))
    env = {
        "JOBS": str(sandbox.jobs()),
        "DESTDIR": "/build/dest",
        "RECIPE": "/src",
        "VERSION": recipe.load(name).version,
    }
    loaded = recipe.load(name).build
    return Sandbox(tuple(binds), {**env, **(loaded.env if loaded else {})}, f"/build/{name}")


def local_files(folder: Path) -> list[Path]:
    """Return the files of a local source, sorted: everything but hidden files and what building in place leaves."""
    return [path for path in tasklib.source_files(folder) if path.suffix not in (".o", ".a")]


def _run(job: Job, name: str, which: str, with_musl: bool, counter: Callable[[str], None] | None = None) -> None:
    work, steps_of = Work(name), recipe.load(name).build
    if which == "configure" and not (work.build / name).exists():
        shutil.copytree(work.source, work.build / name, symlinks=True)
    script: str = getattr(steps_of, which) if steps_of else ""
    if script:
        enter(name, with_musl).run(script, title=f"{name}: {which}", log=job.log, progress=counter)


def _facts(name: str, record: Path, with_musl: bool) -> dict[str, Any]:
    """What a step was made from; its digest goes into the next step's record, so that changes travel down."""
    musl = Tree(MUSL).stamp.read_text(encoding="utf-8").strip() if with_musl else None
    return {
        "recipe": recipe.load(name).config()["build"],
        "before": digest.sha256_file(record),
        "buildroot": lockfile.read_lock().tree,
        "wrappers": digest.tree_digest(TOOLCHAIN / "bin"),
        "musl": musl,
    }


def _recipe_files(loaded: recipe.Recipe) -> list[Path]:
    """Files beside recipe.toml which a build script may read (a .config for instance)."""
    return [path for path in tasklib.source_files(loaded.folder) if path.name != "recipe.toml"]


def _unpack_one(job: Job, source: recipe.Source, path: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        for file in local_files(path):
            copy = target / file.relative_to(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            # Whatever the umask was when the repository was cloned.
            copy.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    elif source.unpack:
        place = Sandbox((Bind(target, "/build", writable=True), Bind(path.parent, "/src")))
        # tar finds the compression out by itself; owners and set-id bits of the archive do not matter here.
        script = f"tar -xf /src/{path.name} --strip-components={source.strip} --no-same-owner --no-same-permissions"
        place.run(script, title=f"unpack {source.name}", log=job.log)
    else:
        shutil.copyfile(path, target / source.origin[0].file)


def _content(path: Path) -> str | None:
    """Digest of a file and whether it is a program; None where a patch removed it."""
    found = digest.path_digest(path)
    return f"{found} {'x' if path.stat().st_mode & 0o111 else '-'}" if found else None


def _path(item: Path | Tree) -> Path:
    return item.path if isinstance(item, Tree) else item


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _write(path: Path, facts: Any) -> None:
    store.make_folder(path.parent)
    path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
