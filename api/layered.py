"""Where the boxes and lines of a layered drawing go: a directed graph from top to bottom.

Sugiyama, Tagawa, Toda (1981): layers by longest paths, points on the long lines so that each crosses one layer at a time,
an order in each layer by the mean place of the neighbours, then coordinates. The last step minimises the lengths of lines
sideways, by iteratively reweighted squares, layer by layer, under the order and the distances: isotonic regressions (pool
adjacent violators).
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

BESIDE, BELOW, LINE = 26.0, 40.0, 14.0  # between boxes of a layer, between layers, the room of a line that passes
_ORDER_SWEEPS, _PLACE_SWEEPS = 24, 240
_SOFT = (
    6.0  # sideways lengths much above it count as they are, those below squared: one bend rather than many small ones
)
_BEYOND = 1.8  # over-relaxation (Young, 1954): long chains come straight in fewer sweeps
_STIFF = 20.0  # how much more a long line's inner parts want to be straight

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """From box `source` to box `target`. loose: it may run upwards, where it would close a cycle. pull: how much it wants to be straight."""

    source: int
    target: int
    loose: bool = False
    pull: float = 1.0


@dataclass(frozen=True, slots=True)
class Placed:
    """corners: each box's left top. paths: each line's points, from source to target; every second part crosses a gap."""

    corners: list[Point]
    paths: list[list[Point]]
    width: float
    height: float


def layered(
    sizes: Sequence[tuple[float, float]], lines: Sequence[Line], top: Iterable[int], bottom: Iterable[int]
) -> Placed:
    """Places boxes of these sizes. top, bottom: boxes of the first and of the last layer. Lines that are not loose make no cycle."""
    down = _downwards(len(sizes), lines)
    ranks = _ranks(len(sizes), down, set(top), set(bottom))
    net = _Net(sizes, down, ranks, [line.pull for line in lines])
    net.order()
    net.place()
    return net.placed([line.source != source for line, (source, _) in zip(lines, down, strict=True)])


def _downwards(count: int, lines: Sequence[Line]) -> list[tuple[int, int]]:
    """Each line's upper and lower box: a loose one is turned round where the others lead back already."""
    below: list[set[int]] = [set() for _ in range(count)]
    for line in lines:
        if not line.loose:
            below[line.source].add(line.target)
    down = []
    for line in lines:
        ends = (line.source, line.target)
        if line.loose and _reaches(below, line.target, line.source):
            ends = ends[::-1]
        below[ends[0]].add(ends[1])
        down.append(ends)
    return down


def _reaches(below: list[set[int]], start: int, goal: int) -> bool:
    seen, waiting = {start}, [start]
    while waiting:
        at = waiting.pop()
        if at == goal:
            return True
        new = below[at] - seen
        seen |= new
        waiting += new
    return False


def _ranks(count: int, down: list[tuple[int, int]], top: set[int], bottom: set[int]) -> list[int]:
    """The layer of each box: as high as its lines allow, then as low as what it only leads to allows."""
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for a, b in down:
        above[b].append(a)
        below[a].append(b)
    order, ranks = _topological(above, below), [0] * count
    for box in order:
        ranks[box] = max((ranks[a] + 1 for a in above[box]), default=0 if box in top or not top else 1)
    last = max((ranks[b] + (b not in bottom) for b in range(count)), default=0)
    for box in bottom:
        ranks[box] = max(last, ranks[box])
    for box in reversed(order):
        if box not in top | bottom and below[box] and len(set(below[box])) >= len(set(above[box])):
            ranks[box] = min(ranks[b] for b in below[box]) - 1
    return ranks


def _topological(above: list[list[int]], below: list[list[int]]) -> list[int]:
    left = [len(a) for a in above]
    order = [box for box, n in enumerate(left) if not n]
    for box in order:
        for b in below[box]:
            left[b] -= 1
            if not left[b]:
                order.append(b)
    return order


class _Net:
    """Boxes and the points of long lines as vertices in layers; a vertex below the number of boxes is a box."""

    def __init__(
        self, sizes: Sequence[tuple[float, float]], down: list[tuple[int, int]], ranks: list[int], pulls: list[float]
    ):
        self.boxes, self.sizes = len(sizes), sizes
        self.ranks, self.widths = list(ranks), [w for w, _ in sizes]
        self.chains: list[list[int]] = []
        for a, b in down:
            points = range(len(self.ranks), len(self.ranks) + ranks[b] - ranks[a] - 1)
            self.ranks += range(ranks[a] + 1, ranks[b])
            self.widths += [LINE] * len(points)
            self.chains.append([a, *points, b])
        count = len(self.ranks)
        self.up: list[list[int]] = [[] for _ in range(count)]
        self.down: list[list[int]] = [[] for _ in range(count)]
        self.near: list[list[tuple[int, float]]] = [[] for _ in range(count)]  # neighbours, and how they pull
        for chain, pull in zip(self.chains, pulls, strict=True):
            for a, b in pairwise(chain):
                self.down[a].append(b)
                self.up[b].append(a)
                stiff = pull * _STIFF if a >= self.boxes and b >= self.boxes else pull
                self.near[a].append((b, stiff))
                self.near[b].append((a, stiff))
        self.layers: list[list[int]] = [[] for _ in range(max(self.ranks, default=-1) + 1)]
        self.x = [0.0] * count

    # ------------------------------------------------------------------------------------------------ order

    def order(self) -> None:
        """The order of each layer, with as few crossings as the sweeps find."""
        for vertex in self._first_walk():
            self.layers[self.ranks[vertex]].append(vertex)
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        for sweep in range(_ORDER_SWEEPS):
            if not fewest:
                break
            downwards = sweep % 2 == 0
            layers = self.layers if downwards else self.layers[::-1]
            for fixed, moved in pairwise(layers):
                self._by_neighbours(fixed, moved, self.up if downwards else self.down)
            found = self._crossings()
            if found < fewest:
                best, fewest = [list(layer) for layer in self.layers], found
        self.layers = best

    def _first_walk(self) -> list[int]:
        """Depth first from above, so that what hangs together lies together."""
        seen, walk = set[int](), []
        for start in sorted(range(len(self.ranks)), key=self.ranks.__getitem__):
            waiting = [start]
            while waiting:
                vertex = waiting.pop()
                if vertex not in seen:
                    seen.add(vertex)
                    walk.append(vertex)
                    waiting += [*reversed(self.down[vertex]), *self.up[vertex]]
        return walk

    def _by_neighbours(self, fixed: list[int], moved: list[int], beside: list[list[int]]) -> None:
        places = {vertex: place for place, vertex in enumerate(fixed)}
        now = {vertex: place for place, vertex in enumerate(moved)}
        ratio = len(fixed) / max(1, len(moved))

        def mean(vertex: int) -> float:
            found = [places[n] for n in beside[vertex]]
            return sum(found) / len(found) if found else now[vertex] * ratio

        moved.sort(key=lambda vertex: (mean(vertex), now[vertex]))

    def _crossings(self) -> int:
        total = 0
        for upper, lower in pairwise(self.layers):
            places = {vertex: place for place, vertex in enumerate(lower)}
            passed: list[int] = []
            for vertex in upper:
                ends = sorted(places[n] for n in self.down[vertex])
                total += sum(len(passed) - bisect_right(passed, end) for end in ends)
                for end in ends:
                    insort(passed, end)
        return total

    # ------------------------------------------------------------------------------------------------ coordinates

    def place(self) -> None:
        """The middle of every vertex, x: near its neighbours, in the layer's order."""
        for layer in self.layers:
            for vertex, offset in zip(layer, self._offsets(layer), strict=True):
                self.x[vertex] = offset
        for sweep in range(_PLACE_SWEEPS):
            for layer in self.layers if sweep % 2 == 0 else self.layers[::-1]:
                self._settle(layer)

    def _offsets(self, layer: list[int]) -> list[float]:
        """Middles when everything stands as close as it may."""
        offsets, at = [], 0.0
        for place, vertex in enumerate(layer):
            if place:
                at += (self.widths[layer[place - 1]] + self.widths[vertex]) / 2 + BESIDE
            offsets.append(at)
        return offsets

    def _settle(self, layer: list[int]) -> None:
        offsets, wishes, weights = self._offsets(layer), [], []
        for vertex, offset in zip(layer, offsets, strict=True):
            at = self.x[vertex]
            near = [(n, pull / (abs(self.x[n] - at) + _SOFT)) for n, pull in self.near[vertex]]
            weight = sum(pull for _, pull in near)
            middle = sum(pull * self.x[n] for n, pull in near) / weight if near else at
            wishes.append(at + _BEYOND * (middle - at) - offset)
            weights.append(weight or 0.1 / _SOFT)
        for vertex, offset, at in zip(layer, offsets, _rising(wishes, weights), strict=True):
            self.x[vertex] = offset + at

    # ------------------------------------------------------------------------------------------------ result

    def placed(self, turned: list[bool]) -> Placed:
        """Everything with the left top of the drawing at 0, 0. turned: lines that run from the lower box to the upper."""
        left = min((self.x[v] - self.widths[v] / 2 for v in range(len(self.x))), default=0.0)
        self.x = [x - left for x in self.x]
        bands = self._bands()
        corners = []
        for box, (width, height) in enumerate(self.sizes):
            above, below = bands[self.ranks[box]]
            corners.append((self.x[box] - width / 2, (above + below - height) / 2))
        paths = self._paths(corners, bands)
        paths = [path[::-1] if back else path for path, back in zip(paths, turned, strict=True)]
        width = max((self.x[v] + self.widths[v] / 2 for v in range(len(self.x))), default=0.0)
        return Placed(corners, paths, width, bands[-1][1] if bands else 0.0)

    def _bands(self) -> list[tuple[float, float]]:
        """Top and bottom of each layer."""
        bands, at = [], 0.0
        for layer in self.layers:
            height = max((self.sizes[v][1] for v in layer if v < self.boxes), default=0.0)
            bands.append((at, at + height))
            at += height + BELOW
        return bands

    def _paths(self, corners: list[Point], bands: list[tuple[float, float]]) -> list[list[Point]]:
        starts, ends = self._ports(0), self._ports(-1)
        paths = []
        for line, chain in enumerate(self.chains):
            upper, lower = chain[0], chain[-1]
            path = [
                (starts[line], corners[upper][1] + self.sizes[upper][1]),
                (starts[line], bands[self.ranks[upper]][1]),
            ]
            for vertex in chain[1:-1]:
                path += [(self.x[vertex], y) for y in bands[self.ranks[vertex]]]
            path += [(ends[line], bands[self.ranks[lower]][0]), (ends[line], corners[lower][1])]
            paths.append(path)
        return paths

    def _ports(self, end: int) -> list[float]:
        """Where each line leaves its upper box (end 0) or enters its lower one (end -1): side by side, in the order of where they go."""
        there = 1 if end == 0 else -2
        at_box: dict[int, list[int]] = {}
        for line, chain in enumerate(self.chains):
            at_box.setdefault(chain[end], []).append(line)
        ports = [0.0] * len(self.chains)
        for box, lines in at_box.items():
            lines.sort(key=lambda line: (self.x[self.chains[line][there]], line))
            step = min(LINE + 4, (self.widths[box] - 16) / len(lines))
            for place, line in enumerate(lines):
                ports[line] = self.x[box] + (place - (len(lines) - 1) / 2) * step
        return ports


def _rising(wishes: list[float], weights: list[float]) -> list[float]:
    """The numbers nearest to the wishes, by weighted squares, that never fall."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for wish, weight in zip(wishes, weights, strict=True):
        mean, many, heavy = wish, 1, weight
        while pools and pools[-1][0] > mean:
            other, its, count = pools.pop()
            mean, heavy, many = (other * its + mean * heavy) / (its + heavy), its + heavy, many + count
        pools.append((mean, heavy, many))
    return [mean for mean, _, many in pools for _ in range(many)]
