"""The assignor: who owns what after members join, leave and fail, and what they tell each other."""

import time
from collections import Counter

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from undertow.connectors.kafka.assignor import UNKNOWN_LAG, StickyAssignor
from undertow.connectors.kafka.placement import Partition

from .group import Cluster, Group

TOPICS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)
EVENTS = st.lists(st.tuples(st.sampled_from(("join", "leave", "fail", "nothing")), st.integers(0, 99)), max_size=12)


def spread_of(counts: list[int]) -> int:
    return max(counts) - min(counts)


def check(group: Group, standbys: int) -> None:
    """Every partition once, to a subscriber; counts within one in each topic and, of like members, in all; standbys others."""
    owners, followers = group.owners(), group.followers()
    wanted = {
        (t, p) for t, n in group.topics.items() if any(t in s for s in group.subscribed.values()) for p in range(n)
    }
    assert set(owners) == wanted
    for topic in group.topics:
        subscribers = [id for id, topics in group.subscribed.items() if topic in topics]
        counts = Counter(id for (t, _), id in owners.items() if t == topic)
        assert counts.keys() <= set(subscribers)
        assert not subscribers or spread_of([counts[id] for id in subscribers]) <= 1
        for p in range(group.topics[topic]) if subscribers else ():
            behind = followers.get((topic, p), set())
            assert behind <= set(subscribers) - {owners[topic, p]}
            assert len(behind) == min(standbys, len(subscribers) - 1)
    if len(set(group.subscribed.values())) == 1:
        assert spread_of([len(m.owned) for m in group.members.values()]) <= 1
        assert spread_of([len(m.owned) + len(m.standbys) for m in group.members.values()]) <= 1


def moved(before: dict[Partition, str], after: dict[Partition, str]) -> set[Partition]:
    return {p for p in before if before[p] != after[p]}


@given(TOPICS, EVENTS, st.integers(0, 3), st.booleans())
def test_any_history(topics: dict[str, int], events: list[tuple[str, int]], standbys: int, alike: bool) -> None:
    """Through joins, leaves and lost memories the rules hold, and nothing moves where nothing has changed."""
    group, names = Group(topics), sorted(topics)
    group.join("m0", standbys=standbys)
    for i, (event, n) in enumerate(events, 1):
        if event == "join":
            some = None if alike else [t for k, t in enumerate(names) if n >> k & 1] or names
            group.join(f"m{i}", some, standbys)
        elif event == "leave" and len(group.members) > 1:
            group.leave(sorted(group.members)[n % len(group.members)])
        elif event == "fail":
            forgets = group.members[sorted(group.members)[n % len(group.members)]]
            forgets.owned, forgets.following, forgets.round = set(), {}, 0
        group.rebalance(shuffle=n)
        check(group, standbys)
        owners, followers = group.owners(), group.followers()
        group.rebalance(shuffle=n + 1)
        assert (group.owners(), group.followers()) == (owners, followers)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2))
def test_a_join_moves_what_balance_needs(partitions: int, members: int, standbys: int) -> None:
    """A member that joins is given its share, and no other member is given anything."""
    group = Group({"t": partitions})
    for i in range(members):
        group.join(f"m{i}", standbys=standbys)
    group.rebalance()
    before = group.owners()
    group.join("new", standbys=standbys)
    group.rebalance()
    gone = moved(before, group.owners())
    assert {group.owners()[p] for p in gone} <= {"new"}
    assert len(gone) == partitions // (members + 1)
    check(group, standbys)


@given(st.integers(1, 40), st.integers(2, 8), st.integers(0, 2), st.integers(0, 99))
def test_a_leave_moves_what_the_leaver_had(partitions: int, members: int, standbys: int, n: int) -> None:
    """Where a member leaves, the others keep all that they have."""
    group = Group({"t": partitions})
    for i in range(members):
        group.join(f"m{i}", standbys=standbys)
    group.rebalance()
    before, gone = group.owners(), f"m{n % members}"
    group.leave(gone)
    group.rebalance()
    assert moved(before, group.owners()) == {p for p, id in before.items() if id == gone}
    check(group, standbys)


@given(st.permutations(range(6)), st.integers(0, 2))
def test_the_order_of_members_decides_nothing(order: list[int], standbys: int) -> None:
    """Any leader, seeing the members in any order, says the same, also of members that have a history."""
    said = []
    for sequence in (range(6), order):
        group = Group({"a": 13, "b": 4})
        for i in range(4):
            group.join(f"m{i}", standbys=standbys)
        group.rebalance()
        group.leave("m1")
        for i in (4, 5):
            group.join(f"m{i}", standbys=standbys)
        joined = group.joined()
        ids = [f"m{i}" for i in sequence if f"m{i}" in joined]
        assigned = group.members[ids[0]].assign(Cluster(group.topics), {id: joined[id] for id in ids})
        said.append({id: a.encode() for id, a in assigned.items()})
    assert said[0] == said[1]


@pytest.mark.parametrize(("members", "partitions"), [(2, 7), (3, 12), (4, 12), (4, 100), (5, 100), (10, 12), (10, 100)])
def test_standbys_take_over(members: int, partitions: int) -> None:
    """Whichever member fails: each of its partitions goes to one that follows it, of a group that grew member by member."""
    for dead in range(members):
        group = Group({"t": partitions})
        for i in range(members):
            group.join(f"m{i}", standbys=1)
            group.rebalance()
        owners, followers = group.owners(), group.followers()
        group.leave(f"m{dead}")
        group.rebalance()
        orphans = [p for p, id in owners.items() if id == f"m{dead}"]
        assert orphans
        assert all({group.owners()[p]} == followers[p] for p in orphans)


def test_the_closest_standby_takes_over() -> None:
    """Of several that follow a partition, the one that lags least gets it, where there is room for both."""
    group = Group({"t": 3})
    for i in range(3):
        group.join(f"m{i}", standbys=2)
    group.rebalance()
    for closest, other in (("m1", "m2"), ("m2", "m1")):
        again = Group(group.topics, dict(group.members), dict(group.subscribed))
        (orphan,) = again.members["m0"].owned
        again.members[closest].following = {**again.members[closest].following, orphan: 3}
        again.members[other].following = {**again.members[other].following, orphan: 3000}
        again.leave("m0")
        joined = again.joined()
        given = again.members["m1"].assign(Cluster(again.topics), joined)
        assert orphan in [tuple(p) for p in given[closest].partitions()]


def test_a_former_owner_stands_by() -> None:
    """Where a partition leaves its owner for a new member, the owner, whose state is warm, follows it."""
    group = Group({"t": 6})
    group.join("m0", standbys=1)
    group.rebalance()
    group.join("m1", standbys=1)
    group.rebalance()
    assert len(group.members["m1"].owned) == 3
    assert group.members["m0"].standbys == group.members["m1"].owned
    assert set(group.members["m0"].following.values()) == {UNKNOWN_LAG}


def test_a_stale_claim_loses() -> None:
    """A member that was away through a rebalance does not take back what others were given meanwhile."""
    group = Group({"t": 4})
    for id in ("m0", "m1"):
        group.join(id)
    group.rebalance()
    away, topics = group.members["m0"], group.subscribed["m0"]
    assert len(away.owned) == 2
    group.leave("m0")
    group.join("m2")
    group.rebalance()
    before = group.owners()
    group.members["m0"], group.subscribed["m0"] = away, topics
    group.rebalance()
    assert away.round == 3
    gone = moved(before, group.owners())
    assert len(gone) == 1
    assert {group.owners()[p] for p in gone} == {"m0"}


def test_who_is_live() -> None:
    """Each member knows the workers of its generation; one that was never told counts on itself alone."""
    group = Group({"t": 2})
    for id in ("m0", "m1", "m2"):
        assert group.join(id).live == {f"worker-{id}"}
    group.rebalance()
    assert {m.live for m in group.members.values()} == {frozenset({"worker-m0", "worker-m1", "worker-m2"})}
    group.leave("m0")
    group.rebalance()
    assert {m.live for m in group.members.values()} == {frozenset({"worker-m1", "worker-m2"})}


def test_a_static_member_that_restarts() -> None:
    """It is given its predecessor's assignment as it stands, and knows that this worker, not that one, is live."""
    group = Group({"t": 4})
    for id in ("m0", "m1"):
        group.join(id, standbys=1)
    meant = group.members["m0"].assign(Cluster(group.topics), group.joined())["m0"]
    restarted = StickyAssignor("worker-again", 1)
    restarted.on_assignment(meant)
    assert restarted.live == {"worker-again", "worker-m1"}
    assert (len(restarted.owned), len(restarted.standbys)) == (2, 2)


@pytest.mark.parametrize("data", [b"", b"\x02\x90", b"\x01", b"\x01\xc1", b"\x01\x93\x05\x01\x02", b"\x00\x00\x00\x01"])
def test_other_versions(data: bytes) -> None:
    """A member, or a leader, whose words are not understood counts as one that said nothing."""
    mine = StickyAssignor("worker-a", 1)
    members = {"a": mine.metadata(["t"]), "b": ConsumerProtocolMemberMetadata(0, ["t"], data)}
    assigned = mine.assign(Cluster({"t": 4}), members)
    assert [len(assigned[id].partitions()) for id in "ab"] == [2, 2]
    mine.on_assignment(assigned["a"])
    assert mine.live == {"worker-a"}
    mine.on_assignment(ConsumerProtocolMemberAssignment(0, [("t", [3])], data))
    assert (mine.owned, mine.standbys, mine.live, mine.round) == ({("t", 3)}, frozenset(), {"worker-a"}, 1)


def test_a_topic_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is given a topic that the cluster does not know, the others are dealt out, and it is said."""
    mine = StickyAssignor("worker-a")
    mine.on_assignment(mine.assign(Cluster({"t": 2}), {"a": mine.metadata(["gone", "t"])})["a"])
    assert mine.owned == {("t", 0), ("t", 1)}
    assert [(r.message, r.topic) for r in caplog.records] == [
        ("topic is not known to the cluster, nobody gets its partitions", "gone")
    ]


@pytest.mark.parametrize("topics", [{"t": 1000}, {f"t{i}": 10 for i in range(100)}])
def test_a_large_group(topics: dict[str, int]) -> None:
    """100 members and 1,000 partitions take less than a second from nothing, after a join, and after 20 leave."""
    group = Group(topics)
    for i in range(100):
        group.join(f"m{i:03}", standbys=1)
    for change in (
        lambda: None,
        lambda: group.join("new", standbys=1),
        lambda: [group.leave(f"m{i:03}") for i in range(20)],
    ):
        change()
        joined, leader = group.joined(), next(iter(group.members.values()))
        took = []
        while (
            len(took) < 5 and min(took, default=1) >= 1
        ):  # of a machine that does other things meanwhile the best counts
            begin = time.process_time()
            leader.assign(Cluster(topics), joined)
            took.append(time.process_time() - begin)
        assert min(took) < 1
        group.rebalance()
        check(group, 1)
