# SPDX-License-Identifier: Apache-2.0
"""All fuzzers by name."""

from __future__ import annotations

from . import (
    bundles,
    control,
    denials,
    disks,
    files,
    guests,
    headers,
    lists,
    rebuilds,
    sandboxes,
    shares,
    snapshots,
    stores,
    trees,
    wires,
)
from .engine import Fuzzer

FUZZERS: dict[str, Fuzzer] = {
    each.name: each
    for area in (
        guests,
        disks,
        snapshots,
        headers,
        lists,
        wires,
        shares,
        bundles,
        control,
        denials,
        sandboxes,
        trees,
        files,
        stores,
        rebuilds,
    )
    for each in area.FUZZERS
}
