"""Answers as Kafka records: what is in them, which partition they go to, and how batches are cut."""

import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from undertow import ConnectorError
from undertow.connectors.columns import NO_TIME, Answers, Columns
from undertow.connectors.kafka.output_records import key_bytes, output_batches, partitioner

PARTITIONS = ["frames/0", "frames/11"]


def answers(
    keys: list, steps: list[int] | None = None, times_ns: list[int] | None = None, ends: list[bool] | None = None
) -> Answers:
    """An answer a key, each completed by another record of partitions in turn, at offsets 100, 101, .."""
    count = len(keys)
    whole = np.arange(count)
    zeros = np.zeros(count, np.int64)
    columns = Columns(
        PARTITIONS, whole % 2, 100 + whole, 101 + whole, keys, [], zeros, zeros, zeros, zeros,
        zeros.astype(bool), zeros.astype(bool), {}, [b""] * count,
    )  # fmt: skip
    return Answers(
        columns,
        whole,
        keys,
        np.array(steps if steps is not None else whole, np.int64),
        np.ones(count, np.int64),
        np.array(times_ns if times_ns is not None else [NO_TIME] * count, np.int64),
        zeros,
        np.array(ends if ends is not None else [False] * count, bool),
    )


def builder(size: int = 2**20) -> BatchBuilder:
    return BatchBuilder(size, 0)


def records(batch: BatchBuilder) -> list:
    found = MemoryRecords(bytes(batch._build()))
    return list(found.next_batch())


KEYS = st.one_of(st.binary(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.integers(-(2**63), 2**63 - 1))
ROWS = st.lists(
    st.tuples(KEYS, st.binary(max_size=300), st.integers(0, 2**62), st.integers(0, 2**62) | st.just(NO_TIME), st.booleans()),
    max_size=60,
)  # fmt: skip


@given(ROWS, st.integers(1, 7), st.integers(64, 2000))
def test_every_answer_is_a_record(rows: list, partitions: int, size: int) -> None:
    """However batches are cut, each partition has its answers' records in order, with key, value, time and headers."""
    keys, payloads, steps, times, ends = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 5
    given_answers, partition_of = answers(keys, steps, times, ends), partitioner(partitions)
    batches = output_batches(lambda: builder(size), given_answers, payloads, partition_of)
    expected: dict[int, list] = {}
    for i, (key, payload, step, at, end) in enumerate(rows):
        headers = [
            ("undertow-step", str(step).encode()),
            ("undertow-source", f"{PARTITIONS[i % 2]}/{100 + i}".encode()),
        ]
        record = (
            key_bytes(key),
            payload,
            None if at == NO_TIME else at // 10**6,
            headers + [("undertow-end", b"1")] * end,
        )
        expected.setdefault(partition_of(key_bytes(key)), []).append(record)
    assert batches.keys() == expected.keys()
    for partition, some in batches.items():
        assert all(batch.closed() for batch in some)
        found = [r for batch in some for r in records(batch)]
        for record, (key, value, at_ms, headers) in zip(found, expected[partition], strict=True):
            assert (record.key, record.value, list(record.headers)) == (key, value, headers)
            assert record.timestamp == at_ms or (at_ms is None and record.timestamp > 1_700_000_000_000)


def test_batches_keep_their_size() -> None:
    """No batch is larger than it may be, unless one record alone is; and none is cut that had room."""
    many = answers([b"k"] * 1000)
    batches = output_batches(lambda: builder(4096), many, [bytes(100)] * 1000, lambda _: 0)[0]
    sizes = [len(batch._build()) for batch in batches]
    assert max(sizes) <= 4096
    assert min(sizes[:-1]) > 4096 - 250
    alone = output_batches(lambda: builder(4096), answers([b"k"] * 3), [bytes(9000)] * 3, lambda _: 0)[0]
    assert [batch.record_count() for batch in alone] == [1, 1, 1]


@pytest.mark.parametrize(
    ("key", "hashed"),
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
     (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971), (b"abc", 479470107)],
)  # fmt: skip
def test_partitions_are_those_of_java(key: bytes, hashed: int) -> None:
    """The hashes of Kafka's own test of its partitioner (UtilsTest.testMurmur2) decide, and their sign bit does not."""
    for count in (1, 3, 8, 100):
        assert partitioner(count)(key) == (hashed & 0x7FFFFFFF) % count


def test_keys_are_bytes() -> None:
    """Text is UTF-8, a number its digits, as in the lines of a file."""
    assert [key_bytes(k) for k in ("pümp", b"\xff", -7, np.int64(12))] == ["pümp".encode(), b"\xff", b"-7", b"12"]


def test_what_kafka_cannot_say_is_refused() -> None:
    """A time before 1970 and a record larger than the topic takes are errors that name the stream."""
    with pytest.raises(ConnectorError, match=r"stream b'b': an event time is before 1970"):
        output_batches(builder, answers([b"a", b"b"], times_ns=[0, -1]), [b"", b""], lambda _: 0)
    with pytest.raises(
        ConnectorError, match=r"stream b'b': an output of 990 bytes makes a record of up to \d+, the topic takes 1000"
    ):
        output_batches(builder, answers([b"a", b"b"]), [b"", bytes(990)], lambda _: 0, 1000)
    assert (
        output_batches(builder, answers([b"a", b"b"]), [b"", bytes(600)], lambda _: 0, 1000)[0][0].record_count() == 2
    )
