"""What flows between the outside world and the engine, and the two seams that a kind of source or sink implements.

Data flows one way: record -> frames -> engine -> answers -> sink. A source counts each of its partitions (a file, a
folder's file, standard input, a topic's partition) in offsets that only grow; what is committed is a record's `next_offset`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..engine import Key

if TYPE_CHECKING:
    from .columns import Answers


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A payload that its source could not take apart: its bytes (the first of them, of a very long one), and why.

    `codecs.frames_of` raises CodecError with the reason, so the pipeline's policy decides what then.
    """

    payload: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """Consecutive frames of one stream, as a source gives them.

    partition, offset, next_offset: where the record begins, and where the one after it does.
    key: the stream; "" where the payload is Unreadable and names none.
    value: the payload's bytes, which the source's codec decodes; or frames `(T, *frame)` that need no codec (an array,
    or a dict of arrays by input name); or None, where the record only ends its stream; or Unreadable.
    single: the payload is one frame, not a chunk. event_time_ns: of the first frame, None where the source has no time.
    frame_ns: nanoseconds from a frame of the chunk to the next, 0 where unknown. end: the stream ends with this record.
    seq: the number of its first frame in the stream, where the source has one.
    end_partition: no stream of its own; it ends every live stream whose last record came from this partition. Whoever
    keeps the streams knows them (the partition is part of what a checkpoint says of a stream), so a source that begins
    in the middle of a file need not know the keys of the lines before.
    """

    partition: str
    offset: int
    next_offset: int
    key: Key
    value: Any
    event_time_ns: int | None = None
    frame_ns: int = 0
    end: bool = False
    seq: int | None = None
    end_partition: bool = False
    single: bool = False

    @property
    def source(self) -> str:
        """`partition/offset`, as in an output's `undertow-source`."""
        return f"{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Consecutive outputs of one stream, made ready by one record.

    step: the index in the stream of the first of them. values: arrays `(T, *out)` by the output's name.
    event_time_ns: of the frame that the first one answers, None where the source has no time; frame_ns as in `Record`.
    source: `partition/offset` of the record that completed them. end: the stream's last answer.
    """

    key: Key
    step: int
    values: Mapping[str, np.ndarray]
    source: str
    event_time_ns: int | None = None
    frame_ns: int = 0
    end: bool = False


class Source(Protocol):
    """Gives records. One task calls it."""

    @property
    def rewindable(self) -> bool:
        """`open` can go back to any offset that was given before; what is not cannot be replayed after a crash."""
        ...

    async def open(self, offsets: Mapping[str, int]) -> None:
        """Begins each partition at its offset; partitions that are not named begin at their first record.

        Raises ConnectorError, naming the file or address, where it cannot be read or an offset is past its end.
        """
        ...

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Up to `max_records` records, those of one partition in order; none where nothing came within `timeout_s`.

        From the same offsets a source gives the same records with the same cuts, so that a resumed run writes the same lines.
        """
        ...

    @property
    def exhausted(self) -> bool:
        """Everything was given and nothing more will come."""
        ...

    async def close(self) -> None: ...


class Sink(Protocol):
    """Takes answers. One task calls it."""

    @property
    def truncatable(self) -> bool:
        """`open` can cut what was written after the last commit; without it no delivery is exactly-once."""
        ...

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        """Goes on behind what was committed: `lengths` is what `flush` last gave, and what lies past it is cut off.

        None, where repeats are allowed: goes on behind all that is there, and cuts nothing but a torn last line or value.
        Raises ConnectorError where a file is shorter than what was committed.
        """
        ...

    async def write(self, answers: "Answers") -> None:
        """Takes the answers, in order; they need not be durable yet."""
        ...

    async def flush(self) -> Mapping[str, int]:
        """Makes everything durable; how long each of its parts is now. A part that did not change may be left out."""
        ...

    async def close(self) -> None: ...
