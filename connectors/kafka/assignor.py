"""The consumer group's assignor: partitions stay where they are, and go where they are followed.

What members tell each other rides in Kafka's `user_data`: a version byte, then MessagePack. What another version or
another program wrote there is as if nothing was written.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from .placement import Member, Partition, place_owners, place_standbys

log = logging.getLogger("undertow.kafka.assignor")
NAME, VERSION = "undertow-sticky", 1
UNKNOWN_LAG = 2**62  # of a standby that has not begun to follow
T = TypeVar("T")


class Told(msgspec.Struct, array_like=True, frozen=True):
    """What a member tells. worker: who it is. owned, since `round`; following: and by how many records each one lags."""

    worker: str = ""
    round: int = 0
    standbys: int = 0
    owned: dict[str, list[int]] = {}
    following: dict[str, dict[int, int]] = {}


class Given(msgspec.Struct, array_like=True, frozen=True):
    """What a member is told with its partitions. worker: whom they are meant for; live: the workers of this generation."""

    worker: str = ""
    round: int = 0
    live: list[str] = []
    standbys: dict[str, list[int]] = {}


class StickyAssignor:
    """What `partition_assignment_strategy` of one consumer holds: an instance, since each member has its own to say.

    (aiokafka's base class has class methods, which cannot know of a member; it asks for no more than these names.)
    worker: unique to this process. standbys: members that shall follow each partition; the most that any member says counts.
    owned: what it has, as it will tell at the next rebalance; the processor takes out what it has lost.
    following: its standbys and their lags in records; the processor keeps the lags.
    live: the workers of this generation, this one among them. A worker that is not in it may be fenced at once.
    """

    name = NAME

    def __init__(self, worker: str, standbys: int = 0):
        self.worker, self.wanted, self.round = worker, standbys, 0
        self.owned: set[Partition] = set()
        self.following: dict[Partition, int] = {}
        self.live = frozenset({worker})

    @property
    def standbys(self) -> frozenset[Partition]:
        """The partitions that this member is to stand by for."""
        return frozenset(self.following)

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this member sends when it joins."""
        following: dict[str, dict[int, int]] = {}
        for (topic, partition), lag in self.following.items():
            following.setdefault(topic, {})[partition] = lag
        told = Told(self.worker, self.round, self.wanted, _by_topic(self.owned), following)
        return ConsumerProtocolMemberMetadata(0, sorted(topics), _encoded(told))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """What each member gets, decided by the group's leader."""
        told = {id: _decoded(m.user_data, Told) for id, m in members.items()}
        ids = sorted(members, key=lambda id: (told[id].worker, id))
        placed = [_member(id, members[id].subscription, told[id]) for id in ids]
        owners = place_owners(_partitions(cluster, placed), placed)
        followers = place_standbys(owners, placed, max((t.standbys for t in told.values()), default=0))
        owned: list[list[Partition]] = [[] for _ in ids]
        follows: list[list[Partition]] = [[] for _ in ids]
        for partition, owner in owners.items():
            owned[owner].append(partition)
            for place in followers[partition]:
                follows[place].append(partition)
        live = sorted({t.worker for t in told.values() if t.worker})
        round = 1 + max((t.round for t in told.values()), default=0)
        return {
            id: ConsumerProtocolMemberAssignment(
                0,
                sorted(_by_topic(owned[i]).items()),
                _encoded(Given(told[id].worker, round, live, _by_topic(follows[i]))),
            )
            for i, id in enumerate(ids)
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Takes over what this member was given."""
        given = _decoded(assignment.user_data, Given)
        self.round = given.round or self.round
        self.owned = {(topic, p) for topic, partitions in assignment.assignment for p in partitions}
        standbys = [(topic, p) for topic, partitions in given.standbys.items() for p in partitions]
        self.following = {tp: self.following.get(tp, UNKNOWN_LAG) for tp in standbys if tp not in self.owned}
        # A static member that restarts is given its predecessor's assignment, without a rebalance: that one is gone.
        self.live = frozenset(given.live) - {given.worker} | {self.worker}


def _member(id: str, topics: Iterable[str], told: Told) -> Member:
    owned = frozenset((topic, p) for topic, partitions in told.owned.items() for p in partitions)
    following = {(topic, p): lag for topic, lags in told.following.items() for p, lag in lags.items()}
    return Member(id, frozenset(topics), owned, told.round, following)


def _partitions(cluster: ClusterMetadata, members: Iterable[Member]) -> dict[str, list[int]]:
    found = {}
    for topic in sorted(frozenset().union(*(m.topics for m in members))):
        partitions = cluster.partitions_for_topic(topic)
        if partitions is None:
            log.warning("topic is not known to the cluster, nobody gets its partitions", extra={"topic": topic})
            continue
        found[topic] = sorted(partitions)
    return found


def _by_topic(partitions: Iterable[Partition]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        found.setdefault(topic, []).append(partition)
    return found


def _encoded(said: Told | Given) -> bytes:
    return bytes([VERSION]) + msgspec.msgpack.encode(said)


def _decoded(data: bytes | None, kind: type[T]) -> T:
    """What was said; where nothing was, or in another version's words, as if it said nothing."""
    if not data or data[0] != VERSION:
        return kind()
    try:
        return msgspec.msgpack.decode(data[1:], type=kind)
    except msgspec.DecodeError:
        return kind()
