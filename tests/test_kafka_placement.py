"""Placement against a reference that tries everything."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.kafka.placement import Member, Partition, place_owners, place_standbys, settled_claims
from undertow.connectors.kafka.spreading import spread

NAMES = "ab"


@st.composite
def members(draw: st.DrawFn) -> tuple[dict[str, range], list[Member]]:
    """Up to four members with any claims and any subscriptions to one or two topics of few partitions."""
    topics = {t: range(draw(st.integers(1, 4))) for t in NAMES[: draw(st.integers(1, 2))]}
    partitions = [(t, p) for t in topics for p in topics[t]]
    found = []
    for i in range(draw(st.integers(1, 4 if len(partitions) < 6 else 3))):
        subscribed = draw(st.sets(st.sampled_from(sorted(topics)), min_size=1))
        owned = draw(st.frozensets(st.sampled_from(partitions)))
        following = draw(st.dictionaries(st.sampled_from(partitions), st.integers(0, 9)))
        found.append(Member(f"m{i}", frozenset(subscribed), owned, draw(st.integers(0, 2)), following))
    return topics, found


def ways(topics: dict[str, range], members: Sequence[Member]) -> Iterator[dict[Partition, int]]:
    """Every way to place the partitions with subscribers whose counts in each topic are within one."""
    partitions = [(t, p) for t in topics for p in topics[t] if any(t in m.topics for m in members)]
    choices = [[i for i, m in enumerate(members) if t in m.topics] for t, _ in partitions]
    for places in product(*choices):
        owners = dict(zip(partitions, places, strict=True))
        if all(within_one(owners, t, members) for t in topics):
            yield owners


def within_one(owners: dict[Partition, int], topic: str, members: Sequence[Member]) -> bool:
    counts = [
        sum(t == topic and o == i for (t, _), o in owners.items()) for i, m in enumerate(members) if topic in m.topics
    ]
    return not counts or max(counts) - min(counts) <= 1


def worth(owners: dict[Partition, int], members: Sequence[Member]) -> tuple[int, int]:
    """Less is better: how uneven the loads are, and how many partitions leave an owner that could keep them or are new."""
    loads = [list(owners.values()).count(i) for i in range(len(members))]
    claims = settled_claims(members)
    return sum(n * n for n in loads), sum(claims.get(p) != i for p, i in owners.items())


@given(members())
def test_owners_are_the_best_there_are(case: tuple[dict[str, range], list[Member]]) -> None:
    """Of all ways, none is more even, and of those as even none moves fewer partitions."""
    topics, given = case
    owners = place_owners(topics, given)
    best = min(worth(w, given) for w in ways(topics, given))
    assert all(within_one(owners, t, given) for t in topics)
    assert worth(owners, given) == best


@given(members(), st.integers(0, 2))
def test_standbys_are_as_even_as_can_be(case: tuple[dict[str, range], list[Member]], copies: int) -> None:
    """As many other subscribers as there are, up to the wish; of all ways, none spreads owning and following more evenly."""
    topics, given = case
    owners = place_owners(topics, given)
    placed = place_standbys(owners, given, copies)
    choices = []
    for (topic, _), owner in owners.items():
        others = [i for i, m in enumerate(given) if topic in m.topics and i != owner]
        choices.append(list(combinations(others, min(copies, len(others)))))

    def unevenness(chosen: Sequence[Sequence[int]]) -> int:
        loads = np.bincount([*owners.values(), *(i for of in chosen for i in of)], minlength=len(given))
        return int((loads**2).sum())

    assert all(tuple(placed[p]) in c for p, c in zip(owners, choices, strict=True))
    assert unevenness([placed[p] for p in owners]) == min(map(unevenness, product(*choices)))


@given(st.data())
def test_spread_is_the_best_there_is(data: st.DataObject) -> None:
    """Rows that want any number of members, at any costs, from any beginning and above any loads: none is better.

    In groups: none is more even, and no exchange of one row makes it better.
    """
    rows, count = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    cells = st.lists(st.booleans(), min_size=rows * count, max_size=rows * count)
    held, allowed = (np.array(data.draw(cells)).reshape(rows, count) for _ in range(2))
    numbers = st.lists(st.integers(0, 5), min_size=rows * count, max_size=rows * count)
    cost = np.array(data.draw(numbers)).reshape(rows, count)
    demand = np.array([data.draw(st.integers(0, int(n))) for n in allowed.sum(1)])
    load = np.array([data.draw(st.integers(-3, 3)) for _ in range(count)])
    grouped = data.draw(st.booleans())
    groups = np.array([data.draw(st.integers(0, 1)) for _ in range(rows)])
    beside = np.array(data.draw(st.lists(st.integers(0, 3), min_size=2 * count, max_size=2 * count))).reshape(2, count)
    dealt = spread(held, allowed, cost, demand, load, *((groups, beside) if grouped else ()))
    assert not (dealt & ~allowed).any()
    assert dealt.sum(1).tolist() == demand.tolist()

    def worth(dealt: np.ndarray) -> tuple[int, int, int]:
        together = beside.copy()
        np.add.at(together, groups, dealt)
        apart = int((together**2).sum()) if grouped else 0
        return int(((load + dealt.sum(0)) ** 2).sum()), apart, int(cost[dealt].sum())

    def row(places: Sequence[int]) -> list[bool]:
        return [i in places for i in range(count)]

    choices = [
        [row(c) for c in combinations(np.nonzero(a)[0].tolist(), int(d))] for a, d in zip(allowed, demand, strict=True)
    ]
    ways = [np.array(way).reshape(rows, count) for way in product(*choices)]
    assert worth(dealt)[0] == min(worth(way)[0] for way in ways)
    near = [way for way in ways if not grouped or (way != dealt).sum() <= 2]
    assert worth(dealt) == min(map(worth, near))
