# SPDX-License-Identifier: Apache-2.0
"""Up-to-date checks of a step's configuration, code and outputs; doit checks the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nabla.core import digest
from nabla.core.artifacts import Tree
from nabla.core.paths import relative
from nabla.engine import code


@dataclass(frozen=True)
class ConfigUnchanged:
    """The configuration and the code are those of the last success. `record`: JSON data, saved for `doit explain`."""

    record: Any
    module: str

    def configure_task(self, task: Any) -> None:
        """Called by doit; registers the values that it saves after each success."""
        task.value_savers.append(self.values)

    def values(self) -> dict[str, Any]:
        """Return the values for doit's database."""
        return {"record": self.record, "record_digest": digest.config_digest(self.record), "code": self.code()}

    def code(self) -> dict[str, str]:
        """Return the digest of each module that the step depends on."""
        return dict(code.closure(self.module))

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        now = self.values()
        return all(values.get(key) == now[key] for key in ("record_digest", "code"))


@dataclass(frozen=True)
class OutputsUnchanged:
    """The outputs are those of the last success, neither damaged nor edited."""

    outputs: tuple[Path | Tree, ...]

    def configure_task(self, task: Any) -> None:
        """Called by doit; registers the digests that it saves after each success."""
        task.value_savers.append(self.values)

    def values(self) -> dict[str, Any]:
        """Return the values for doit's database."""
        return {"outputs": self.digests()}

    def digests(self) -> dict[str, str | None]:
        """Return path -> present digest of each output, relative to the checkout; None if it is absent."""
        paths = [real_path(item) for item in self.outputs]
        return {relative(path): digest.path_digest(path) for path in paths}

    def __call__(self, task: Any, values: Mapping[str, Any]) -> bool:
        return bool(values.get("outputs", {}) == self.digests())


def real_path(item: Path | Tree) -> Path:
    """Return the file or folder itself."""
    return item.path if isinstance(item, Tree) else item


def tracked_path(item: Path | Tree) -> Path:
    """Return the file by which doit tracks a file or folder."""
    return item.stamp if isinstance(item, Tree) else item


def input_digests(items: Iterable[Path | Tree]) -> dict[str, str | None]:
    """Return path -> digest of each input, relative to the checkout; None if it is absent."""
    return {relative(path): digest.path_digest(path) for path in map(tracked_path, items)}
