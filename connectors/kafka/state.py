"""The streams of Kafka partitions: what their changelogs are told, and how they come back from them.

Every stream that changed since its row was written is in the ledger's `changed`, in the order of the records that changed
it first. So the first of them says where a replay has to begin, and rows are written from the front: a share with each
commit, all of them within a checkpoint interval. A row stands for the offset that is committed with it.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from msgspec.structs import replace

from ...engine.errors import CheckpointError, SnapshotError
from ..batch import Batch
from ..columns import NO_TIME
from ..store import StoredPartition
from ..streams import Kept, Name
from .plain_rows import COLUMNS, has_layout, is_plain, pack, unpack
from .rows import MARKER, STREAM, Marker, Row, seal, stream_key, unseal

log = logging.getLogger("undertow.kafka")
Changes = list[tuple[bytes, bytes | None]]  # keys and values for a changelog, None a tombstone


@dataclass(slots=True)
class Held:
    """A partition in memory. marker: that was read or written last.

    ended: streams that have left a row without a state, and its offset. sweep_began, sweep_rows, sweep_written: since when
    so many changed rows are being written, and how many of them have been; sweep_before: when the sweep before began.
    cold: rows of a model with other states, without those, that are to be warmed again; warmed: which were.
    """

    marker: Marker | None = None
    ended: dict[bytes, int] = field(default_factory=dict)
    cold: dict[bytes, Row] = field(default_factory=dict)
    warmed: list[bytes] = field(default_factory=list)
    sweep_before: float = 0.0
    sweep_began: float = 0.0
    sweep_rows: int = 0
    sweep_written: int = 0


class State:
    """Rows of the partitions that this process runs or follows. Not for two threads at once."""

    def __init__(self, batch: Batch, on_other_model: str = "refuse"):
        self.batch, self.engine, self.ledger = batch, batch.engine, batch.ledger
        self.layout, self.held = batch.engine.layout, dict[str, Held]()
        self.on_other_model = on_other_model
        self.sweeps = 0  # how often all rows of a partition that had changed were written

    # ---------------------------------------------------------------------------------------------- to the changelog

    def next_offset(self, partition: str) -> int:
        return self.batch.positions.next[partition]

    def unwritten(self, partition: str) -> int:
        """How many streams differ from their rows."""
        return len(self.ledger.changed.get(partition, ()))

    def unwritten_since(self) -> float | None:
        """When the oldest change that is in no row was made, at the earliest; None: all are written."""
        return min((held.sweep_before for p, held in self.held.items() if self.unwritten(p)), default=None)

    def changes(self, partition: str, now: float, interval_s: float, last: bool = False) -> Changes:
        """What the commit in hand tells the changelog: changed rows, the marker, and tombstones that are due.

        A row waits for at most `interval_s`: those that have changed are written evenly over half of it, then those that
        changed meanwhile. last: all at once.
        """
        held, offset = self.held[partition], self.next_offset(partition)
        changed = self.ledger.changed.get(partition, {})
        count = len(changed) if last else self._take_share(held, len(changed), now, interval_s / 2)
        self.sweeps += last
        names = list(islice(changed, count))
        told = self._rows(names, offset, held)
        for name in names:
            del changed[name]
        marker, old = self._marker(partition, offset), held.marker
        if last or told or old is None or self._refused(partition) != old.refused or not changed:
            told.append((MARKER, seal(marker)))
            held.marker = marker
            self.ledger.refused -= {(partition, o) for o in self._refused(partition) if o < marker.replay_from}
            told += self._tombstones(partition, held, marker)
        return told

    def due(self, partition: str, now: float, interval_s: float) -> bool:
        """Rows wait for a commit in which `changes` would write them, or count those that are to be written next."""
        held, changed = self.held[partition], self.unwritten(partition)
        return changed > 0 and (
            self._share(held, changed, now, interval_s / 2) > 0 or self._over(held, now, interval_s / 2)
        )

    @staticmethod
    def _over(held: Held, now: float, span_s: float) -> bool:
        return now - held.sweep_began >= span_s

    def _share(self, held: Held, changed: int, now: float, span_s: float) -> int:
        """How many rows of the sweep are to be written by now."""
        left = held.sweep_rows - held.sweep_written
        part = math.ceil(held.sweep_rows * (now - held.sweep_began) / span_s) - held.sweep_written
        return max(0, min(left if self._over(held, now, span_s) else part, left, changed))

    def _take_share(self, held: Held, changed: int, now: float, span_s: float) -> int:
        """`_share`, which is written now; where the sweep is over, the next one begins with what has changed meanwhile."""
        count = self._share(held, changed, now, span_s)
        held.sweep_written += count
        if self._over(held, now, span_s):
            self.sweeps += held.sweep_rows > 0
            held.sweep_before, held.sweep_began = held.sweep_began, now
            held.sweep_rows, held.sweep_written = changed - count, 0
        return count

    def _tombstones(self, partition: str, held: Held, marker: Marker) -> Changes:
        """Of the streams that had ended before anything that can be replayed."""
        told: Changes = []
        for key in [key for key, end in held.ended.items() if end <= marker.replay_from]:
            del held.ended[key]
            name = (partition, key)
            if self.ledger.streams.index.get(name) < 0 and name not in self.ledger.changed.get(partition, {}):
                told.append((stream_key(key), None))
        return told

    def _rows(self, names: Sequence[Name], offset: int, held: Held) -> Changes:
        streams = self.ledger.streams
        rows, _ = streams.index.find(list(names))
        live = [(name, row) for name, row in zip(names, rows.tolist(), strict=True) if row >= 0]
        states = self.engine.read_rows([row for _, row in live]) if live else np.zeros((0, 0), np.uint8)
        streams.changed[[row for _, row in live]] = False
        told: Changes = []
        for (name, _), value in zip(live, self._values([row for _, row in live], states, offset), strict=True):
            told.append((stream_key(_bytes(name)), value))
            held.ended.pop(_bytes(name), None)
        for name, row in zip(names, rows.tolist(), strict=True):
            if row < 0:
                told.append((stream_key(_bytes(name)), seal(Row(offset, self.layout))))
                held.ended[_bytes(name)] = offset
        return told

    def _values(self, rows: list[int], states: np.ndarray, offset: int) -> list[bytes]:
        """The changelog's values of streams with these states, uint8 (n, row_bytes)."""
        streams = self.ledger.streams
        kept_apart = [row for row in rows if row in streams.spans or row in streams.quarantined]
        if streams.last_frame or self.engine.spec.sequence or kept_apart:
            return [
                seal(Row(offset, self.layout, streams.kept(row), state.tobytes(), self.engine.collected(row)))
                for row, state in zip(rows, states, strict=True)
            ]
        return pack(offset, self.layout, [getattr(streams, name)[rows] for name in COLUMNS], states)

    def _marker(self, partition: str, offset: int) -> Marker:
        first = next(iter(self.ledger.changed.get(partition, {}).values()), None)
        begin = offset if first is None else first.offset
        mark = self.ledger.watermarks.get(partition) if first is None else first.watermark_ns
        refused = [o for o in self._refused(partition) if o >= begin]
        return Marker(begin, mark, refused, self.engine.fingerprint, self.layout, offset)

    def _refused(self, partition: str) -> list[int]:
        """Since the marker that was written last: a replay begins there, whatever was written of streams since."""
        return sorted(o for p, o in self.ledger.refused if p == partition)

    # ---------------------------------------------------------------------------------------------- from the changelog

    def follow(self, partition: str) -> None:
        """From now on `apply` takes this partition's changelog, from its beginning."""
        if partition in self.held:  # what of it was applied before counts no more
            self.drop([partition])
        self.held[partition], self.ledger.waiting[partition] = Held(), 0

    def apply(self, partition: str, records: Sequence[tuple[bytes, bytes | None]], where: str) -> None:
        """Takes over changelog records in their order. Raises CheckpointError, naming `where` and the stream."""
        latest = dict(records)  # of each key the last counts
        self._apply_plain(partition, latest, where)
        held, rows = self.held[partition], list[tuple[bytes, Row]]()
        for key, value in latest.items():
            if key == MARKER and value is not None:
                held.marker = unseal(value, Marker, f"{where}: the marker")
                continue
            stream = key[1:]
            if key[:1] != STREAM:
                raise CheckpointError(f"{where}: a record has the key {key!r}; is it another program's topic?")
            row = None if value is None else unseal(value, Row, where, stream)
            held.cold.pop(stream, None)
            if row is not None and row.state is not None and self._fits(row, where, stream):
                rows.append((stream, row))
                continue
            held.ended.pop(stream, None)
            if row is not None and row.state is not None and self.on_other_model == "rewarm":
                held.cold[stream] = replace(row, state=None, collected=[])
            elif row is not None:
                held.ended[stream] = row.offset
            self._forget((partition, stream))
        self._put(partition, rows, where)

    def _apply_plain(self, partition: str, latest: dict[bytes, bytes | None], where: str) -> None:
        """Takes the plain rows of this model over, and out of `latest`; leaves those with which something is wrong."""
        held, size = self.held[partition], self.engine.row_bytes
        keys = [key for key, value in latest.items() if is_plain(value, size) and key[:1] == STREAM]
        rows, right = unpack([latest[key] or b"" for key in keys], size)
        right &= has_layout(rows, self.layout)
        if not right.all():
            keys, rows = [key for key, ok in zip(keys, right.tolist(), strict=True) if ok], rows[right]
        if not keys:
            return
        streams = self.ledger.streams
        places = self._opened(partition, [key[1:] for key in keys], where)
        streams.keep_plain(places, *(rows[name] for name in COLUMNS))
        streams.offset[places] = rows["offset"]
        try:
            self.engine.write_rows(places.tolist(), np.ascontiguousarray(rows["state"]))
        except SnapshotError as error:
            raise CheckpointError(f"{where}: {error}") from error
        for key in keys:
            del latest[key]
        for few in (held.ended, held.cold):
            if few:
                for key in keys:
                    few.pop(key[1:], None)

    def _fits(self, row: Row, where: str, stream: bytes) -> bool:
        if row.layout == self.layout:
            return True
        if self.on_other_model == "refuse":
            raise CheckpointError(
                f"{where}: stream {stream!r}: its state is of a model with other states; run the model that wrote it, or "
                'say [model] on_change = "reset" to begin all streams anew, "rewarm" to step the last frames of each again'
            )
        return False

    def _put(self, partition: str, rows: list[tuple[bytes, Row]], where: str) -> None:
        if not rows:
            return
        streams, held = self.ledger.streams, self.held[partition]
        size = self.engine.row_bytes
        wrong = next((key for key, row in rows if len(row.state or b"") != size), None)
        if wrong is not None:
            raise CheckpointError(f"{where}: stream {wrong!r}: its state has not {size} bytes")
        places = self._opened(partition, [key for key, _ in rows], where)
        try:
            streams.keep_many(places.tolist(), [row.kept or Kept(0) for _, row in rows])
            streams.offset[places] = [row.offset for _, row in rows]
            states = np.frombuffer(b"".join(row.state or b"" for _, row in rows), np.uint8).reshape(len(rows), size)
            self.engine.write_rows(places.tolist(), states)
            for (key, row), place in zip(rows, places.tolist(), strict=True):
                held.ended.pop(key, None)
                if row.collected:
                    self.engine.put_collected(place, row.collected)
        except SnapshotError as error:
            raise CheckpointError(f"{where}: {error}") from error

    def _opened(self, partition: str, keys: list[bytes], where: str) -> np.ndarray:
        """The rows of these streams of a partition that does not run yet, int64 (n,), new ones where they are not known. Raises CheckpointError."""
        streams = self.ledger.streams
        names: list[Name] = [(partition, key) for key in keys]
        places, _ = streams.index.find(names)
        new = np.flatnonzero(places < 0)
        if len(new) > streams.room:
            raise CheckpointError(
                f"{where}: more than {streams.capacity} streams are stored; raise [model] max_streams, or run more workers"
            )
        places[new] = streams.open_many([names[i] for i in new.tolist()])
        self.ledger.waiting[partition] += len(new)
        return places

    def _forget(self, name: Name) -> None:
        row = self.ledger.streams.index.get(name)
        if row >= 0:
            self.ledger.waiting[name[0]] -= 1
            self.ledger.streams.close(row)
            self.engine.drop(row)
            self.ledger.streams.settle()

    def cold(self, partition: str) -> Mapping[bytes, Row]:
        """The rows that have to be warmed again before `start`."""
        return self.held[partition].cold

    def warmed(self, partition: str, rows: list[tuple[bytes, Row]], where: str) -> None:
        """Takes over the rows that stand for the cold ones."""
        held = self.held[partition]
        self._put(partition, rows, where)
        held.cold.clear()
        held.warmed = [key for key, _ in rows]

    def start(self, partition: str, committed: int, now: float, where: str) -> int:
        """The changelog was read to its end and the group's offset is `committed`: where the input has to be read from.

        Raises CheckpointError where the two do not belong together.
        """
        held, ledger, streams = self.held[partition], self.ledger, self.ledger.streams
        marker = held.marker or Marker(committed, None, [], self.engine.fingerprint, self.layout, committed)
        if marker.next_offset > committed:
            raise CheckpointError(
                f"{where}: the state stands for records up to offset {marker.next_offset} of {partition}, the group's committed offset is "
                f"{committed}; was it set back? Set it to {marker.next_offset}, or begin anew: delete the changelog topic"
            )
        if marker.fingerprint != self.engine.fingerprint:
            log.warning("another model takes over", extra={
                "partition": partition, "before": marker.fingerprint.hex(), "now": self.engine.fingerprint.hex(),
                "streams": "as they are" if marker.layout == self.layout else self.on_other_model,
            })  # fmt: skip
        ledger.waiting.pop(partition, None)
        held.sweep_before = held.sweep_began = now
        ledger.gone |= {(partition, key): offset for key, offset in held.ended.items()}
        ledger.refused |= {(partition, offset) for offset in marker.refused}
        if marker.watermark_ns is not None:
            ledger.watermarks[partition] = marker.watermark_ns
        mark = NO_TIME if marker.watermark_ns is None else marker.watermark_ns
        for key in held.warmed:  # their rows are to be written before anything else moves on
            ledger.touch((partition, key), streams.index.get((partition, key)), marker.replay_from, mark)
        ledger.restored(row for name, row in streams.rows() if name[0] == partition)
        self.batch.positions.stored[partition] = StoredPartition(partition, committed)
        self.batch.positions.next[partition] = marker.replay_from
        return marker.replay_from

    def caught_up(self, partition: str) -> None:
        """The replay is over: nothing below its end will be met again."""
        self.ledger.gone = {name: end for name, end in self.ledger.gone.items() if name[0] != partition}

    def drop(self, partitions: Collection[str]) -> None:
        """Forgets the partitions' streams without ending them."""
        for row in self.ledger.drop(partitions) if partitions else ():
            self.engine.drop(row)
        self.ledger.streams.settle()
        for partition in partitions:
            self.held.pop(partition, None)
            self.batch.positions.forget(partition)


def _bytes(name: Name) -> bytes:
    assert isinstance(name[1], bytes), "the key of a Kafka record"
    return name[1]
