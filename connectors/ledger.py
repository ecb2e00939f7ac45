"""What each record means for its stream, decided from the records of its partition alone.

A stream is a key within a partition. Expiry, gaps, late frames, step numbers and event times are functions of the
records that the partition gave so far, in order, so a second reading decides the same. One decision is not: whether a
new stream finds room depends on the other partitions too. So a refusal for want of room is kept with the commit and
repeated in a replay, where every other record that was accepted once is accepted again.

In a replay each stream goes on from its own row: whatever lies below the offset that its row stands for is passed over,
also where the row says that the stream has ended.

A quarantined stream is one like the others here: whether its outputs are finite is known only after its step, so what
depended on it would depend on which records came together.

Records that only add frames to their streams are taken a run at a time, as columns; one that does more is taken alone.
"""

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import ArenaFullError, CheckpointError, CodecError, StreamError, UndertowError
from .columns import NO_SEQ, NO_TIME, Columns
from .config import Policy
from .numbering import Numbering, Piece, Span
from .streams import Name, Streams

BEFORE, STEP, AFTER = 0, 1, 2  # a record's frames, and what ends before and after them
FIRST_WINDOW = 32  # records that are looked at together after one that had to be taken alone


@dataclass(slots=True)
class Touched:
    """A stream that changed since its row was written. offset, watermark_ns: of its partition, before the first record that changed it."""

    offset: int
    watermark_ns: int | None


@dataclass(slots=True)
class Steps:
    """What to step, in the records' order: int64 (S,) each.

    record: the place of each record. row: its stream. start, count: its rows of `frames`. first: frames seen before.
    time_ns: of its first frame, or NO_TIME.
    """

    record: np.ndarray
    row: np.ndarray
    start: np.ndarray
    count: np.ndarray
    first: np.ndarray
    time_ns: np.ndarray

    @classmethod
    def joined(cls, parts: list[tuple[np.ndarray, ...]]) -> "Steps":
        if len(parts) == 1:
            return cls(*parts[0])
        return (
            cls(*(np.concatenate(c) for c in zip(*parts, strict=True))) if parts else cls(*[np.zeros(0, np.int64)] * 6)
        )


@dataclass(slots=True)
class Close:
    """A stream that ends: by which record, before or after its frames; its name, row, frames seen, and what its tail answers.

    quarantined: why it was, before these records.
    """

    record: int
    phase: int
    name: Name
    row: int
    frames: int
    pieces: list[Piece]
    quarantined: str | None


@dataclass(slots=True)
class Taken:
    """What a run of records from place `begin` on comes to. taken: how many of them. frames: the columns' and those that fill gaps.

    pieces: of each step what it answers, where answers wait for later frames. refusals: why records are bad. failure: why
    the record after the last one taken was not taken.
    """

    begin: int
    taken: int
    frames: list[np.ndarray]
    steps: Steps
    pieces: list[list[Piece]]
    closes: list[Close]
    refusals: dict[int, UndertowError]
    failure: UndertowError | None


class Ledger:
    """The open streams and the watermark of each partition. Knows nothing of the engine."""

    def __init__(self, spec: StepSpec, policy: Policy, max_streams: int, capacity: int, max_frames: int):
        self.policy, self.max_streams = policy, max_streams
        self._most = max_frames if spec.sequence else None  # frames that are collected of a stream
        self.numbering = Numbering.of(spec)
        self.streams = Streams(capacity, spec, policy.gap in ("hold", "interpolate"))
        self.watermarks: dict[str, int] = {}
        self.refused: set[tuple[str, int]] = set()  # partition and offset of records that found no room
        self.changed: dict[str, dict[Name, Touched]] = {}  # by partition, in the order of the offsets
        self.gone: dict[Name, int] = {}  # streams that had ended, until this offset
        self.waiting: dict[str, int] = {}  # streams of partitions that are being restored or followed
        self.streams_seen = self.late_frames = 0
        self._late_is_bad = (policy.late or ("error" if policy.gap == "error" else "drop")) == "error"
        self._in_time = policy.gap_in == "time"
        self._idle_ns = None if policy.idle_timeout_s is None else round(policy.idle_timeout_s * 1e9)
        self._idle: dict[
            str, list[tuple[int, int, int]]
        ] = {}  # by partition, a heap of (last_ns when pushed, serial, row)

    @property
    def live(self) -> int:
        """How many streams are open; not those of partitions that do not run here."""
        return len(self.streams) - sum(self.waiting.values())

    # ---------------------------------------------------------------------------------------------- partitions

    def restored(self, rows: Iterable[int]) -> None:
        """Watches streams whose rows a store filled."""
        if self._idle_ns is None:
            return
        for row in rows:
            self._watch(self.streams.name(row)[0], row)

    def drop(self, partitions: Collection[str]) -> list[int]:
        """Forgets partitions without ending their streams; their rows, which `Streams.settle` frees."""
        rows = [row for name, row in self.streams.rows() if name[0] in partitions]
        for row in rows:
            self.streams.close(row)
        self.gone = {name: offset for name, offset in self.gone.items() if name[0] not in partitions}
        self.refused = {place for place in self.refused if place[0] not in partitions}
        for by_partition in (self.watermarks, self.changed, self._idle, self.waiting):
            for partition in partitions:
                by_partition.pop(partition, None)
        return rows

    # ---------------------------------------------------------------------------------------------- records

    def take(self, columns: Columns, begin: int, replayed: np.ndarray) -> Taken:
        """What to do for the records from place `begin` on; replayed, bool (N,): which were given out before.

        Takes fewer where streams that end have to leave their rows first.
        """
        return _Taking(self, columns, begin, replayed).run()

    def touch(self, name: Name, row: int, offset: int, watermark_ns: int) -> None:
        """The stream differs from its stored row from this offset on."""
        changed = self.changed.setdefault(name[0], {})
        if name not in changed:
            changed[name] = Touched(offset, None if watermark_ns == NO_TIME else watermark_ns)
        if row >= 0:
            self.streams.changed[row] = True

    def _watch(self, partition: str, row: int) -> None:
        if self._idle_ns is not None and self.streams.last_ns[row] != NO_TIME:
            entry = (int(self.streams.last_ns[row]), int(self.streams.serial[row]), row)
            heapq.heappush(self._idle.setdefault(partition, []), entry)


class _Taking:
    """One call of `Ledger.take`."""

    def __init__(self, ledger: Ledger, columns: Columns, begin: int, replayed: np.ndarray):
        self.ledger, self.streams, self.policy = ledger, ledger.streams, ledger.policy
        self.c, self.begin, self.replayed = columns, begin, replayed
        names = columns.partitions
        self.names: list[Name] = [(names[p], k) for p, k in zip(columns.partition.tolist(), columns.keys, strict=True)]
        self.starts = np.cumsum(columns.counts) - columns.counts
        spans_ns = np.maximum(columns.counts - 1, 0) * columns.frame_ns
        self.timed = columns.times_ns != NO_TIME
        self.ends_ns = np.where(self.timed, columns.times_ns + spans_ns, NO_TIME)
        self.plain = (columns.counts > 0) & ~columns.ends & ~columns.ends_partition
        if columns.bad:
            self.plain[list(columns.bad)] = False
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.pieces: list[list[Piece]] = []
        self.closes: list[Close] = []
        self.refusals: dict[int, UndertowError] = {}
        self.failure: UndertowError | None = None
        self.filled: list[list[np.ndarray]] = []  # chunks that gaps were filled in, an array for each input
        self.total = int(columns.counts.sum())

    def run(self) -> Taken:
        at, window = self.begin, len(self.c)
        while at < len(self.c):
            end = min(len(self.c), at + window)
            stop = self._together(at, end)
            at, window = stop, 2 * window if stop == end else FIRST_WINDOW
            if stop < end:
                if not self._alone(at) or self.failure is not None:
                    break
                at += 1
        frames = self.c.frames
        if self.filled:
            frames = [np.concatenate(a) for a in zip(frames, *self.filled, strict=True)]
        return Taken(
            self.begin, at - self.begin, frames, Steps.joined(self.parts), self.pieces, self.closes, self.refusals, self.failure,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------------- many records

    def _together(self, a: int, b: int) -> int:
        """Takes the records from `a` on that only add the next frames to their streams; the place of the first that does more."""
        b = _first(~self.plain[a:b], a, b)
        if a == b:
            return a
        rows, _ = self.streams.index.find(self.names[a:b])
        known = rows >= 0
        more = known & (self.c.offsets[a:b] < self.streams.offset[np.where(known, rows, 0)])
        b = _first(more, a, b)
        before, after, b = self._watermarks(a, b)
        b, opened = self._opened(a, b, rows)
        n = b - a
        groups = _Groups(rows[:n], self.c.counts[a:b])
        b = self._without_gap(a, b, groups)
        for name, place in opened:
            if place >= b:
                self.streams.close(self.streams.index.get(name))
                self.ledger.streams_seen -= not self.replayed[place]
        if b - a < n:
            return self._together(a, b)
        if n:
            self._step(a, b, groups, before[:n], after[:n])
        return b

    def _opened(self, a: int, b: int, rows: np.ndarray) -> tuple[int, list[tuple[Name, int]]]:
        """Opens the unknown streams up to the first that has to be looked at alone; fills in their rows."""
        opened: list[tuple[Name, int]] = []
        new: dict[Name, int] = {}
        for i in np.flatnonzero(rows[: b - a] < 0).tolist():
            name, place = self.names[a + i], a + i
            if name not in new:
                if self._needs_a_look(name, place):
                    return place, opened
                new[name] = self.streams.open(name)
                opened.append((name, place))
                self.ledger.streams_seen += not self.replayed[place]
            rows[i] = new[name]
        return b, opened

    def _needs_a_look(self, name: Name, place: int) -> bool:
        ledger, offset = self.ledger, int(self.c.offsets[place])
        full = not self.replayed[place] and ledger.live >= ledger.max_streams
        return full or not self.streams.room or (name[0], offset) in ledger.refused or offset < ledger.gone.get(name, 0)

    def _watermarks(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray, int]:
        """The partition's watermark before and after each record, up to the first by which a stream expires."""
        before, after = np.full(b - a, NO_TIME), np.full(b - a, NO_TIME)
        which, begins, ends = self.c.partition[a:b], self.c.times_ns[a:b], self.ends_ns[a:b]
        several = len(self.c.partitions) > 1 and bool((which != which[0]).any()) if b > a else False
        for p in np.unique(which).tolist() if several else which[:1].tolist():
            name = self.c.partitions[p]
            places: np.ndarray | slice = np.flatnonzero(which == p) if several else slice(None)
            mark = self.ledger.watermarks.get(name, NO_TIME)
            marks = np.maximum(np.maximum.accumulate(ends[places]), mark)
            after[places] = marks
            before[places] = np.concatenate([[mark], marks[:-1]])
            if self.ledger._idle_ns is not None:
                seen = np.where(begins[places] == NO_TIME, NO_TIME, np.maximum(before[places], begins[places]))
                late = np.flatnonzero(seen > self._expires_after(name, marks))
                if len(late):
                    b = min(b, a + int(late[0] if isinstance(places, slice) else places[late[0]]))
        return before, after, b

    def _expires_after(self, partition: str, marks: np.ndarray) -> int:
        """Up to this watermark no stream of the partition has expired, those of these very records included."""
        timed = marks[marks != NO_TIME]
        if not len(timed):
            return -NO_TIME - 1
        oldest = self._oldest(partition, int(timed[-1]))
        return min(int(timed[0]), int(timed[0]) if oldest is None else oldest) + (self.ledger._idle_ns or 0)

    def _oldest(self, partition: str, mark: int) -> int | None:
        """When the partition's longest idle stream was last heard of, where it may have expired at this watermark."""
        heap, idle = self.ledger._idle.get(partition), self.ledger._idle_ns
        while heap and idle is not None and heap[0][0] < mark - idle:
            last_ns, serial, row = heap[0]
            if self._open_still(partition, serial, row) and self.streams.last_ns[row] == last_ns:
                return last_ns
            heapq.heappop(heap)
            if self._open_still(partition, serial, row):
                self.ledger._watch(partition, row)
        return None

    def _open_still(self, partition: str, serial: int, row: int) -> bool:
        name = self.streams.name(row)
        return name is not None and name[0] == partition and self.streams.serial[row] == serial

    def _without_gap(self, a: int, b: int, groups: "_Groups") -> int:
        """The place of the first record that does not begin with its stream's next frame, or makes it too long."""
        wrong = np.zeros(b - a, np.bool_)
        if self.ledger._in_time:
            wrong |= self._missing_in_time(a, b, groups) != 0
        else:
            seqs = self.c.seqs[a:b]
            given = seqs != NO_SEQ
            if given.any():
                base = groups.first_of(
                    np.where(self.streams.seq[groups.rows] != NO_SEQ, self.streams.seq[groups.rows], seqs)
                )
                wrong |= given & np.where(base == NO_SEQ, True, seqs != base + groups.within)
        if self.ledger._most is not None:
            wrong |= self.streams.frames[groups.rows] + groups.within + groups.counts > self.ledger._most
        return _first(wrong, a, b)

    def _missing_in_time(self, a: int, b: int, groups: "_Groups") -> np.ndarray:
        gap, times = self.c.frame_ns[a:b], self.c.times_ns[a:b]
        due = groups.after_previous(self.ends_ns[a:b] + gap, self.streams.due_ns[groups.rows])
        known = (times != NO_TIME) & (gap > 0) & (due > NO_TIME + gap)
        return np.where(known, np.rint((times - due) / np.maximum(gap, 1)), 0).astype(np.int64)

    def _step(self, a: int, b: int, groups: "_Groups", before: np.ndarray, after: np.ndarray) -> None:
        streams, rows, counts = self.streams, groups.rows, groups.counts
        first = streams.frames[rows] + groups.within
        self._touch_new(a, rows, before)
        times, timed = self.c.times_ns[a:b], self.timed[a:b]
        if not self.ledger._in_time:
            self._number(a, b, groups)
        streams.frames[rows] = first + counts  # of a stream's records the last one's value stays
        gap = self.c.frame_ns[a:b]
        streams.due_ns[rows] = np.where(timed & (gap > 0), self.ends_ns[a:b] + gap, NO_TIME)
        if timed.any():
            watched = streams.last_ns[rows] != NO_TIME
            streams.last_ns[rows[timed]] = after[timed]
            for row in dict.fromkeys(rows[timed & ~watched].tolist()):
                self.ledger._watch(streams.name(row)[0], row)
            which = self.c.partition[a:b]
            for p in np.unique(which).tolist():
                self._advance(self.c.partitions[p], int(after[which == p][-1]))
        for kept, frames in zip(streams.last_frame, self.c.frames, strict=False):
            kept[rows] = frames[self.starts[a:b] + counts - 1]
        self._add(np.arange(a, b), rows, self.starts[a:b], counts, first, times)

    def _number(self, a: int, b: int, groups: "_Groups") -> None:
        """The number of each stream's next frame, where it is known."""
        rows = groups.rows
        base = groups.first_of(np.where(self.streams.seq[rows] != NO_SEQ, self.streams.seq[rows], self.c.seqs[a:b]))
        self.streams.seq[rows] = np.where(base == NO_SEQ, NO_SEQ, base + groups.within + groups.counts)

    def _touch_new(self, a: int, rows: np.ndarray, before: np.ndarray) -> None:
        for i in np.flatnonzero(~self.streams.changed[rows]).tolist():
            self.ledger.touch(self.names[a + i], int(rows[i]), int(self.c.offsets[a + i]), int(before[i]))

    def _add(self, *columns: np.ndarray) -> None:
        """A step of each record, whose answers, where they wait, are told now."""
        self.parts.append(columns)
        if self.ledger.numbering.at_once:
            return
        record, row, _, count, first, times = (c.tolist() for c in columns)
        for i, r, n, f, at in zip(record, row, count, first, times, strict=True):
            span = Span(f, n, None if at == NO_TIME else at, int(self.c.frame_ns[i]))
            self.pieces.append(self.ledger.numbering.answered(self.streams.spans.setdefault(r, []), span))

    # ---------------------------------------------------------------------------------------------- one record

    def _alone(self, i: int) -> bool:
        """Takes one record whatever it means; False where streams that have ended must leave their rows first."""
        streams, ledger = self.streams, self.ledger
        if not streams.room and streams.waiting:
            return False
        name, offset = self.names[i], int(self.c.offsets[i])
        mark = ledger.watermarks.get(name[0], NO_TIME)
        self._expire(i, mark)
        bad = self.c.bad.get(i)
        self._advance(name[0], int(self.c.times_ns[i] if bad else self.ends_ns[i]))
        row = streams.index.get(name)
        if offset >= (streams.offset[row] if row >= 0 else ledger.gone.get(name, 0)):
            try:
                if bad is not None:
                    raise bad
                if self.c.counts[i]:
                    self._frames(i, row, mark)
            except (CodecError, StreamError, ArenaFullError) as error:
                if self.policy.bad_record == "stop":
                    self.failure = error  # it will be read again, so it ends nothing yet
                    return True
                self.refusals[i] = error
        self._end(i, mark)
        return True

    def _end(self, i: int, mark: int) -> None:
        name, offset = self.names[i], int(self.c.offsets[i])
        ended = [self.streams.index.get(name)] if self.c.ends[i] else []
        if self.c.ends_partition[i]:
            ended = [row for other, row in self.streams.rows() if other[0] == name[0]]
        for row in ended:
            if row >= 0 and offset >= self.streams.offset[row]:
                self._close(row, i, AFTER, mark)

    def _frames(self, i: int, row: int, mark: int) -> None:
        """Steps over the frames that the stream has not seen, after what the gap policy puts before them."""
        streams, name, count, start = self.streams, self.names[i], int(self.c.counts[i]), int(self.starts[i])
        time_ns, gap, total = int(self.c.times_ns[i]), int(self.c.frame_ns[i]), count
        missing = self._missing(i, row)
        if missing > 0 and self.policy.gap == "reset":
            self._close(row, i, BEFORE, mark)
            row = -1
        elif missing > 0:
            start, count = self._fill(i, row, missing), count + missing
            time_ns -= missing * gap if time_ns != NO_TIME else 0
        elif missing < 0:
            late = min(-missing, count)
            self.ledger.late_frames += 0 if self.replayed[i] else late
            start, count = start + late, count - late
            time_ns += late * gap if time_ns != NO_TIME else 0
        if not count:
            return
        self._check_length(name, row, count)
        row = self._open(i) if row < 0 else row
        self._note(i, row, count, total, mark)
        columns = (i, row, start, count, int(streams.frames[row]), time_ns)
        streams.frames[row] += count
        self._add(*(np.array([x], np.int64) for x in columns))

    def _note(self, i: int, row: int, count: int, total: int, mark: int) -> None:
        """What the stream's next record is compared with."""
        streams, name = self.streams, self.names[i]
        self.ledger.touch(name, row, int(self.c.offsets[i]), mark)
        if self.c.seqs[i] != NO_SEQ:
            streams.seq[row] = self.c.seqs[i] + total
        elif streams.seq[row] != NO_SEQ:
            streams.seq[row] += count
        gap = int(self.c.frame_ns[i])
        streams.due_ns[row] = self.ends_ns[i] + gap if gap and self.timed[i] else NO_TIME
        if self.timed[i]:
            watched = streams.last_ns[row] != NO_TIME
            streams.last_ns[row] = self.ledger.watermarks[name[0]]
            if not watched:
                self.ledger._watch(name[0], row)
        for kept, frames in zip(streams.last_frame, self.c.frames, strict=False):
            kept[row] = frames[self.starts[i] + total - 1]

    def _fill(self, i: int, row: int, missing: int) -> int:
        """Puts frames for the missing ones before the record's; where in `frames` they begin."""
        start, stop, chunk = int(self.starts[i]), int(self.starts[i] + self.c.counts[i]), []
        for j, frames in enumerate(self.c.frames):
            blank = np.zeros((missing, *frames.shape[1:]), frames.dtype)
            if self.policy.gap in ("hold", "interpolate"):
                blank[:] = self.streams.last_frame[j][row]
            if self.policy.gap == "interpolate":
                share = (np.arange(1, missing + 1) / (missing + 1)).reshape(-1, *[1] * (frames.ndim - 1))
                line = blank + (frames[start].astype(np.float64) - blank) * share
                blank = (line if frames.dtype.kind == "f" else np.rint(line)).astype(frames.dtype)
            chunk.append(np.concatenate([blank, frames[start:stop]]))
        self.filled.append(chunk)
        self.total += len(chunk[0])
        return self.total - len(chunk[0])

    def _check_length(self, name: Name, row: int, count: int) -> None:
        """Raises StreamError where the stream would be longer than its frames are kept."""
        held, most = int(self.streams.frames[row]) if row >= 0 else 0, self.ledger._most
        if most is not None and held + count > most:
            raise StreamError(
                f"stream {name[1]!r}: has {held} frames and {count} come, at most {most} are kept until a stream ends; "
                "end it earlier, or raise [model] max_frames"
            )

    def _missing(self, i: int, row: int) -> int:
        """Frames missing before the record; negative: frames seen already. Raises StreamError where that makes it bad."""
        seq, expected = int(self.c.seqs[i]), int(self.streams.seq[row]) if row >= 0 else NO_SEQ
        if self.ledger._in_time:
            groups = _Groups(np.array([max(row, 0)]), self.c.counts[i : i + 1])
            missing = int(self._missing_in_time(i, i + 1, groups)[0]) if row >= 0 else 0
        else:
            missing = 0 if expected == NO_SEQ or seq == NO_SEQ else seq - expected
        if not missing:
            return 0
        begins = f"{abs(missing)} frames {'after' if missing > 0 else 'before'} it was due" if self.ledger._in_time else (
            f"with frame {seq}, expected {expected}"
        )  # fmt: skip
        what, gap = f"stream {self.names[i][1]!r}: the record begins {begins}: ", self.policy.gap
        if missing > 0 and gap == "error":
            raise StreamError(f'{what}{missing} frames are missing; [policy] gap = "reset" or "zero" would go on')
        if missing < 0 and self.ledger._late_is_bad:
            raise StreamError(f'{what}late or a duplicate; [policy] late = "drop" would drop such frames')
        if missing > self.policy.max_gap_frames and gap != "reset":
            raise StreamError(f"{what}{missing} are missing, [policy] max_gap_frames is {self.policy.max_gap_frames}")
        return missing

    def _open(self, i: int) -> int:
        """Raises ArenaFullError where there is no room for another stream."""
        ledger, name = self.ledger, self.names[i]
        place = (name[0], int(self.c.offsets[i]))
        full = place in ledger.refused if self.replayed[i] else ledger.live >= ledger.max_streams
        if full:
            if self.policy.bad_record != "stop":
                ledger.refused.add(place)
            raise ArenaFullError(
                f"stream {name[1]!r}: all {ledger.max_streams} slots are taken; end streams, set [policy] idle_timeout_s, "
                "or raise [model] max_streams"
            )
        if not self.streams.room:
            raise CheckpointError(
                f"stream {name[1]!r}: the replay needs more than {self.streams.capacity} streams at once; raise [model] max_streams"
            )
        ledger.streams_seen += not self.replayed[i]
        return self.streams.open(name)

    def _close(self, row: int, i: int, phase: int, mark: int) -> None:
        streams, name = self.streams, self.streams.name(row)
        frames = int(streams.frames[row])
        why = streams.quarantined.get(row)
        pieces = [] if why is not None else self.ledger.numbering.tail(streams.spans.get(row, []), frames)
        self.closes.append(Close(i, phase, name, row, frames, pieces, why))
        self.ledger.touch(name, row, int(self.c.offsets[i]), mark)
        streams.close(row)

    # ---------------------------------------------------------------------------------------------- event time

    def _expire(self, i: int, mark: int) -> None:
        """Closes the partition's streams that have been idle for too long, now that this record's time is known."""
        ledger, partition, idle = self.ledger, self.names[i][0], self.ledger._idle_ns
        if idle is None or not self.timed[i]:
            return
        now = max(mark, int(self.c.times_ns[i]))
        while self._oldest(partition, now) is not None:
            row = heapq.heappop(ledger._idle[partition])[2]
            self._close(row, i, BEFORE, mark)

    def _advance(self, partition: str, time_ns: int) -> None:
        if time_ns != NO_TIME:
            self.ledger.watermarks[partition] = max(time_ns, self.ledger.watermarks.get(partition, time_ns))


class _Groups:
    """Records by stream, in their order. within: frames of the same stream's records before each."""

    def __init__(self, rows: np.ndarray, counts: np.ndarray):
        self.rows, self.counts = rows, counts
        self._order = np.argsort(rows, kind="stable")
        ordered = rows[self._order]
        self._new = np.ones(len(rows), np.bool_)
        self._new[1:] = ordered[1:] != ordered[:-1]
        self._heads = np.flatnonzero(self._new)
        self._sizes = np.diff(self._heads, append=len(rows))
        total = np.cumsum(counts[self._order]) - counts[self._order]
        self.within = self._back(total - np.repeat(total[self._heads], self._sizes))

    def first_of(self, values: np.ndarray) -> np.ndarray:
        """Of each record the value of its stream's first record."""
        return self._back(np.repeat(values[self._order][self._heads], self._sizes))

    def after_previous(self, values: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Of each record the value of its stream's record before, of a stream's first record `first`."""
        ordered = np.roll(values[self._order], 1)
        return self._back(np.where(self._new, first[self._order], ordered))

    def _back(self, ordered: np.ndarray) -> np.ndarray:
        out = np.empty_like(ordered)
        out[self._order] = ordered
        return out


def _first(flags: np.ndarray, begin: int, end: int) -> int:
    """begin + the place of the first flag below end - begin that is set, else `end`."""
    flags = flags[: end - begin]
    place = int(flags.argmax()) if len(flags) else 0
    return begin + place if len(flags) and flags[place] else end
