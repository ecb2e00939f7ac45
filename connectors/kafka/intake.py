"""Kafka records as columns: keys, payloads, times and headers of a poll's records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiokafka import ConsumerRecord, TopicPartition

from ...engine import Engine
from ...engine.errors import CodecError, UndertowError
from ..columns import NO_SEQ, NO_TIME, Columns
from ..payloads import Codec

END_HEADER, SEQ_HEADER = "undertow-end", "undertow-seq"
NO_TIMESTAMP = -1
MS = 1_000_000
Header = tuple[str, bytes | None]


def partition_name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"


class Intake:
    """Decodes records for one model. frame_ns: nanoseconds from a frame of a chunk to the next, 0 where unknown."""

    def __init__(self, engine: Engine, codec: Codec, frame_ns: int):
        self.engine, self.codec, self.frame_ns = engine, codec, frame_ns

    def columns(self, polled: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> Columns:
        """All records, partition by partition; those that cannot be decoded or stepped are bad."""
        records = [record for part in polled.values() for record in part]
        payloads = [record.value for record in records]
        decoded = self.codec.decode_many(payloads)
        keys = [b"" if record.key is None else record.key for record in records]
        bad: dict[int, UndertowError] = dict(decoded.errors)
        bad |= {i: e for i, e in self.engine.refusals(keys, decoded.counts, decoded.frames).items() if i not in bad}
        offsets = np.fromiter((r.offset for r in records), np.int64, len(records))
        times = np.fromiter((r.timestamp for r in records), np.int64, len(records))
        columns = Columns(
            [partition_name(tp) for tp in polled],
            np.repeat(np.arange(len(polled)), [len(part) for part in polled.values()]),
            offsets,
            offsets + 1,
            keys,
            decoded.frames,
            decoded.counts,
            np.where(times == NO_TIMESTAMP, NO_TIME, times * MS),
            np.full(len(records), self.frame_ns, np.int64),
            np.full(len(records), NO_SEQ, np.int64),
            np.fromiter((p is None for p in payloads), np.bool_, len(records)),
            np.zeros(len(records), np.bool_),
            bad,
            records,
        )
        decoded.tell(columns)
        for i, record in enumerate(records):
            if record.headers:
                self._headers(columns, i, record.headers)
            if record.key is None:
                bad[i] = CodecError(
                    "the record has no key, and the stream is the record's key; have its producer set one"
                )
        return columns

    @staticmethod
    def _headers(columns: Columns, i: int, headers: Sequence[Header]) -> None:
        found = dict(headers)
        if END_HEADER in found:
            columns.ends[i] |= found[END_HEADER] not in (b"0", b"false")
        if SEQ_HEADER in found:
            try:
                columns.seqs[i] = _number(found[SEQ_HEADER])
            except ValueError:
                columns.bad.setdefault(i, CodecError(
                    f"header {SEQ_HEADER} is {found[SEQ_HEADER]!r}, expected a whole number from 0 on, in decimal"
                ))  # fmt: skip


def _number(value: bytes | None) -> int:
    number = int(value or b"")
    if not 0 <= number < 2**62:
        raise ValueError
    return number


def payload(record: Any) -> bytes | None:
    """What came, of a place in `Columns.payloads`."""
    return record.value
