# SPDX-License-Identifier: Apache-2.0
"""Steps that run on other machines: the hook for a farm (nabla.farm), which a run of doit may use.

Without a farm, every step runs here, and the farm's modules are not imported.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol


class Farm(Protocol):
    """The operations of a farm that the engine uses."""

    def build(self, task: str, key: str, log: Path) -> bool:
        """Have the result with this key built on another machine, which uploads it to a store.

        Return False if it must be built here. Raises `NablaError` if the step itself failed there.
        """

    def have(self, key: str) -> None:
        """Record that this host's cache has a result, which other machines may need."""

    def here(self) -> AbstractContextManager[None]:
        """Hold one of this host's slots: many tasks wait for other machines, and only some may run here."""


_farm: Farm | None = None


def use(farm: Farm | None) -> None:
    """Use a farm, or none, from now on."""
    global _farm
    _farm = farm


def build(task: str, key: str, log: Path) -> bool:
    """See `Farm.build`; False without a farm."""
    return _farm is not None and _farm.build(task, key, log)


def have(key: str) -> None:
    """See `Farm.have`."""
    if _farm is not None:
        _farm.have(key)


def here() -> AbstractContextManager[None]:
    """See `Farm.here`."""
    return nullcontext() if _farm is None else _farm.here()
