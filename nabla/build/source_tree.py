# SPDX-License-Identifier: Apache-2.0
"""Source trees: unpacked from the cache or copied from this repository, and patched.

    source/tree     upstream's files with our patches
    source/memory   what is needed to take the patches out again
    source/origin   which files the tree was unpacked from; written last, so without it the tree counts for nothing

The records that other steps depend on lie outside, in out/work/<name>/*.json. Whoever needs a tree calls `ready`, which
repairs one that was removed or left half-made.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from nabla.build import series
from nabla.core import digest, files
from nabla.core.paths import STATE, WORK
from nabla.engine import task
from nabla.engine.task import Job, TaskDict
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import fetch, recipe
from nabla.sources.records import record_path


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
    def phase(self) -> Path:
        """Says how far the build folder got, and of what; absent while a build runs."""
        return self.build / "phase"

    @property
    def objects(self) -> Path:
        """Where the kernel is compiled, beside its source."""
        return self.base / "objects"

    @property
    def unpacked(self) -> Path:
        """Record of the step `unpack`."""
        return self.base / "unpacked.json"

    @property
    def patched(self) -> Path:
        """Record of the step `patch`."""
        return self.base / "patched.json"

    @property
    def configured(self) -> Path:
        """Record of the step `configure`."""
        return self.base / "configured.json"

    @property
    def built(self) -> Path:
        """Record of the step `build`."""
        return self.base / "built.json"


P = ParamSpec("P")


def alone(action: Callable[Concatenate[Job, str, P], None]) -> Callable[Concatenate[Job, str, P], None]:
    """Let one step at a time work on a recipe, also when doit runs twice in this checkout."""

    @functools.wraps(action)
    def wrapper(job: Job, name: str, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with files.lock(STATE / "locks" / f"work-{name}", f"{job.name}: waiting for another step of {name}"):
            action(job, name, *args, **kwargs)

    return wrapper


@alone
def unpack(job: Job, name: str) -> None:
    """Step: bring the sources of a recipe to source/tree; nothing moves if they are there already."""
    write(job.out(Work(name).unpacked), _unpacked(job, name))


@alone
def patch(job: Job, name: str) -> None:
    """Step: apply the series; the record names the content of each patched file, not the patches."""
    loaded, work = recipe.load(name), Work(name)
    ready(job, name)
    paths = sorted({path for file in loaded.patches for path in series.touched(file)})
    facts = {
        "unpacked": digest.sha256_file(work.unpacked),
        "patched": {path: _content(work.source / path) for path in paths},
    }
    job.note(f"{len(loaded.patches)} patches, {len(paths)} files")
    write(job.out(work.patched), facts)


def ready(job: Job, name: str) -> None:
    """Make sure that source/tree is there and carries the series. The caller is `alone` with the recipe."""
    loaded, folder = recipe.load(name), Work(name).source.parent
    _unpacked(job, name)
    applied = folder / "applied"
    facts = [[path.name, digest.sha256_file(path)] for path in loaded.patches]
    if read(applied) != facts:
        series.Series(Work(name).source, folder / "memory").apply(loaded.patches)
        write(applied, facts)


def _unpacked(job: Job, name: str) -> Any:
    """Make sure that source/tree is unpacked from the right files; returns what they are."""
    loaded, work = recipe.load(name), Work(name)
    facts: list[dict[str, Any]] = []
    places: list[Path] = []
    for source in loaded.source:
        local = source.local_path
        if local is not None:
            digests = {path.relative_to(local).as_posix(): digest.sha256_file(path) for path in local_files(local)}
            facts.append({"name": source.name, "files": digests})
            places.append(local)
        else:
            places.append(fetch.fetch(source))
            facts.append({"name": source.name, "strip": source.strip, "sha256": places[-1].name})
    origin = work.source.parent / "origin"
    if read(origin) != facts or not work.source.is_dir():
        files.remove(work.source.parent)
        work.source.mkdir(parents=True)
        for number, (source, path) in enumerate(zip(loaded.source, places, strict=True)):
            # The first source is the tree itself, further ones lie in a folder with their name.
            _unpack_one(job, source, path, work.source if number == 0 else work.source / source.name)
        write(origin, facts)
    return facts


def steps(area: str, name: str) -> Iterator[TaskDict]:
    """Yield `area:unpack` and `area:patch` for recipe `name`."""
    loaded, work = recipe.load(name), Work(name)
    local = [path for s in loaded.source if s.local_path is not None for path in local_files(s.local_path)]
    remote = any(source.local is None for source in loaded.source)
    sources = [[s.name, s.strip, s.unpack] for s in loaded.source]
    yield task.step(
        f"{area}:unpack",
        unpack,
        doc=f"unpack the source of {name} {loaded.version}",
        inputs=[*local, *([record_path(name)] if remote else [])],
        outputs=[work.unpacked],
        after=["toolchain:unpack", *([f"fetch:{name}"] if remote else [])],
        config=sources,
        args=[name],
        kept=True,
    )
    yield task.step(
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
        kept=True,
    )


def local_files(folder: Path) -> list[Path]:
    """Return the files of a local source, sorted: everything but hidden files and what building in place leaves."""
    return [path for path in task.source_files(folder) if path.suffix not in (".o", ".a")]


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


def read(path: Path) -> Any:
    """Return the JSON data of a record, or None where there is none or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write(path: Path, facts: Any) -> None:
    """Write a record: the same data always gives the same bytes."""
    files.make_folder(path.parent)
    path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
