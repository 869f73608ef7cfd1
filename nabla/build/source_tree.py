# SPDX-License-Identifier: Apache-2.0
"""Source trees: unpacked from the cache or copied from this repository, and patched.

    source/tree     upstream's files with the patches of this repository
    source/pristine the original files, which can revert the patches
    source/inputs   the digests of the files that the tree was unpacked from; written last, it makes the tree valid

Other steps depend on the records in out/work/<name>/*.json. A step that needs the tree calls `ensure_source_tree`,
which repairs an absent or incomplete one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.build import series
from nabla.core import digest, files
from nabla.core.artifacts import BUILD_ROOT, source_record
from nabla.core.paths import WORK
from nabla.engine import task
from nabla.engine.action import Job
from nabla.engine.task import TaskDict
from nabla.sandbox.bwrap import Bind, Sandbox
from nabla.sources import recipe
from nabla.sources.archives import fetched
from nabla.sources.recipe import Recipe, Source


@dataclass(frozen=True)
class Work:
    """The folder in which a recipe is built."""

    name: str

    @property
    def base(self) -> Path:
        """The folder itself."""
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
    def state(self) -> Path:
        """The last complete step of the build folder and its inputs; absent while a build runs."""
        return self.build / "state"

    @property
    def objects(self) -> Path:
        """The kernel's objects."""
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


def unpack(job: Job, name: str) -> None:
    """Step: unpack the sources of a recipe to source/tree, unless they are unpacked."""
    write(job.out(Work(name).unpacked), _ensure_unpacked(job, recipe.load(name)))


def patch(job: Job, name: str) -> None:
    """Step: apply the series; the record contains the digests of the patched files, not of the patches."""
    loaded, work = recipe.load(name), Work(name)
    ensure_source_tree(job, loaded)
    paths = sorted({path for file in loaded.patches for path in series.touched(file)})
    record = {
        "unpacked": digest.sha256_file(work.unpacked),
        "patched": {path: _content(work.source / path) for path in paths},
    }
    job.note(f"{len(loaded.patches)} patches, {len(paths)} files")
    write(job.out(work.patched), record)


def ensure_source_tree(job: Job, loaded: Recipe) -> None:
    """Ensure that source/tree exists with the series applied: a step that was restored from the cache creates none."""
    work = Work(loaded.name)
    folder = work.source.parent
    _ensure_unpacked(job, loaded)
    applied = folder / "applied"
    wanted = [[path.name, digest.sha256_file(path)] for path in loaded.patches]
    if read(applied) != wanted:
        series.Series(work.source, folder / "pristine").apply(loaded.patches)
        write(applied, wanted)


def _ensure_unpacked(job: Job, loaded: Recipe) -> Any:
    """Ensure that source/tree is unpacked from the current files; return their digests."""
    work = Work(loaded.name)
    archives = fetched(loaded) if loaded.is_remote else {}
    record: list[dict[str, Any]] = []
    paths: list[Path] = []
    for source in loaded.source:
        local = source.local_path
        if local is not None:
            digests = {path.relative_to(local).as_posix(): digest.sha256_file(path) for path in local_files(local)}
            record.append({"name": source.name, "files": digests})
            paths.append(local)
        else:
            paths.append(archives[source.name])
            record.append({"name": source.name, "strip": source.strip, "sha256": paths[-1].name})
    origin = work.source.parent / "inputs"
    if read(origin) != record or not work.source.is_dir():
        files.remove(work.source.parent)
        work.source.mkdir(parents=True)
        for number, (source, path) in enumerate(zip(loaded.source, paths, strict=True)):
            # The first source is the tree itself; each other one is a folder in it with the name of the source.
            _unpack_one(job, source, path, work.source if number == 0 else work.source / source.name)
        write(origin, record)
    return record


def steps(area: str, loaded: Recipe) -> Iterator[TaskDict]:
    """Yield `area:unpack` and `area:patch` for a recipe."""
    work = Work(loaded.name)
    yield task.step(
        f"{area}:unpack",
        unpack,
        doc=f"unpack the source of {loaded.name} {loaded.version}",
        inputs=[*source_inputs(loaded), BUILD_ROOT],
        outputs=[work.unpacked],
        config=[[source.name, source.strip, source.unpack] for source in loaded.source],
        args=[loaded.name],
        cacheable=True,
    )
    yield task.step(
        f"{area}:patch",
        patch,
        doc=f"apply patches/{loaded.name}" if loaded.patches else "nothing to patch",
        inputs=[work.unpacked, *loaded.patches],
        outputs=[work.patched],
        # The inputs alone do not show that a patch was removed.
        config=[path.name for path in loaded.patches],
        args=[loaded.name],
        cacheable=True,
    )


def source_inputs(loaded: Recipe) -> list[Path]:
    """Return the files that represent the sources of a recipe as inputs of a step."""
    local = [path for source in loaded.source if source.local_path for path in local_files(source.local_path)]
    return [*local, *([source_record(loaded.name)] if loaded.is_remote else [])]


def local_files(folder: Path) -> list[Path]:
    """Return the files of a local source, sorted, without hidden files and objects of a build in place."""
    return [path for path in task.source_files(folder) if path.suffix not in (".o", ".a")]


def _unpack_one(job: Job, source: Source, path: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        for file in local_files(path):
            copy = target / file.relative_to(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            # Modes do not depend on the umask of the clone.
            copy.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    elif source.unpack:
        sandbox = Sandbox((Bind(target, "/build", writable=True), Bind(path.parent, "/src")))
        # tar detects the compression. Owners and set-id bits of the archive are irrelevant.
        script = f"tar -xf /src/{path.name} --strip-components={source.strip} --no-same-owner --no-same-permissions"
        sandbox.run(script, title=f"unpack {source.name}", log=job.log)
    else:
        shutil.copyfile(path, target / source.origin[0].file)


def _content(path: Path) -> str | None:
    """Return the digest of a file and whether it is executable; None if a patch removed it."""
    content = digest.path_digest(path)
    return f"{content} {'x' if path.stat().st_mode & 0o111 else '-'}" if content else None


def read(path: Path) -> Any:
    """Return the JSON data of a record; None if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write(path: Path, record: Any) -> None:
    """Write a record; equal data gives equal bytes."""
    files.write(path, json.dumps(record, indent=1, sort_keys=True) + "\n")
