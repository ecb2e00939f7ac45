"""The most even way to deal places out to members, and among those the cheapest: an exact minimum-cost flow.

Rows want members: row r gets `demand[r]` different ones of those that it allows. What counts first is how even the
members' loads are (the sum of their squares, so no member has two more than another where that can be helped), then how
far apart the rows of a group are (likewise, the squares of how many of a group's rows each member has), then the costs. A
dealing is optimal if and only if no cycle of exchanges makes it better (Klein, "A primal method for minimal cost flows",
1967), so one starts from what is held and exchanges until none does: where nothing has to change nothing is looked at
twice. With groups it is the most even, and of those no cycle makes it better whose exchanges are of different groups.
"""

from dataclasses import dataclass

import numpy as np

FAR = 2**60


@dataclass(slots=True)
class Dealing:
    """What is dealt, and what it would cost to change it.

    dealt, allowed: bool (R, M). cost: int64 (R, M), >= 0. groups: of each row, or None. load: of each member, int64 (M,).
    together: how many rows of each group each member has, int64 (G, M).
    """

    dealt: np.ndarray
    allowed: np.ndarray
    cost: np.ndarray
    groups: np.ndarray
    load: np.ndarray
    together: np.ndarray
    apart: int  # the weight of a square of `together`: more than all costs
    even: int  # the weight of a square of `load`: more than all else

    def put(self, row: int, member: int, sign: int) -> None:
        """Deals a row to a member, or (-1) takes it away."""
        self.dealt[row, member] = sign > 0
        self.load[member] += sign
        self.together[self.groups[row], member] += sign

    def gain(self, rows: np.ndarray | int) -> np.ndarray:
        """What it costs to put rows to each member, but for its load."""
        return self.cost[rows] + self.apart * (2 * self.together[self.groups[rows]] + 1)


def spread(
    held: np.ndarray,
    allowed: np.ndarray,
    cost: np.ndarray,
    demand: np.ndarray,
    load: np.ndarray,
    groups: np.ndarray | None = None,
    beside: np.ndarray | None = None,
) -> np.ndarray:
    """Which member each row gets, bool (R, M), near `held` where that is as good.

    held, allowed: bool (R, M). cost: of each place, int64 (R, M), >= 0. demand: int64 (R,), at most as many as the row
    allows. load: what each member has already, int64 (M,). groups: of each row, int64 (R,), and beside: what each member
    has already beside a group's rows, int64 (G, M); without them none counts.
    Deterministic: of equals the first member, then the first row.
    """
    total = 1 + int(cost.max(initial=0)) * int(demand.sum())
    apart = 0 if groups is None else total
    even = total if beside is None else total * (1 + int((beside.max(initial=0) + demand.sum()) ** 2))
    groups = np.zeros(len(held), np.int64) if groups is None else groups
    dealt = held & allowed
    together = np.zeros((1, held.shape[1]), np.int64) if beside is None else beside.copy()
    np.add.at(together, groups, dealt)
    dealing = Dealing(dealt, allowed, cost, groups, load + dealt.sum(0), together, apart, even)
    _begin(dealing, demand)
    _level(dealing)
    exchange = _Exchange(dealing)
    while exchange.improve():
        pass
    return dealt


def _begin(dealing: Dealing, demand: np.ndarray) -> None:
    """Gives each row as many as it wants."""
    for row in np.nonzero(dealing.dealt.sum(1) != demand)[0].tolist():
        missing = int(demand[row] - dealing.dealt[row].sum())
        for _ in range(abs(missing)):
            rank = dealing.even * (2 * dealing.load + 1) + dealing.gain(row)
            if missing > 0:
                member = np.where(dealing.allowed[row] & ~dealing.dealt[row], rank, FAR).argmin()
            else:
                member = np.where(dealing.dealt[row], rank, -FAR).argmax()
            dealing.put(row, int(member), 1 if missing > 0 else -1)


def _level(dealing: Dealing) -> None:
    """Rows go from the fullest member to the emptiest, as long as one can: a beginning that leaves few exchanges."""
    while True:
        a, b = int(np.where(dealing.dealt.any(0), dealing.load, -FAR).argmax()), int(dealing.load.argmin())
        rows = np.nonzero(dealing.dealt[:, a] & dealing.allowed[:, b] & ~dealing.dealt[:, b])[0]
        if dealing.load[a] - dealing.load[b] < 2 or not len(rows):
            return
        gain = dealing.gain(rows)
        row = int(rows[(gain[:, b] - gain[:, a]).argmin()])
        dealing.put(row, a, -1)
        dealing.put(row, b, 1)


class _Exchange:
    """Finds cycles of exchanges that pay. The members are nodes, and one more stands for a change of loads.

    An arc from a to b: a row leaves member a for b; by the last node: a has one less, and b one more.
    """

    def __init__(self, dealing: Dealing):
        self.dealing = dealing
        members = len(dealing.load)
        self.arcs = np.full((members + 1, members + 1), FAR, np.int64)
        self.rows = np.zeros((members, members), np.int64)  # which row it is that would leave a for b
        for member in range(members):
            self._price(member)

    def improve(self) -> bool:
        """Makes the exchanges of one cycle; False where none pays."""
        dealing, last = self.dealing, len(self.dealing.load)
        self.arcs[last, :last] = -dealing.even * (2 * dealing.load - 1)
        self.arcs[:last, last] = dealing.even * (2 * dealing.load + 1)
        cycle = _negative_cycle(self.arcs)
        arcs = [(a, b) for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True) if last not in (a, b)]
        rows = [int(self.rows[a, b]) for a, b in arcs]
        for row, (a, b) in zip(rows, arcs, strict=True):
            dealing.put(row, a, -1)
            dealing.put(row, b, 1)
        changed = (
            np.isin(dealing.groups, dealing.groups[rows])
            if dealing.apart
            else np.isin(np.arange(len(dealing.dealt)), rows)
        )
        touched = {m for arc in arcs for m in arc} | set(np.nonzero(dealing.dealt[changed].any(0))[0].tolist())
        for member in touched:
            self._price(member)
        return bool(cycle)

    def _price(self, member: int) -> None:
        dealing = self.dealing
        rows = np.nonzero(dealing.dealt[:, member])[0]
        if not len(rows):
            self.arcs[member, :-1] = FAR
            return
        free = dealing.allowed[rows] & ~dealing.dealt[rows]
        gain = dealing.gain(rows)
        prices = np.where(free, gain - gain[:, member, None] + 2 * dealing.apart, FAR)
        best = prices.argmin(0)
        self.rows[member] = rows[best]
        self.arcs[member, :-1] = prices[best, np.arange(len(best))]


def _negative_cycle(arcs: np.ndarray) -> list[int]:
    """The nodes of a cycle of negative length, in its order; none, no nodes. Bellman and Ford, from every node at once."""
    count = len(arcs)
    nodes = np.arange(count)
    distance, parent = np.zeros(count, np.int64), nodes.copy()
    for _ in range(count + 1):
        through = distance[:, None] + arcs
        best = through.argmin(0)
        shorter = through[best, nodes] < distance
        if not shorter.any():
            return []
        distance = np.where(shorter, through[best, nodes], distance)
        parent = np.where(shorter, best, parent)
        ancestor = parent
        for _ in range(count.bit_length()):
            ancestor = ancestor[ancestor]
        looping = ancestor[parent[ancestor] != ancestor]
        if len(looping):
            return _walk(parent, int(looping[0]))
    raise AssertionError("distances still fall and no cycle is found")


def _walk(parent: np.ndarray, start: int) -> list[int]:
    cycle, node = [start], int(parent[start])
    while node != start:
        cycle.append(node)
        node = int(parent[node])
    return cycle[::-1]
