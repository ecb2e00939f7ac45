"""What each record means for its stream, decided record by record from the records of its partition alone.

A stream is a key within a partition. Expiry, gaps, late frames, step numbers and event times are functions of the
records that the partition gave so far, in order, so a second reading decides the same. One decision is not: whether a
new stream finds room depends on the other partitions too. So a refusal for want of room is kept with the commit and
repeated in a replay, where every other record that was accepted once is accepted again.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..engine import Key
from ..engine.artifact import StepSpec
from ..engine.errors import ArenaFullError, StreamError, UndertowError
from .config import Policy
from .numbering import Numbering, Piece, Span
from .records import Record

Name = tuple[str, Key]  # a partition and a key within it
Chunk = list[np.ndarray]  # an array (T, *frame) for each input of the model


@dataclass(slots=True)
class Live:
    """A stream that is open. id: its name in the engine, new at each opening. seq: the next frame's number, where known.

    last_ns: the partition's watermark at its last record. spans: the times of the frames that are not answered yet.
    """

    id: int
    name: Name
    frames: int = 0
    seq: int | None = None
    last_ns: int | None = None
    spans: list[Span] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to do for a record: step `chunk`, or, where that is None, close the stream.

    opens: the stream is new. step, pieces: the first output that becomes ready by it, and all of them. replayed: the
    answers were committed before.
    """

    live: Live
    record: Record
    chunk: Chunk | None
    opens: bool
    step: int
    pieces: list[Piece]
    replayed: bool


class Ledger:
    """The open streams and the watermark of each partition. Knows nothing of the engine."""

    def __init__(self, spec: StepSpec, policy: Policy, max_streams: int, max_frames: int):
        self.policy, self.max_streams = policy, max_streams
        self._most = max_frames if spec.sequence else None  # frames that are collected of a stream
        self.numbering = Numbering.of(spec)
        self.live: dict[Name, Live] = {}
        self.watermarks: dict[str, int] = {}
        self.refused: set[tuple[str, int]] = set()  # partition and offset of records that found no room
        self.changed: set[Name] = set()  # streams that were stepped, opened or closed since the last checkpoint
        self.streams_seen = self.late_frames = 0
        self._next_id = 0
        self._blank = [np.zeros((1, *t.shape), t.dtype) for t in spec.inputs]
        self._idle_ns = None if policy.idle_timeout_s is None else round(policy.idle_timeout_s * 1e9)
        self._idle: dict[
            str, list[tuple[int, int, Live]]
        ] = {}  # by partition, a heap of (last_ns when pushed, id, stream)

    def restore(
        self, streams: Iterable[Live], watermarks: Mapping[str, int], refused: Iterable[tuple[str, int]]
    ) -> None:
        """Takes over what a store holds."""
        self.watermarks, self.refused = dict(watermarks), set(refused)
        for live in streams:
            self.live[live.name] = live
            self._next_id = max(self._next_id, live.id + 1)
            self._watch(live)

    def take(
        self, record: Record, chunk: Chunk | UndertowError | None, replayed: bool
    ) -> tuple[list[Part], UndertowError | None]:
        """What to do for the next record, and why it is bad where it is. A bad record can still end or expire streams."""
        parts = self._expire(record, replayed)
        try:
            if isinstance(chunk, UndertowError):
                raise chunk
            if chunk is not None:
                self._frames(parts, record, chunk, replayed)
        except UndertowError as error:
            if self.policy.bad_record == "stop":
                return parts, error  # it will be read again, so it ends nothing yet
            return parts + self._ends(record, replayed), error
        return parts + self._ends(record, replayed), None

    def _ends(self, record: Record, replayed: bool) -> list[Part]:
        if record.end_partition:
            ended = [live for live in self.live.values() if live.name[0] == record.partition]
        else:
            live = self.live.get((record.partition, record.key)) if record.end else None
            ended = [live] if live else []
        return [self._close(live, record, replayed) for live in ended]

    def _frames(self, parts: list[Part], record: Record, chunk: Chunk, replayed: bool) -> None:
        """Adds the step over the frames that the stream has not seen, after what the gap policy puts before them."""
        time_ns, count = record.event_time_ns, len(chunk[0])
        live = self.live.get((record.partition, record.key))
        missing = self._missing(record, live)
        if missing > 0 and self.policy.gap == "reset" and live is not None:
            parts.append(self._close(live, record, replayed))
            live = None
        elif missing > 0:
            chunk = [np.concatenate([b.repeat(missing, 0), a]) for b, a in zip(self._blank, chunk, strict=True)]
            time_ns = None if time_ns is None else time_ns - missing * record.frame_ns
        elif missing < 0:
            late = min(-missing, count)
            self.late_frames += 0 if replayed else late
            chunk = [a[late:] for a in chunk]
            time_ns = None if time_ns is None else time_ns + late * record.frame_ns
        if not len(chunk[0]):
            return
        self._check_room(record, live, len(chunk[0]))
        opens = live is None
        live = self._open(record, replayed) if live is None else live
        if record.seq is not None:
            live.seq = record.seq + count
        elif live.seq is not None:
            live.seq += count
        parts.append(self._step(live, record, chunk, time_ns, opens, replayed))

    def _check_room(self, record: Record, live: Live | None, count: int) -> None:
        """Raises StreamError where the stream would be longer than its frames are kept."""
        held = live.frames if live else 0
        if self._most is not None and held + count > self._most:
            raise StreamError(
                f"stream {record.key!r}: has {held} frames and {count} come, at most {self._most} are kept until a stream ends; "
                "end it earlier, or raise [model] max_frames"
            )

    def _missing(self, record: Record, live: Live | None) -> int:
        """Frames missing before the record; negative: frames seen already. Raises StreamError where that makes it bad."""
        if live is None or live.seq is None or record.seq is None:
            return 0
        missing, gap = record.seq - live.seq, self.policy.gap
        what = f"stream {record.key!r}: the record begins with frame {record.seq}, expected {live.seq}: "
        if missing > 0 and gap == "error":
            raise StreamError(f'{what}{missing} frames are missing; [policy] gap = "reset" or "zero" would go on')
        if missing < 0 and gap == "error":
            raise StreamError(f'{what}late or a duplicate; [policy] gap = "reset" or "zero" would drop such frames')
        if missing > self.policy.max_gap_frames and gap == "zero":
            raise StreamError(f"{what}{missing} are missing, [policy] max_gap_frames is {self.policy.max_gap_frames}")
        return missing

    def _open(self, record: Record, replayed: bool) -> Live:
        """Raises ArenaFullError where there is no room for another stream."""
        place = (record.partition, record.offset)
        full = place in self.refused if replayed else len(self.live) >= self.max_streams
        if full:
            if self.policy.bad_record != "stop":
                self.refused.add(place)
            raise ArenaFullError(
                f"stream {record.key!r}: all {self.max_streams} slots are taken; end streams, set [policy] idle_timeout_s, "
                "or raise [model] max_streams"
            )
        live = Live(self._next_id, (record.partition, record.key))
        self.live[live.name] = live
        self._next_id += 1
        self.streams_seen += not replayed
        return live

    def _step(self, live: Live, record: Record, chunk: Chunk, time_ns: int | None, opens: bool, replayed: bool) -> Part:
        count, first = len(chunk[0]), live.frames
        live.frames += count
        self.changed.add(live.name)
        pieces = self.numbering.answered(live.spans, Span(first, count, time_ns, record.frame_ns))
        if time_ns is not None:
            watched = live.last_ns is not None
            live.last_ns = self._advance(record.partition, time_ns + (count - 1) * record.frame_ns)
            if not watched:
                self._watch(live)
        return Part(live, record, chunk, opens, self.numbering.ready(first), pieces, replayed)

    def _close(self, live: Live, record: Record, replayed: bool) -> Part:
        del self.live[live.name]
        self.changed.add(live.name)
        pieces = self.numbering.tail(live.spans, live.frames)
        return Part(live, record, None, False, self.numbering.ready(live.frames), pieces, replayed)

    # ---------------------------------------------------------------------------------------------- event time

    def _expire(self, record: Record, replayed: bool) -> list[Part]:
        """Closes the partition's streams that have been idle for too long, now that this record's time is known."""
        if self._idle_ns is None or record.event_time_ns is None:
            return []
        before = self._advance(record.partition, record.event_time_ns) - self._idle_ns
        heap, parts = self._idle.get(record.partition, []), []
        while heap and heap[0][0] < before:
            live = heapq.heappop(heap)[2]
            if self.live.get(live.name) is not live or live.last_ns is None:
                continue
            if live.last_ns < before:
                parts.append(self._close(live, record, replayed))
            else:
                self._watch(live)
        return parts

    def _advance(self, partition: str, time_ns: int) -> int:
        """The partition's watermark, now that it has seen this time."""
        mark = max(time_ns, self.watermarks.get(partition, time_ns))
        self.watermarks[partition] = mark
        return mark

    def _watch(self, live: Live) -> None:
        if self._idle_ns is not None and live.last_ns is not None:
            heapq.heappush(self._idle.setdefault(live.name[0], []), (live.last_ns, live.id, live))
