"""A consumer group without a broker: members with their assignors, and a leader that deals out the partitions."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from undertow.connectors.kafka.assignor import StickyAssignor
from undertow.connectors.kafka.placement import Partition


@dataclass(frozen=True)
class Cluster:
    """As much of aiokafka's ClusterMetadata as an assignor asks for."""

    topics: Mapping[str, int]

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.topics[topic])) if topic in self.topics else None


@dataclass
class Group:
    """members: by id, their assignors, and what they subscribe to."""

    topics: Mapping[str, int]
    members: dict[str, StickyAssignor] = field(default_factory=dict)
    subscribed: dict[str, frozenset[str]] = field(default_factory=dict)

    def join(self, id: str, topics: Iterable[str] | None = None, standbys: int = 0) -> StickyAssignor:
        self.members[id] = StickyAssignor(f"worker-{id}", standbys)
        self.subscribed[id] = frozenset(self.topics if topics is None else topics)
        return self.members[id]

    def leave(self, id: str) -> None:
        del self.members[id], self.subscribed[id]

    def joined(self) -> dict[str, ConsumerProtocolMemberMetadata]:
        """What each member sends, as it comes out of the wire."""
        sent = {id: m.metadata(self.subscribed[id]).encode() for id, m in self.members.items()}
        return {id: ConsumerProtocolMemberMetadata.decode(data) for id, data in sent.items()}

    def rebalance(self, shuffle: int = 0) -> None:
        """A generation: a member leads, and everyone is told. shuffle: the order in which the leader sees the members."""
        joined = list(self.joined().items())
        random.Random(shuffle).shuffle(joined)
        leader = self.members[joined[0][0]]
        for id, assignment in leader.assign(Cluster(self.topics), dict(joined)).items():
            self.members[id].on_assignment(ConsumerProtocolMemberAssignment.decode(assignment.encode()))

    def owners(self) -> dict[Partition, str]:
        """Each partition's owner; fails where one has two."""
        found: dict[Partition, str] = {}
        for id, member in self.members.items():
            for partition in member.owned:
                assert partition not in found, f"{partition} is owned by {found[partition]} and {id}"
                found[partition] = id
        return found

    def followers(self) -> dict[Partition, set[str]]:
        found: dict[Partition, set[str]] = {}
        for id, member in self.members.items():
            for partition in member.standbys:
                found.setdefault(partition, set()).add(id)
        return found
