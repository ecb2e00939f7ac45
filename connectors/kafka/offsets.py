"""The group's committed offsets, and the claim that each of them carries: which transactional id may write for the partition.

Why a claim and not the group's generation. aiokafka's transactions commit offsets under the group's id alone, so the
coordinator cannot refuse those of a member that has lost its partitions. So the metadata text of a partition's committed
offset names the transactional id of its owner, and whoever takes a partition over shuts that id out first:

1. It reads the claim, after its generation has begun, without waiting for open transactions: only the owner that it names
   can have one. Claims are written by plain offset commits, which the coordinator refuses of any older generation; so no
   claim that it has not seen can follow.
2. It initialises the claimed transactional id for itself. That aborts the owner's open transaction, and everything that
   the owner sends from then on is refused.
3. It reads the offset again, this time as the only one who can change it, and asks the coordinator to wait for offsets of
   transactions that are being ended.
4. It claims the partition for its own id, by a plain offset commit of the generation that assigned the partition to it.
   If that is refused, another generation has begun, and it has written nothing.

A transactional id belongs to one life of one process and is never used again, so shutting out an old one is harmless.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields
from aiokafka.structs import OffsetAndMetadata
from msgspec.structs import replace

from ...engine.errors import CheckpointError, ConnectorError
from .coordinators import ask, names
from .failures import connector_error

# error codes: offsets pending; illegal generation, unknown member, rebalance in progress, fenced instance
_UNSTABLE, _OTHER_GENERATION = 88, (22, 25, 27, 82)


class Claim(msgspec.Struct, frozen=True):
    """owner: the transactional id that may write for the partition; None after a release. marker: the changelog has one.

    new: the offset is not the group's, which had none, but the one that `[source] start` says.
    """

    undertow: int = 1
    owner: str | None = None
    marker: bool = False
    new: bool = False

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    def check(self, state_until: int | None, where: str, partition: str, group_id: str) -> None:
        """Raises CheckpointError where the changelog does not belong to the offset; state_until: what its marker says, None without one."""
        if self.marker and state_until is None:
            raise CheckpointError(
                f"{where}: it has no marker, and the group's offset of {partition} says that one was written: the changelog was deleted or cut. Bring it "
                "back, or begin all streams anew by setting the group's offset (kafka-consumer-groups.sh --reset-offsets)"
            )
        if self.new and state_until is not None:
            raise CheckpointError(
                f"{where}: it holds the state up to offset {state_until} of {partition}, and group '{group_id}' has no offset: it has expired, or the "
                f"group is another. Set it to {state_until} (kafka-consumer-groups.sh --reset-offsets), or delete the changelog topic to begin all "
                "streams anew"
            )


class Committed(msgspec.Struct, frozen=True):
    """offset: None where the group has none for the partition. claim: None where somebody else committed it."""

    offset: int | None
    claim: Claim | None

    @property
    def standing(self) -> Claim:
        """The claim, or that of a partition for which there is none."""
        return self.claim or Claim(new=self.offset is None)

    def claimed_by(self, owner: str) -> Claim:
        return replace(self.standing, owner=owner)


@dataclass(frozen=True, slots=True)
class Membership:
    """This process in one generation of the group."""

    group_id: str
    generation: int
    member_id: str


class OffsetFetchResponse_v7(Response):
    API_KEY = 9  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride] (aiokafka declares properties)
    API_VERSION = 7  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class OffsetFetchRequest_v7(RequestStruct):
    API_KEY, API_VERSION, RESPONSE_TYPE, FLEXIBLE_VERSION = 9, 7, OffsetFetchResponse_v7, True
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(("name", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class OffsetFetch(Request[OffsetFetchRequest_v7]):
    """The committed offsets. stable: none of a partition while a transaction that commits another is open (KIP-447)."""

    API_KEY = 9

    def __init__(self, group_id: str, topics: Mapping[str, list[int]], stable: bool):
        self.group_id, self.topics, self.stable = group_id, topics, stable

    def build(self, request_struct_class: type[OffsetFetchRequest_v7]) -> OffsetFetchRequest_v7:
        topics = [(topic, partitions, {}) for topic, partitions in self.topics.items()]
        return request_struct_class(self.group_id, topics, self.stable, {})


async def committed(
    client: AIOKafkaClient, group_id: str, partitions: Iterable[TopicPartition], stable: bool
) -> dict[TopicPartition, Committed]:
    """What the group has committed of each. stable: waits while a transaction may still change it. Raises ConnectorError."""
    topics: dict[str, list[int]] = {}
    for tp in partitions:
        topics.setdefault(tp.topic, []).append(tp.partition)

    def codes(answer: Any) -> set[int]:
        return {answer.error_code, *(p[4] for _, ps, _ in answer.topics for p in ps)}

    answer, refused = await ask(
        client, CoordinationType.GROUP, group_id, OffsetFetch(group_id, topics, stable), codes, {_UNSTABLE}
    )
    if refused:
        raise connector_error(for_code(min(refused))(names(refused)), f"group '{group_id}': its offsets")
    return {TopicPartition(t, p[0]): _committed(p[1], p[3]) for t, ps, _ in answer.topics for p in ps}


async def claim(
    client: AIOKafkaClient, member: Membership, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> str | None:
    """Commits these offsets with their claims if the member's generation is still the group's; else why not. Raises ConnectorError.

    Not by the consumer's `commit`: that sends whatever generation it has heard of last, which may be one that has given
    the partitions to somebody else already.
    """
    topics: dict[str, list[tuple[int, int, str]]] = {}
    for tp, place in offsets.items():
        topics.setdefault(tp.topic, []).append((tp.partition, place.offset, place.metadata))
    request = OffsetCommitRequest(
        member.group_id,
        member.generation,
        member.member_id,
        OffsetCommitRequest.DEFAULT_RETENTION_TIME,
        list(topics.items()),
    )

    def codes(answer: Any) -> set[int]:
        return {code for _, partitions in answer.topics for _, code in partitions}

    _, refused = await ask(client, CoordinationType.GROUP, member.group_id, request, codes)
    if refused - set(_OTHER_GENERATION):
        raise ConnectorError(f"group '{member.group_id}': its offsets cannot be committed: {names(refused)}")
    return names(refused) or None


def _committed(offset: int, metadata: str | None) -> Committed:
    try:
        claim = msgspec.json.decode(metadata or "", type=Claim)
    except msgspec.DecodeError:
        claim = None
    return Committed(None if offset < 0 else offset, claim)
