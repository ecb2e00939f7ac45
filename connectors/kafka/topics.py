"""The topics of a pipeline before it runs: they exist, the input is kept long enough, the changelog fits or is made.

A changelog holds a row a stream, so it is compacted and never deleted from, and has a partition for each of the input's.
How fast a successor is back depends on how much there is to read, and that is not the rows alone: compaction leaves the
newest segment as it is and a partition be while less than `min.cleanable.dirty.ratio` of it is stale. So it reads at most
rows / (1 - ratio), and a segment or two. With the broker's defaults (half, 1 GiB) that second part is what it would wait
for; with these a partition costs about 16 MiB more than its rows, and each row that is written is rewritten about three times.
"""

import asyncio
import logging
import re
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from ...engine.errors import ConnectorError
from .failures import connector_error, told

log = logging.getLogger("undertow.kafka")

SEGMENT_BYTES = 16 * 2**20
DIRTY_RATIO = "0.3"
TOPIC_BYTES = 1_048_588  # max.message.bytes, where nobody set it
HEAD_BYTES = 1024  # of a batch and of the one row in it, but for the row itself
RETENTION_MARGIN = 10  # the input has to be kept for so many checkpoint intervals
APPEAR_S = 30.0


def changelog_topic(pipeline: str, topic: str) -> str:
    """The name of the changelog of an input topic. Raises ConnectorError where it is longer than a topic's name may be."""
    name = f"{pipeline}-{topic}-changelog"
    if len(name) > 249:
        raise ConnectorError(
            f"changelog {name!r}: {len(name)} characters, a topic's name has at most 249; use a shorter name"
        )
    return name


class UnknownTopicError(ConnectorError):
    """The broker that was asked does not know the topic."""


async def partition_counts(admin: AIOKafkaAdminClient, where: str, topics: Collection[str]) -> dict[str, int]:
    """How many partitions each has. Raises ConnectorError where one does not exist; creates none, whatever brokers do."""
    with told(f"{where}: topics"):
        present = set(await admin.list_topics())
        described = await admin.describe_topics([t for t in topics if t in present]) if present & set(topics) else []
    for topic in topics:
        if topic not in present:
            raise UnknownTopicError(
                f"{where}: topic '{topic}': does not exist, or this user may not see it; create it, or grant Describe on it"
            )
    for facts in described:
        if (error := for_code(facts["error_code"])) is not NoError:
            raise _failed(error(), f"{where}: topic '{facts['topic']}'")
    return {facts["topic"]: len(facts["partitions"]) for facts in described}


async def matching_topics(
    admin: AIOKafkaAdminClient, where: str, pattern: str, pipeline: str, written: Iterable[str]
) -> list[str]:
    """The topics whose whole names match, but for Kafka's own, the pipeline's changelogs and those that it writes to."""
    with told(f"{where}: topics"):
        names = await admin.list_topics()
    own = re.compile(f"__.*|{re.escape(pipeline)}-.*-changelog")
    found = [n for n in names if re.fullmatch(pattern, n) and not own.fullmatch(n) and n not in set(written)]
    if not found:
        raise ConnectorError(
            f"{where}: topic_pattern {pattern!r} matches none of {len(names)} topics that this user may see"
        )
    return sorted(found)


async def topic_settings(admin: AIOKafkaAdminClient, where: str, topics: Sequence[str]) -> dict[str, dict[str, str]]:
    """The settings of each topic by their names. Raises ConnectorError."""
    found = await _described(admin, where, topics)
    for topic, settings in found.items():
        if isinstance(settings, KafkaError):
            raise _failed(settings, f"{where}: topic '{topic}': its settings (this needs DescribeConfigs)")
    return {topic: settings for topic, settings in found.items() if isinstance(settings, dict)}


def _failed(error: KafkaError, where: str) -> ConnectorError:
    told = connector_error(error, where)
    return UnknownTopicError(str(told)) if isinstance(error, UnknownTopicOrPartitionError) else told


async def largest_message(admin: AIOKafkaAdminClient, where: str, topic: str) -> int:
    """The topic's max.message.bytes; the usual one, and a line in the log, where this user may not see it."""
    settings = (await _described(admin, where, [topic]))[topic]
    if isinstance(settings, dict):
        return int(settings["max.message.bytes"])
    if not isinstance(settings, TopicAuthorizationFailedError):
        raise connector_error(settings, f"{where}: topic '{topic}': its settings")
    log.warning("topic '%s': no DescribeConfigs on it, so max.message.bytes is taken to be %d", topic, TOPIC_BYTES)
    return TOPIC_BYTES


async def _described(
    admin: AIOKafkaAdminClient, where: str, topics: Sequence[str]
) -> dict[str, dict[str, str] | KafkaError]:
    """The settings of each, or why they are not told."""
    found: dict[str, dict[str, str] | KafkaError] = {}
    with told(f"{where}: settings of topics"):
        answers: list[Any] = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        )
    for code, message, _, topic, entries in (resource for answer in answers for resource in answer.resources):
        error = for_code(code)
        found[topic] = {entry[0]: entry[1] for entry in entries} if error is NoError else error(message)
    return found


async def check_input(
    admin: AIOKafkaAdminClient, where: str, topics: Sequence[str], checkpoint_interval_s: float
) -> None:
    """Refuses input that might be gone when it has to be read again. Raises ConnectorError."""
    needed_ms = round(RETENTION_MARGIN * checkpoint_interval_s * 1000)
    for topic, settings in (await topic_settings(admin, where, topics)).items():
        if "compact" in settings["cleanup.policy"]:
            raise ConnectorError(
                f"{where}: topic '{topic}': cleanup.policy is {settings['cleanup.policy']!r}: of each stream frames would be gone "
                "when they have to be stepped again; set cleanup.policy=delete"
            )
        kept_ms = int(settings["retention.ms"])
        if 0 <= kept_ms < needed_ms:
            raise ConnectorError(
                f"{where}: topic '{topic}': retention.ms is {kept_ms}, expected at least {needed_ms}, {RETENTION_MARGIN} checkpoint "
                "intervals: a successor reads that far back; raise it, or lower [delivery] checkpoint_interval_s"
            )


async def find_changelog(admin: AIOKafkaAdminClient, where: str, name: str, partitions: int, row_bytes: int) -> bool:
    """Whether the changelog is there. partitions: the input's. Raises ConnectorError where it is and does not fit."""
    with told(f"{where}: changelog '{name}'"):
        there = name in await admin.list_topics()
    if there:
        await _check_changelog(admin, where, name, partitions, row_bytes + HEAD_BYTES)
    return there


async def ensure_changelog(
    admin: AIOKafkaAdminClient, where: str, name: str, partitions: int, replicas: int | None, row_bytes: int
) -> bool:
    """Makes the changelog, or checks the one that is there; whether it was made.

    partitions: the input's. replicas: the broker's default if None. row_bytes: the most that a row may have.
    Raises ConnectorError where the one that is there does not fit, or there can be none.
    """
    if await find_changelog(admin, where, name, partitions, row_bytes):
        return False
    at, message_bytes = f"{where}: changelog '{name}'", max(TOPIC_BYTES, row_bytes + HEAD_BYTES)
    settings = {
        "cleanup.policy": "compact",
        "segment.bytes": str(max(SEGMENT_BYTES, 2 * message_bytes)),
        "min.cleanable.dirty.ratio": DIRTY_RATIO,
        "max.message.bytes": str(message_bytes),
    }
    # aiokafka takes -1, the broker's default, only together with assignments, of which there may be none.
    topic = NewTopic(name, partitions, replicas or -1, None if replicas else {}, settings)
    made = await _create(admin, at, topic)
    await _appears(admin, at, name)
    await _check_changelog(admin, where, name, partitions, row_bytes + HEAD_BYTES)
    return made


async def _create(admin: AIOKafkaAdminClient, at: str, topic: NewTopic) -> bool:
    """False where another worker was faster."""
    with told(f"{at}: creating it"):
        answer: Any = await admin.create_topics([topic])
    for _, code, *message in answer.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            return False
        if error is not NoError:
            why = connector_error(error(*message), f"{at}: cannot be created")
            raise ConnectorError(
                f"{why}; this needs Create on it, and [store] replication_factor at most as many as brokers"
            )
    return True


async def _appears(admin: AIOKafkaAdminClient, at: str, name: str) -> None:
    """Waits until the brokers know the topic, and each partition's leader."""
    for _ in range(round(APPEAR_S / 0.05)):
        with told(at):
            known = name in await admin.list_topics()
            partitions = (await admin.describe_topics([name]))[0]["partitions"] if known else []
        if partitions and all(partition["leader"] >= 0 for partition in partitions):
            return
        await asyncio.sleep(0.05)
    raise ConnectorError(
        f"{at}: was created, and after {APPEAR_S:.0f} s not every partition has a leader; are enough brokers up?"
    )


async def _known(admin: AIOKafkaAdminClient, where: str, name: str) -> tuple[int, dict[str, str]]:
    """Partitions and settings of a topic that one broker knows; the next one that is asked may hear of it later."""
    deadline = time.monotonic() + APPEAR_S
    while True:
        try:
            count = (await partition_counts(admin, where, [name]))[name]
            return count, (await topic_settings(admin, where, [name]))[name]
        except UnknownTopicError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


async def _check_changelog(
    admin: AIOKafkaAdminClient, where: str, name: str, partitions: int, needed_bytes: int
) -> None:
    at = f"{where}: changelog '{name}'"
    count, settings = await _known(admin, where, name)
    if count < partitions:
        raise ConnectorError(
            f"{at}: has {count} partitions, its input {partitions}. Input that grew sends keys to other partitions, where they begin "
            f"as new streams: if they may, give the changelog {partitions} too (kafka-topics.sh --alter), else run under another name"
        )
    if count > partitions:
        raise ConnectorError(
            f"{at}: has {count} partitions, its input {partitions}; it is another topic's: run under another name, or delete it"
        )
    if settings["cleanup.policy"] != "compact":
        raise ConnectorError(
            f"{at}: cleanup.policy is {settings['cleanup.policy']!r}, expected 'compact': with another, rows are lost; set it"
        )
    if int(settings["max.message.bytes"]) < needed_bytes:
        raise ConnectorError(
            f"{at}: max.message.bytes is {settings['max.message.bytes']}, a row may need {needed_bytes}; raise it"
        )
