"""From what the ledger decided to answers: the records of a poll as few pushes over many streams."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from ..engine import Engine
from ..engine.errors import UndertowError
from .columns import NO_TIME, Answers, Columns
from .ledger import STEP, Close, Ledger, Taken
from .numbering import Piece

RECENT_BATCHES = 16_384  # that step latencies are taken over


@dataclass(slots=True)
class Stepped:
    """answers: of the records that are not replayed. lost: why a record of a stream that was quarantined has none."""

    answers: Answers
    lost: dict[int, str]


class Stepper:
    """Steps what was taken, in order. seconds: the engine's time for each of the last batches."""

    def __init__(self, engine: Engine, ledger: Ledger):
        self.engine, self.ledger = engine, ledger
        self.seconds: deque[float] = deque(maxlen=RECENT_BATCHES)
        self._outputs = [t.name for t in engine.spec.outputs]
        self._quarantines = ledger.policy.non_finite == "quarantine"

    def step(self, columns: Columns, taken: Taken, replayed: np.ndarray) -> Stepped:
        """The answers in the records' order: those of a record together, what ends before its steps and its own tail after them."""
        begin = time.perf_counter()
        outputs, rows = self._push(taken)
        tails = self._close(taken.closes)
        if len(rows) or taken.closes:
            self.seconds.append(time.perf_counter() - begin)
        lost = self._quarantine(taken, outputs, rows) if self._quarantines else {}
        self.ledger.streams.settle()
        if taken.closes or lost or taken.pieces or replayed.any():
            return Stepped(self._gathered(columns, taken, replayed, outputs, rows, tails, lost), lost)
        s = taken.steps
        keys = columns.keys if len(s.record) == len(columns) else [columns.keys[i] for i in s.record.tolist()]
        none = np.zeros(len(rows), np.bool_)
        values = dict(zip(self._outputs, outputs, strict=True))
        return Stepped(
            Answers(columns, s.record, keys, s.first, rows, s.time_ns, columns.frame_ns[s.record], none, values), lost
        )

    # ---------------------------------------------------------------------------------------------- inside

    def _push(self, taken: Taken) -> tuple[list[np.ndarray], np.ndarray]:
        """Each output's rows of all steps in their order, and how many each step has."""
        s, numbering = taken.steps, self.ledger.numbering
        rows = numbering.ready_many(s.first + s.count) - numbering.ready_many(s.first)
        order = np.argsort(s.row, kind="stable")
        streams, heads = np.unique(s.row[order], return_index=True)
        if not len(streams):
            return [np.zeros((0, *t.shape), t.dtype) for t in self.engine.spec.outputs], rows
        if len(streams) == len(s.row):  # each stream once: in the records' order
            outputs = self._pushed(s.row, s.count, _rows_of(taken.frames, s.start, s.count))
        else:
            counts = np.add.reduceat(s.count[order], heads)
            outputs = self._pushed(streams, counts, _rows_of(taken.frames, s.start[order], s.count[order]))
            back = _places(_starts(rows[order])[np.argsort(order)], rows)
            outputs = [y[back] for y in outputs]
        if len(outputs[0]) != rows.sum():
            raise UndertowError(f"the engine gave {len(outputs[0])} outputs where {rows.sum()} are due")
        return outputs, rows

    def _pushed(self, streams: np.ndarray, counts: np.ndarray, frames: list[np.ndarray]) -> list[np.ndarray]:
        return self.engine.push_rows(streams.tolist(), counts, frames)[0]

    def _close(self, closes: list[Close]) -> dict[int, list[np.ndarray]]:
        """Each output's tail of the streams that end, by their row."""
        tails = self.engine.close_many(c.row for c in closes)
        return {int(row): list(tail.values()) if isinstance(tail, dict) else [tail] for row, tail in tails.items()}

    def _quarantine(self, taken: Taken, outputs: list[np.ndarray], rows: np.ndarray) -> dict[int, str]:
        """Puts aside the streams whose outputs are not finite; of their records from there on, why they have no answers."""
        bad = np.zeros(len(rows), np.bool_)
        for y in outputs:
            if y.dtype.kind == "f" and not np.isfinite(y).all():
                wrong = ~np.isfinite(y).reshape(len(y), -1).all(1)
                bad |= np.add.reduceat(np.append(wrong, False), np.minimum(_starts(rows), len(y))).astype(bool) & (
                    rows > 0
                )
        streams = self.ledger.streams
        since = streams.quarantined | {c.row: c.quarantined for c in taken.closes if c.quarantined is not None}
        if not bad.any() and not since:
            return {}
        s, lost = taken.steps, {}
        for i in np.flatnonzero(np.isin(s.row, [*since, *s.row[bad].tolist()])).tolist():
            record, row = int(s.record[i]), int(s.row[i])
            if bad[i] and row not in since:
                since[row] = f"an output of its frame {int(s.first[i])} or one soon after is not finite"
            if row in since:
                lost[record] = since[row]
        ended = {c.row for c in taken.closes}
        streams.quarantined.update({row: why for row, why in since.items() if row not in ended})
        self._silence(taken.closes, since)
        return lost

    @staticmethod
    def _silence(closes: list[Close], since: dict[int, str]) -> None:
        for close in closes:
            if close.row in since:
                close.pieces.clear()

    def _gathered(
        self,
        columns: Columns,
        taken: Taken,
        replayed: np.ndarray,
        outputs: list[np.ndarray],
        rows: np.ndarray,
        tails: dict[int, list[np.ndarray]],
        lost: dict[int, str],
    ) -> Answers:
        """One answer for each piece of what a step or a tail gives; a stream that ends has a last one that says so, be it empty."""
        s, told = taken.steps, []
        starts = _starts(rows).tolist()
        for i, (record, first, n) in enumerate(zip(s.record.tolist(), s.first.tolist(), rows.tolist(), strict=True)):
            if replayed[record] or record in lost:
                continue
            at, gap, place = int(s.time_ns[i]), int(columns.frame_ns[record]), starts[i]
            pieces = taken.pieces[i] if taken.pieces else [Piece(first, n, None if at == NO_TIME else at, gap)]
            for piece in pieces:
                told.append((record, STEP, columns.keys[record], piece, False, place))
                place += piece.rows
        place, parts = len(outputs[0]), [[y] for y in outputs]
        for close in taken.closes:
            for part, tail in zip(parts, tails[close.row], strict=True):
                part.append(tail)
            if not replayed[close.record]:
                told += self._ended(close, place)
            place += len(tails[close.row][0])
        told.sort(key=lambda t: t[:2])
        return self._answers(columns, told, [np.concatenate(p) for p in parts])

    def _ended(self, close: Close, place: int) -> list[tuple]:
        ready = self.ledger.numbering.ready(close.frames)
        pieces = close.pieces or [Piece(ready, 0, None, 0)]
        told = []
        for i, piece in enumerate(pieces):
            told.append((close.record, close.phase, close.name[1], piece, i == len(pieces) - 1, place))
            place += piece.rows
        return told

    def _answers(self, columns: Columns, told: list[tuple], values: list[np.ndarray]) -> Answers:
        pieces = [t[3] for t in told]
        rows = np.array([p.rows for p in pieces], np.int64)
        where = _places(np.array([t[5] for t in told], np.int64), rows)
        return Answers(
            columns,
            np.array([t[0] for t in told], np.int64),
            [t[2] for t in told],
            np.array([p.step for p in pieces], np.int64),
            rows,
            np.array([NO_TIME if p.time_ns is None else p.time_ns for p in pieces], np.int64),
            np.array([p.frame_ns for p in pieces], np.int64),
            np.array([t[4] for t in told], np.bool_),
            {name: y[where] for name, y in zip(self._outputs, values, strict=True)},
        )


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts) - counts


def _places(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """starts[0], starts[0] + 1, .. counts[0] of them, then those of the next: int64 (counts.sum(),)."""
    return np.arange(int(counts.sum())) + np.repeat(starts - _starts(counts), counts)


def _rows_of(frames: list[np.ndarray], starts: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The rows end to end; without a copy where they lie so already."""
    total = int(counts.sum())
    if total == len(frames[0]) and (starts == _starts(counts)).all():
        return frames
    where = _places(starts, counts)
    return [f[where] for f in frames]
