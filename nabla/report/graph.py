# SPDX-License-Identifier: Apache-2.0
"""Where the boxes and lines of a dependency graph go: layers from left to right, as in Sugiyama's method.

What needs nothing stands on the left, everything else right of all that it needs. Lines that follow from others are
left out, long ones pass through places of their own, each layer is ordered by the middle of its neighbours as long as
that saves crossings, and heights are the least-squares best that keep the distances. Same graph, same drawing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

BOX_HEIGHT = 26
_CHARACTER = 7.3  # width of one in the drawing's fixed-width font
_PADDING = 10
_GAP = 58  # between layers
_ROW = 36  # between the middles of two boxes
_BEND_ROW = 24  # of a box and a line that passes it
_LINE_ROW = 12  # of two such lines
_MARGIN = 14
_SWEEPS = 24


@dataclass(frozen=True)
class Box:
    """One name. `x`, `y`: of its left upper corner."""

    name: str
    x: int
    y: int
    width: int


@dataclass(frozen=True)
class Line:
    """From what is needed to what needs it; `path` as in SVG."""

    source: str
    target: str
    path: str


@dataclass(frozen=True)
class Drawing:
    """The whole graph, in units of CSS pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


def reduce(needs: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Leave out each need that another need has anyway. The graph must have no circle, and all names as keys."""
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
    """Lay a graph out: name -> the names that it needs."""
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
    return _place(layers, middle, chains)


def _chain(name: str, other: str, depth: Mapping[str, int]) -> list[str]:
    """Return the places of a line from left to right; the bends' names cannot be those of boxes."""
    return [other, *(f"{other} {name} {step}" for step in range(depth[other] + 1, depth[name])), name]


def _order(layers: list[list[str]], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Order each layer so that few lines cross."""
    left, right = _neighbours(links)
    best, fewest = [list(layer) for layer in layers], _crossings(layers, right)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for number in range(1, len(layers)) if forward else reversed(range(len(layers) - 1)):
            near = {name: place for place, name in enumerate(layers[number - 1 if forward else number + 1])}
            seen = left if forward else right
            here = {name: place for place, name in enumerate(layers[number])}
            middles = {
                name: fmean(near[each] for each in seen[name]) if seen.get(name) else float(here[name])
                for name in layers[number]
            }
            layers[number] = sorted(layers[number], key=lambda name: (middles[name], here[name]))
        crossings = _crossings(layers, right)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    return best


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    left: dict[str, list[str]] = {}
    right: dict[str, list[str]] = {}
    for source, target in links:
        right.setdefault(source, []).append(target)
        left.setdefault(target, []).append(source)
    return left, right


def _crossings(layers: Sequence[Sequence[str]], right: Mapping[str, Sequence[str]]) -> int:
    count = 0
    for layer, following in pairwise(layers):
        place = {name: number for number, name in enumerate(following)}
        ends = [sorted(place[each] for each in right.get(name, ())) for name in layer]
        flat = [end for each in ends for end in each]
        count += sum(a > b for number, a in enumerate(flat) for b in flat[number + 1 :])
    return count


def _heights(layers: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return the height of the middle of each box and bend."""
    left, right = _neighbours(links)
    middle = {name: float(place * _ROW) for layer in layers for place, name in enumerate(layer)}
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
    """Return the heights next to the wanted ones that keep order and distances (pool adjacent violators)."""
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


def _place(
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
    """Yield the parts of a smooth line that leaves a box on its right and ends at the left of another one."""
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
