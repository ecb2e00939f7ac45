"""What a run on Kafka would meet: topics, changelogs, the group, its offsets and who has the partitions. Changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code

from ...engine.errors import CheckpointError, ConnectorError
from . import clients
from .cluster import Cluster
from .failures import connector_error, told
from .intake import partition_name
from .offsets import Committed, committed


@dataclass(frozen=True, slots=True)
class Group:
    """state: as Kafka names it; "none" where no process ever took part. members: processes that take part now."""

    id: str
    state: str
    members: int


@dataclass(frozen=True, slots=True)
class Changelog:
    """state: a run creates it where it does not exist. records: what a restore of all partitions reads."""

    topic: str
    partitions: int
    state: Literal["exists", "would be created"]
    records: int


@dataclass(frozen=True, slots=True)
class Place:
    """first, end: of what the partition holds. committed: the group's offset. begin: where a run goes on; where the group
    has none, starts. claimed_by: the transactional id that may write for it now.
    """

    partition: str
    first: int
    end: int
    committed: int | None
    begin: int
    lag: int
    claimed_by: str | None


@dataclass(frozen=True, slots=True)
class Seen:
    group: Group
    changelogs: list[Changelog]
    partitions: list[Place]

    @property
    def lag(self) -> int:
        return sum(place.lag for place in self.partitions)


async def look(cluster: Cluster) -> Seen:
    """Raises ConnectorError, CheckpointError: what would end a run."""
    reader = cluster.reader()
    try:
        async with cluster.admin() as admin:
            await cluster.check_written(admin)
            there = {topic: await cluster.has_changelog(admin, topic) for topic in await cluster.inputs(admin)}
            await cluster.connect()
            await clients.start(reader, cluster.settings)
            partitions = [TopicPartition(topic, p) for topic in there for p in range(cluster.partitions(topic))]
            found = await committed(cluster.client, cluster.group_id, partitions, stable=False)
            with told(f"{cluster.where}: offsets"):
                places = await _places(cluster, reader, found)
                rows = await _rows(cluster, reader, [tp for tp in partitions if there[tp.topic]])
            group = await _group(cluster, admin)
    finally:
        await clients.stop(reader)
        await cluster.close()
    _check_state(cluster, found, rows)
    return Seen(group, [_changelog(cluster, topic, exists, rows) for topic, exists in there.items()], places)


async def _group(cluster: Cluster, admin: AIOKafkaAdminClient) -> Group:
    with told(f"{cluster.where}: group '{cluster.group_id}'"):
        answer: Any = (await admin.describe_consumer_groups([cluster.group_id]))[0]
    ((code, _, state, _, _, members, *_),) = answer.groups
    if code:
        raise connector_error(for_code(code)(), f"{cluster.where}: group '{cluster.group_id}'")
    return Group(cluster.group_id, "none" if state == "Dead" else state, len(members))


async def _rows(
    cluster: Cluster, reader: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """How many records the changelog of each of these partitions holds."""
    logs = {cluster.log_of(tp): tp for tp in partitions}
    if not logs:
        return {}
    first, ends = await reader.beginning_offsets(list(logs)), await reader.end_offsets(list(logs))
    return {tp: ends[log_tp] - first[log_tp] for log_tp, tp in logs.items()}


def _changelog(cluster: Cluster, topic: str, exists: bool, rows: Mapping[TopicPartition, int]) -> Changelog:
    records = sum(count for tp, count in rows.items() if tp.topic == topic)
    state: Literal["exists", "would be created"] = "exists" if exists else "would be created"
    return Changelog(cluster.changelog(topic), cluster.partitions(topic), state, records)


async def _places(cluster: Cluster, reader: AIOKafkaConsumer, found: Mapping[TopicPartition, Committed]) -> list[Place]:
    first, ends = await reader.beginning_offsets(list(found)), await reader.end_offsets(list(found))
    begins = await cluster.begins(reader, {tp: there.offset for tp, there in found.items()})
    places = []
    for tp, begin in begins.items():
        claim, whole = found[tp].standing, cluster.source.read == "uncommitted"  # then a run reads past `end`
        if begin < first[tp] or (begin > ends[tp] and not whole):
            raise ConnectorError(
                f"{cluster.where}: [source] {partition_name(tp)}: the group's offset is {begin}, and there are records from {first[tp]} to {ends[tp]}: "
                "retention deleted input that was not processed, or the topic was made anew. To go on without it, set the group's offset to one "
                "that there is (kafka-consumer-groups.sh --reset-offsets)"
            )
        places.append(Place(
            partition=partition_name(tp), first=first[tp], end=ends[tp], committed=found[tp].offset, begin=begin,
            lag=max(0, ends[tp] - begin), claimed_by=claim.owner,
        ))  # fmt: skip
    return places


def _check_state(
    cluster: Cluster, found: Mapping[TopicPartition, Committed], rows: Mapping[TopicPartition, int]
) -> None:
    """Raises CheckpointError where the group's offset and what the changelog holds are not of each other."""
    for tp, known in found.items():
        name, at = partition_name(tp), f"{cluster.where}: changelog '{cluster.changelog(tp.topic)}'"
        if known.standing.marker and not rows.get(tp):
            raise CheckpointError(
                f"{at}: there is nothing in it of {name}, and the group's offset says that there was: it was deleted or cut. Bring it back, or begin "
                "all streams anew by setting the group's offset (kafka-consumer-groups.sh --reset-offsets)"
            )
        if known.standing.new and rows.get(tp):
            raise CheckpointError(
                f"{at}: it holds {rows[tp]} records of {name}, and group '{cluster.group_id}' has no offset: it has expired, or the group is another. "
                "Set it (kafka-consumer-groups.sh --reset-offsets), or delete the changelog topic to begin all streams anew"
            )
