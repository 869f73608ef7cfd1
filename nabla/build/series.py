# SPDX-License-Identifier: Apache-2.0
"""Apply a patch series to an unpacked source tree, and apply it again after the series changed.

Patches are applied to copies of the files that they touch; the tree changes only after all patches apply. Files with
unchanged content keep their time, so a changed patch rebuilds only what depends on its files. Files whose content
changes, also back to upstream's, get the present time, because make compares only times.
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

from nabla.core import files
from nabla.core.errors import PatchError
from nabla.core.paths import relative
from nabla.core.process import run
from nabla.sandbox.bwrap import Bind, Sandbox

_HEADER = re.compile(
    r"^(?:--- |\+\+\+ |(?P<bare>rename (?:from|to) |copy (?:from|to) ))(?P<path>[^\t\n]+)", re.MULTILINE
)

# No fuzz: a hunk may move by lines, but its context must match exactly.
_APPLY = "patch -p1 -F0 -f -r - --no-backup-if-mismatch"


@dataclass(frozen=True)
class Series:
    """A source tree, and a folder `saved` with the original files, which can revert the patches."""

    tree: Path
    saved: Path

    @property
    def _pristine(self) -> Path:
        return self.saved / "pristine"

    @property
    def _record(self) -> Path:
        return self.saved / "touched.json"

    def apply(self, patches: Sequence[Path]) -> None:
        """Change the tree to upstream's state plus these patches, independent of the series that it has now.

        Raises `PatchError` with the first patch that does not apply; the tree is then unchanged. A call after an
        interrupted one repairs the tree.
        """
        wanted = {path for patch in patches for path in touched(patch)}
        self._save(wanted)
        known = self._touched()
        self.saved.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="stage-", dir=self.saved) as scratch:
            stage = Path(scratch)
            for path in wanted:
                _copy(self._pristine / path, stage / path)
            if patches:
                _run_patch(stage, patches)
            for path in sorted(known | wanted):
                source = stage / path if path in wanted else self._pristine / path
                _replace(source, self.tree / path)
        for path in known - wanted:
            (self._pristine / path).unlink(missing_ok=True)
        self._write(wanted)

    def _touched(self) -> set[str]:
        if not self._record.exists():
            return set()
        paths: list[str] = json.loads(self._record.read_text(encoding="utf-8"))
        return set(paths)

    def _save(self, paths: Iterable[str]) -> None:
        """Save upstream's version of the files that a patch touches for the first time."""
        known = self._touched()
        for path in set(paths) - known:
            (self._pristine / path).unlink(missing_ok=True)
            _copy(self.tree / path, self._pristine / path)
        self._write(known | set(paths))

    def _write(self, paths: set[str]) -> None:
        files.write(self._record, json.dumps(sorted(paths), indent=0))


def touched(patch: Path) -> set[str]:
    """Return the paths that a patch changes, relative to the tree. Raises `PatchError` for a path outside of it."""
    text = patch.read_text(encoding="utf-8", errors="surrogateescape")
    paths = set()
    for match in _HEADER.finditer(text):
        name = match["path"].strip()
        if name == "/dev/null":
            continue
        pure = PurePosixPath(name if match["bare"] else name.partition("/")[2])
        if pure.is_absolute() or ".." in pure.parts:
            raise PatchError(f"{relative(patch)}: {name}: a patch can only change files in its tree")
        if pure.parts:
            paths.add(str(pure))
    if not paths:
        raise PatchError(f"{relative(patch)}: the patch is empty", "write it by `git format-patch`")
    return paths


def _run_patch(stage: Path, patches: Sequence[Path]) -> None:
    folders = {patch.parent for patch in patches}
    if len(folders) != 1:
        raise PatchError("the patches of a series must be in one folder")
    names = " ".join(f"'{patch.name}'" for patch in patches)
    script = f'umask 022; for p in {names}; do echo "= $p"; {_APPLY} -i "/src/$p" || exit 1; done'
    sandbox = Sandbox((Bind(stage, "/build", writable=True), Bind(folders.pop(), "/src")))
    result = run(sandbox.argv(["/bin/sh", "-c", script]), check=False)
    if result.returncode != 0:
        head, _, output = result.stdout.rpartition("= ")
        name, _, reason = output.partition("\n")
        failed = patches[0].parent / name.strip()
        count = head.count("= ")
        raise PatchError(
            f"{relative(failed)} does not apply (patch {count + 1} of {len(patches)})",
            _reason(reason + result.stderr),
        )


def _reason(output: str) -> str:
    """Return the lines of patch's output about the files that it could not change."""
    lines, file = [], ""
    for line in output.splitlines():
        if line.startswith("patching file "):
            file = line.removeprefix("patching file ")
        elif "FAILED at" in line or "malformed" in line or "garbage" in line:
            lines.append(f"{file}: {line}" if file else line)
    return "\n".join(lines) or output.strip() or "patch gave no reason"


def _copy(source: Path, target: Path) -> None:
    """Copy a file with mode and time, if it exists."""
    if source.is_symlink() or source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def _replace(source: Path, target: Path) -> None:
    """Replace `target` by `source`, or remove it if there is no source; an equal target stays unchanged."""
    if not source.exists() and not source.is_symlink():
        target.unlink(missing_ok=True)
        return
    if _is_equal(source, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.nabla-new")
    partial.unlink(missing_ok=True)
    shutil.copy(source, partial, follow_symlinks=False)
    os.utime(partial, follow_symlinks=False)
    partial.rename(target)


def _is_equal(one: Path, other: Path) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    if not other.is_file() or (one.stat().st_mode & 0o111) != (other.stat().st_mode & 0o111):
        return False
    return one.read_bytes() == other.read_bytes()
