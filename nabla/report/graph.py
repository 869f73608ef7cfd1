# SPDX-License-Identifier: Apache-2.0
"""Lay out a dependency graph in layers from left to right, by Sugiyama's method.

Each box is to the right of all its dependencies. Redundant lines are left out, and long lines pass through bends in
each layer. The order of a layer follows the mean positions of its neighbors as long as that reduces crossings. Heights
are the least-squares solution that keeps the distances. The layout is deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

BOX_HEIGHT = 26
_CHARACTER = 7.3  # width of a character in the fixed-width font
_PADDING = 10
_GAP = 58  # between layers
_ROW = 36  # between the centers of two boxes
_BEND_ROW = 24  # between a box and a line
_LINE_ROW = 12  # between two lines
_MARGIN = 14
_SWEEPS = 24


@dataclass(frozen=True)
class Box:
    """A box with a name. `x`, `y`: of its upper left corner."""

    name: str
    x: int
    y: int
    width: int


@dataclass(frozen=True)
class Line:
    """A line from a dependency to its dependent. `path`: in the syntax of SVG."""

    source: str
    target: str
    path: str


@dataclass(frozen=True)
class Drawing:
    """The whole graph, in CSS pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def reduce(needs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Remove dependencies that other dependencies imply. The graph must be acyclic, and all names must be keys."""
    reach: dict[str, set[str]] = {}

    def visit(name: str) -> set[str]:
        if name not in reach:
            reach[name] = set().union(*(visit(each) | {each} for each in needs[name]))
        return reach[name]

    return {
        name: tuple(sorted(each for each in set(direct) if not any(each in visit(other) for other in direct)))
        for name, direct in sorted(needs.items())
    }


def draw(needs: Mapping[str, Sequence[str]]) -> Drawing:
    """Lay out a graph: name -> its dependencies."""
    edges = reduce(needs)
    depth: dict[str, int] = {}

    def visit(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max(map(visit, edges[name]), default=-1)
        return depth[name]

    for name in edges:
        visit(name)
    chains = [(name, other, _chain(name, other, depth)) for name in edges for other in edges[name]]
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in edges:
        layers[depth[name]].append(name)
    links: list[tuple[str, str]] = []
    for _, other, chain in chains:
        for step, bend in enumerate(chain[1:-1], depth[other] + 1):
            layers[step].append(bend)
        links += pairwise(chain)
    layers = _order(layers, links)
    middle = _heights(layers, links)
    return _draw(layers, middle, chains)


def _chain(name: str, other: str, depth: Mapping[str, int]) -> list[str]:
    """Return the points of a line from left to right; names of bends contain a space."""
    return [other, *(f"{other} {name} {step}" for step in range(depth[other] + 1, depth[name])), name]


def _order(layers: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Order the layers to reduce the crossings of lines."""
    left, right = _neighbors(links)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, right)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for number in range(1, len(layers)) if forward else reversed(range(len(layers) - 1)):
            near = {name: index for index, name in enumerate(layers[number - 1 if forward else number + 1])}
            seen = left if forward else right
            here = {name: index for index, name in enumerate(layers[number])}
            middles = {
                name: fmean(near[each] for each in seen[name]) if seen.get(name) else float(here[name])
                for name in layers[number]
            }
            layers[number] = sorted(layers[number], key=lambda name: (middles[name], here[name]))
        crossings = _crossings(layers, right)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _neighbors(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    for source, target in links:
        right.setdefault(source, []).append(target)
        left.setdefault(target, []).append(source)
    return left, right


def _crossings(layers: Sequence[Sequence[str]], right: Mapping[str, Sequence[str]]) -> int:
    count = 0
    for layer, following in pairwise(layers):
        index = {name: number for number, name in enumerate(following)}
        ends = [sorted(index[each] for each in right.get(name, ())) for name in layer]
        flat = [end for each in ends for end in each]
        count += sum(a > b for number, a in enumerate(flat) for b in flat[number + 1 :])
    return count


def _heights(layers: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the height of the center of each box and bend."""
    left, right = _neighbors(links)
    middle = {name: float(index * _ROW) for layer in layers for index, name in enumerate(layer)}
    for sweep in range(_SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = []
            for name in layer:
                near = [*left.get(name, ()), *right.get(name, ())]
                wanted.append(fmean(middle[each] for each in near) if near else middle[name])
            middle.update(zip(layer, _spread(layer, wanted), strict=True))
    top = min(middle.values(), default=0.0)
    return {name: height - top for name, height in middle.items()}


def _spread(layer: Sequence[str], wanted: Sequence[float]) -> list[float]:
    """Return the closest heights that keep order and distances (pool adjacent violators)."""
    offsets = [0.0]
    for above, below in pairwise(layer):
        offsets.append(offsets[-1] + (_ROW, _BEND_ROW, _LINE_ROW)[(" " in above) + (" " in below)])
    pools: list[list[float]] = []
    for height, offset in zip(wanted, offsets, strict=True):
        pools.append([height - offset])
        while len(pools) > 1 and fmean(pools[-2]) > fmean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    flat = [mean for pool in pools for mean in [fmean(pool)] * len(pool)]
    return [height + offset for height, offset in zip(flat, offsets, strict=True)]


def _draw(
    layers: Sequence[Sequence[str]], middle: Mapping[str, float], chains: Sequence[tuple[str, str, list[str]]]
) -> Drawing:
    boxes: dict[str, Box] = {}
    spans: dict[str, tuple[int, int]] = {}
    x = _MARGIN
    for layer in layers:
        width = max((_width(name) for name in layer if " " not in name), default=0)
        for name in layer:
            own = _width(name) if " " not in name else width
            spans[name] = (x, x + own)
            if " " not in name:
                boxes[name] = Box(name, x, _level(middle, name) - BOX_HEIGHT // 2, own)
        x += width + _GAP
    height = max((_level(middle, name) for name in middle), default=0) + BOX_HEIGHT // 2 + _MARGIN
    lines = tuple(Line(other, name, " ".join(_path(chain, spans, middle))) for name, other, chain in chains)
    return Drawing(x - _GAP + _MARGIN, height, tuple(boxes[name] for name in sorted(boxes)), lines)


def _path(chain: Sequence[str], spans: Mapping[str, tuple[int, int]], middle: Mapping[str, float]) -> Iterator[str]:
    """Yield the parts of a smooth line from the right of one box to the left of another."""
    yield f"M{spans[chain[0]][1]} {_level(middle, chain[0])}"
    for source, target in pairwise(chain):
        begin, end = spans[source][1], spans[target][0]
        y, to, half = _level(middle, source), _level(middle, target), (begin + end) // 2
        yield f"C{half} {y} {half} {to} {end} {to}"
        if target != chain[-1]:
            yield f"H{spans[target][1]}"


def _level(middle: Mapping[str, float], name: str) -> int:
    return round(middle[name]) + BOX_HEIGHT // 2 + _MARGIN


def _width(name: str) -> int:
    return round(len(name) * _CHARACTER) + 2 * _PADDING
