"""Answers as prepared batches of a topic's partitions: key the stream, timestamp the event time, headers step and source."""

from collections.abc import Callable
from functools import lru_cache

from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from ...engine import Key
from ...engine.errors import ConnectorError
from ..columns import NO_TIME, Answers

STEP, SOURCE, END = "undertow-step", "undertow-source", "undertow-end"
END_HEADER = (END, b"1")
OVERHEAD_BYTES = 256  # of a batch's head, a record's head and the headers' names and numbers
KEPT_KEYS = 2**18  # whose partition is remembered: about 30 MB of short keys


def partitioner(partitions: int) -> Callable[[bytes], int]:
    """Of a key the partition that Java's clients send it to, 0 to `partitions` - 1."""

    @lru_cache(KEPT_KEYS)
    def partition_of(key: bytes) -> int:
        return (murmur2(key) & 0x7FFFFFFF) % partitions

    return partition_of


def key_bytes(key: Key) -> bytes:
    """Text as UTF-8, a number as its digits."""
    return key if isinstance(key, bytes) else str(key).encode()


def output_batches(
    create_batch: Callable[[], BatchBuilder],
    answers: Answers,
    payloads: list[bytes],
    partition_of: Callable[[bytes], int],
    max_record_bytes: int | None = None,
) -> dict[int, list[BatchBuilder]]:
    """By partition the batches that hold a record for each answer, in the answers' order.

    payloads: of each answer. max_record_bytes: the most that the topic takes of one record, where that can be known.
    Raises ConnectorError, naming the stream, where one is larger, or older than Kafka can say.
    """
    if max_record_bytes is not None:
        _check_sizes(answers, payloads, max_record_bytes)
    batches: dict[int, list[BatchBuilder]] = {}
    open_batches: dict[int, BatchBuilder] = {}
    steps, ends = answers.steps.tolist(), answers.ends.tolist()
    for key, payload, step, source, at_ms, end in zip(
        map(key_bytes, answers.keys), payloads, steps, _sources(answers), _times_ms(answers), ends, strict=True
    ):
        headers = [(STEP, b"%d" % step), (SOURCE, source)]
        if end:
            headers.append(END_HEADER)
        partition = partition_of(key)
        batch = open_batches.get(partition)
        if batch is None or batch.append(timestamp=at_ms, key=key, value=payload, headers=headers) is None:
            batch = open_batches[partition] = create_batch()
            batch.append(timestamp=at_ms, key=key, value=payload, headers=headers)
            batches.setdefault(partition, []).append(batch)
    for batch in open_batches.values():
        batch.close()
    return batches


def _sources(answers: Answers) -> list[bytes]:
    """`partition/offset` of the record that completed each."""
    columns = answers.columns
    names = [name.encode() for name in columns.partitions]
    partitions, offsets = columns.partition[answers.records], columns.offsets[answers.records]
    return [b"%b/%d" % (names[p], o) for p, o in zip(partitions.tolist(), offsets.tolist(), strict=True)]


def _times_ms(answers: Answers) -> list[int | None]:
    """None, which is the time of sending, where the source has no time."""
    times_ns = answers.times_ns
    known = times_ns != NO_TIME
    early = known & (times_ns < 0)
    if early.any():
        key = answers.keys[int(early.argmax())]
        raise ConnectorError(
            f"[sink] stream {key!r}: an event time is before 1970, which Kafka has no timestamps for; mend the times at the source"
        )
    times_ms = (times_ns // 1_000_000).tolist()
    return times_ms if known.all() else [ms if k else None for ms, k in zip(times_ms, known.tolist(), strict=True)]


def _check_sizes(answers: Answers, payloads: list[bytes], limit: int) -> None:
    if max(map(len, payloads), default=0) <= limit // 2:  # and keys are shorter than that
        return
    head = OVERHEAD_BYTES + max(len(name.encode()) for name in answers.columns.partitions)
    for key, payload in zip(answers.keys, payloads, strict=True):
        size = len(payload) + len(key_bytes(key)) + head
        if size > limit:
            raise ConnectorError(
                f"[sink] stream {key!r}: an output of {len(payload)} bytes makes a record of up to {size}, the topic takes {limit}; "
                "raise its max.message.bytes, or let records have fewer frames"
            )
