# SPDX-License-Identifier: Apache-2.0
"""Apply a patch series to an unpacked source tree, as `git am` would, and again after the series changed.

Patches are applied to copies of the files they touch; the tree is changed only after the whole series went in. Files
whose content stays the same keep their time, so that a changed patch rebuilds what it concerns and nothing else; files
whose content changes, also back to upstream's, get the present time, as make looks at nothing else.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nabla.core.errors import PatchError
from nabla.core.paths import relative
from nabla.core.process import run
from nabla.sandbox.bwrap import Bind, Sandbox

_HEADER = re.compile(
    r"^(?:--- |\+\+\+ |(?P<bare>rename (?:from|to) |copy (?:from|to) ))(?P<path>[^\t\n]+)", re.MULTILINE
)

# No fuzz: a hunk whose context moved may shift by lines, but must still be there word by word.
_APPLY = "patch -p1 -F0 -f -r - --no-backup-if-mismatch"


@dataclass(frozen=True)
class Series:
    """A source tree and beside it what is needed to take the patches out again."""

    tree: Path
    memory: Path

    @property
    def _pristine(self) -> Path:
        return self.memory / "pristine"

    @property
    def _record(self) -> Path:
        return self.memory / "touched.json"

    def apply(self, patches: Sequence[Path]) -> None:
        """Bring the tree to upstream's state plus exactly these patches, whatever series it carries now.

        Raises `PatchError` naming the first patch that does not apply; the tree is then as before. An interrupted
        call is repaired by the next one.
        """
        wanted = {path for patch in patches for path in touched(patch)}
        self._remember(wanted)
        known = self._touched()
        self.memory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stage-", dir=self.memory) as scratch:
            stage = Path(scratch)
            for path in wanted:
                _copy(self._pristine / path, stage / path)
            if patches:
                _run_patch(stage, patches)
            for path in sorted(known | wanted):
                source = stage / path if path in wanted else self._pristine / path
                _bring(source, self.tree / path)
        for path in known - wanted:
            (self._pristine / path).unlink(missing_ok=True)
        self._write(wanted)

    def _touched(self) -> set[str]:
        if not self._record.exists():
            return set()
        paths: list[str] = json.loads(self._record.read_text(encoding="utf-8"))
        return set(paths)

    def _remember(self, paths: Iterable[str]) -> None:
        """Save upstream's form of files that are about to be touched for the first time, before anything changes."""
        known = self._touched()
        for path in set(paths) - known:
            (self._pristine / path).unlink(missing_ok=True)
            _copy(self.tree / path, self._pristine / path)
        self._write(known | set(paths))

    def _write(self, paths: set[str]) -> None:
        self.memory.mkdir(parents=True, exist_ok=True)
        partial = self._record.with_suffix(".new")
        partial.write_text(json.dumps(sorted(paths), indent=0), encoding="utf-8")
        partial.rename(self._record)


def touched(patch: Path) -> set[str]:
    """Return the paths (relative to the tree) which a patch names, `-p1`. Raises `PatchError` for a path outside."""
    text = patch.read_text(encoding="utf-8", errors="surrogateescape")
    paths = set()
    for match in _HEADER.finditer(text):
        name = match["path"].strip()
        if name == "/dev/null":
            continue
        pure = PurePosixPath(name if match["bare"] else name.partition("/")[2])
        if pure.is_absolute() or ".." in pure.parts:
            raise PatchError(f"{relative(patch)}: {name}: a patch may only touch files inside its tree")
        if pure.parts:
            paths.add(str(pure))
    if not paths:
        raise PatchError(f"{relative(patch)}: no change in it", "make it with `git format-patch`")
    return paths


def _run_patch(stage: Path, patches: Sequence[Path]) -> None:
    folders = {patch.parent for patch in patches}
    if len(folders) != 1:
        raise PatchError("the patches of a series must lie in one folder")
    names = " ".join(f"'{patch.name}'" for patch in patches)
    script = f'umask 022; for p in {names}; do echo "= $p"; {_APPLY} -i "/src/$p" || exit 1; done'
    sandbox = Sandbox((Bind(stage, "/build", writable=True), Bind(folders.pop(), "/src")))
    result = run(sandbox.argv(["/bin/sh", "-c", script]), check=False)
    if result.returncode != 0:
        head, _, said = result.stdout.rpartition("= ")
        name, _, reason = said.partition("\n")
        failed = patches[0].parent / name.strip()
        count = head.count("= ")
        raise PatchError(
            f"{relative(failed)} does not apply (patch {count + 1} of {len(patches)})",
            _reason(reason + result.stderr),
        )


def _reason(said: str) -> str:
    """Return what patch said about the files that it could not change."""
    lines, file = [], ""
    for line in said.splitlines():
        if line.startswith("patching file "):
            file = line.removeprefix("patching file ")
        elif "FAILED at" in line or "malformed" in line or "garbage" in line:
            lines.append(f"{file}: {line}" if file else line)
    return "\n".join(lines) or said.strip() or "patch gave no reason"


def _copy(source: Path, target: Path) -> None:
    """Copy a file with mode and time; a source that does not exist is left out."""
    if source.is_symlink() or source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _bring(source: Path, target: Path) -> None:
    """Make `target` like `source` (absent included) by a rename; one that is alike already is left alone."""
    if not source.exists() and not source.is_symlink():
        target.unlink(missing_ok=True)
        return
    if _alike(source, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.nabla-new")
    partial.unlink(missing_ok=True)
    shutil.copy(source, partial, follow_symlinks=False)
    os.utime(partial, follow_symlinks=False)
    partial.rename(target)


def _alike(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    if not other.is_file() or (one.stat().st_mode & 0o111) != (other.stat().st_mode & 0o111):
        return False
    return one.read_bytes() == other.read_bytes()
