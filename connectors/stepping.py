"""From what the ledger decided to answers: the records of a poll as few pushes over many streams."""

import time
from collections import deque
from dataclasses import dataclass

import numpy as np

from ..engine import Engine
from ..engine.decoders import Events
from ..engine.decoders.decoder import no_events
from ..engine.errors import UndertowError
from ..engine.given import Given
from ..engine.index import Key
from ..engine.ragged import ranges, starts_of
from .columns import NO_TIME, Answers, Columns
from .event_answers import DROPPED, event_answers
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
        pushed = self._push(columns, taken)
        tails = self._close(taken.closes)
        rows = pushed.rows
        if len(rows) or taken.closes:
            self.seconds.append(time.perf_counter() - begin)
        lost = self._quarantine(taken, pushed) if self._quarantines else {}
        self.ledger.streams.settle()
        if taken.closes or lost or taken.pieces or replayed.any():
            return Stepped(self._gathered(columns, taken, replayed, pushed, tails, lost), lost)
        s = taken.steps
        keys = columns.keys if len(s.record) == len(columns) else [columns.keys[i] for i in s.record.tolist()]
        none = np.zeros(len(rows), np.bool_)
        answers = Answers(
            columns,
            s.record,
            keys,
            s.first,
            rows,
            s.time_ns,
            columns.frame_ns[s.record],
            none,
            self._named(pushed.outputs),
        )
        if pushed.events is not None:
            answers = event_answers(answers, pushed.events, pushed.events.rows, self.engine.spec)
        return Stepped(answers, lost)

    # ---------------------------------------------------------------------------------------------- inside

    def _named(self, outputs: list[np.ndarray]) -> dict[str, np.ndarray]:
        """None where events take their place."""
        return {} if self.engine.decodes else dict(zip(self._outputs, outputs, strict=True))

    def _push(self, columns: Columns, taken: Taken) -> Given:
        """What all steps give, in their order; its rows are those of the steps."""
        s, numbering = taken.steps, self.ledger.numbering
        rows = numbering.ready_many(s.first + s.count) - numbering.ready_many(s.first)
        order = np.argsort(s.row, kind="stable")
        streams, heads = np.unique(s.row[order], return_index=True)
        if not len(streams):
            return self._nothing()
        if len(streams) == len(s.row):  # each stream once: in the records' order
            frames, names = _rows_of(taken.frames, s.start, s.count), self._names(columns, s.record)
            given = self.engine.push_rows(s.row.tolist(), s.count, frames, names)
        else:
            counts, names = np.add.reduceat(s.count[order], heads), self._names(columns, s.record[order[heads]])
            frames = _rows_of(taken.frames, s.start[order], s.count[order])
            given = _back(self.engine.push_rows(streams.tolist(), counts, frames, names), order, rows)
        if given.rows.sum() != rows.sum():
            raise UndertowError(f"the engine gave {given.rows.sum()} outputs where {rows.sum()} are due")
        given.rows = rows
        return given

    def _close(self, closes: list[Close]) -> Given:
        """`_push` of the tails of the streams that end."""
        if not closes:
            return self._nothing()
        return self.engine.close_rows([c.row for c in closes], [c.name[1] for c in closes])

    def _nothing(self) -> Given:
        return Given([np.zeros((0, *t.shape), t.dtype) for t in self.engine.spec.outputs], np.zeros(0, np.int64))

    def _names(self, columns: Columns, records: np.ndarray) -> list[Key] | None:
        """What the streams of these records are called, where that decides what the engine gives."""
        return [columns.keys[i] for i in records.tolist()] if self.engine.seeded else None

    def _quarantine(self, taken: Taken, pushed: Given) -> dict[int, str]:
        """Puts aside the streams whose outputs are not finite; of their records from there on, why they have no answers."""
        wrong, rows = pushed.broken(), pushed.rows
        bad = np.zeros(len(rows), np.bool_)
        if wrong.any():
            bad = np.add.reduceat(np.append(wrong, False), np.minimum(starts_of(rows), len(wrong))).astype(bool) & (
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
                close.quarantined = since[close.row]

    def _gathered(
        self,
        columns: Columns,
        taken: Taken,
        replayed: np.ndarray,
        pushed: Given,
        tails: Given,
        lost: dict[int, str],
    ) -> Answers:
        """One answer for each piece of what a step or a tail gives; a stream that ends has a last one that says so, be it empty."""
        s, rows, told = taken.steps, pushed.rows, []
        starts = starts_of(rows).tolist()
        for i, (record, first, n) in enumerate(zip(s.record.tolist(), s.first.tolist(), rows.tolist(), strict=True)):
            if replayed[record] or record in lost:
                continue
            at, gap, place = int(s.time_ns[i]), int(columns.frame_ns[record]), starts[i]
            pieces = taken.pieces[i] if taken.pieces else [Piece(first, n, None if at == NO_TIME else at, gap)]
            for piece in pieces:
                told.append((record, STEP, columns.keys[record], piece, None, place))
                place += piece.rows
        begins = (int(rows.sum()) + starts_of(tails.rows)).tolist()
        for i, (close, place) in enumerate(zip(taken.closes, begins, strict=True)):
            if not replayed[close.record]:
                told += self._ended(close, i, place)
        told.sort(key=lambda t: t[:2])
        decodes = self.engine.decodes
        parts = [] if decodes else [np.concatenate(p) for p in zip(pushed.outputs, tails.outputs, strict=True)]
        answers, where = self._answers(columns, told, parts)
        if decodes:
            last = [None if t[4] is None or taken.closes[t[4]].quarantined else t[4] for t in told]
            return self._decoded(answers, where, last, pushed, tails)
        return answers

    def _decoded(
        self, answers: Answers, where: np.ndarray, closing: list[int | None], pushed: Given, tails: Given
    ) -> Answers:
        """where: of each output of the answers its place among those of steps and tails. closing: which end each answer is the last of."""
        steps = int(pushed.rows.sum())
        forth = np.full(steps + int(tails.rows.sum()), DROPPED, np.int64)
        forth[where] = np.arange(len(where))
        ends = np.full(len(tails.rows), DROPPED, np.int64)
        for place, close in enumerate(closing):
            if close is not None:
                ends[close] = len(where) + place
        found, places = [], []
        for part, shift in ((pushed.events, 0), (tails.events, steps)):
            if part is not None:
                found.append(part)
                last = part.rows < 0
                inside = forth[np.where(last, 0, part.rows + shift)] if len(forth) else np.full(len(part), DROPPED)
                places.append(np.where(last, ends[np.where(last, part.streams, 0)], inside) if last.any() else inside)
        if not found:
            return event_answers(answers, no_events({}), np.zeros(0, np.int64), self.engine.spec)
        values = {name: np.concatenate([f.values[name] for f in found]) for name in found[0].values}
        streams = np.zeros(sum(map(len, found)), np.int64)
        return event_answers(answers, Events(streams, streams, values), np.concatenate(places), self.engine.spec)

    def _ended(self, close: Close, number: int, place: int) -> list[tuple]:
        ready = self.ledger.numbering.ready(close.frames)
        pieces = close.pieces or [Piece(ready, 0, None, 0)]
        told = []
        for i, piece in enumerate(pieces):
            last = number if i == len(pieces) - 1 else None
            told.append((close.record, close.phase, close.name[1], piece, last, place))
            place += piece.rows
        return told

    def _answers(self, columns: Columns, told: list[tuple], values: list[np.ndarray]) -> tuple[Answers, np.ndarray]:
        """And where each of their outputs comes from."""
        pieces = [t[3] for t in told]
        rows = np.array([p.rows for p in pieces], np.int64)
        where = ranges(np.array([t[5] for t in told], np.int64), rows)
        answers = Answers(
            columns,
            np.array([t[0] for t in told], np.int64),
            [t[2] for t in told],
            np.array([p.step for p in pieces], np.int64),
            rows,
            np.array([NO_TIME if p.time_ns is None else p.time_ns for p in pieces], np.int64),
            np.array([p.frame_ns for p in pieces], np.int64),
            np.array([t[4] is not None for t in told], np.bool_),
            self._named([y[where] for y in values]),
        )
        return answers, where


def _back(given: Given, order: np.ndarray, rows: np.ndarray) -> Given:
    """What was given in the order of the streams, in that of the steps. rows: outputs of each step."""
    back = ranges(starts_of(rows[order])[np.argsort(order)], rows)
    outputs = [y[back] for y in given.outputs]
    events, marks = given.events, given.marks if given.marks is None else given.marks[back]
    if events is not None:
        forth = np.empty_like(back)
        forth[back] = np.arange(len(back))
        events = events.chosen(np.argsort(forth[events.rows], kind="stable"))
        events.rows = forth[events.rows]
    return Given(outputs, rows, events, marks)


def _rows_of(frames: list[np.ndarray], starts: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The rows end to end; without a copy where they lie so already."""
    total = int(counts.sum())
    if total == len(frames[0]) and (starts == starts_of(counts)).all():
        return frames
    where = ranges(starts, counts)
    return [f[where] for f in frames]
