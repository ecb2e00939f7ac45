"""From what the ledger decided to answers: the records of a poll as few pushes over many streams."""

import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from ..engine import Engine
from ..engine.errors import ArenaFullError, UndertowError
from .ledger import Chunk, Part
from .records import Answer

RECENT_BATCHES = 16_384  # that step latencies are taken over


class Stepper:
    """Steps parts, in order. seconds: the engine's time for each of the last batches."""

    def __init__(self, engine: Engine, slots: int):
        self.engine, self.slots = engine, slots
        self.seconds: deque[float] = deque(maxlen=RECENT_BATCHES)
        self._inputs = [t.name for t in engine.spec.inputs]
        self._outputs = [t.name for t in engine.spec.outputs]

    def step(self, parts: Sequence[Part]) -> list[Answer]:
        """The answers of the parts that are not replayed, in order: those of a record together, its steps before its tail."""
        answers: list[Answer] = []
        for batch in self._batches(parts):
            answers += self._batch(batch)
        return answers

    def _batches(self, parts: Sequence[Part]) -> list[list[Part]]:
        """Cut where a stream would open and only a stream that closes earlier in the batch makes room for it."""
        batches: list[list[Part]] = [[]]
        resident = peak = len(self.engine)
        for part in parts:
            if part.opens and peak >= self.slots and batches[-1]:
                batches.append([])
                peak = resident
            if part.opens and peak >= self.slots:
                raise ArenaFullError(
                    f"stream {part.record.key!r}: the replay needs more than {self.slots} streams at once; raise [model] max_streams"
                )
            resident += 1 if part.opens else -1 if part.chunk is None else 0
            peak += part.opens
            batches[-1].append(part)
        return batches

    def _batch(self, parts: list[Part]) -> list[Answer]:
        chunks: dict[int, list[Chunk]] = {}
        for part in parts:
            if part.chunk is not None:
                chunks.setdefault(part.live.id, []).append(part.chunk)
        begin = time.perf_counter()
        outputs = self.engine.push_many({id: self._joined(c) for id, c in chunks.items()}) if chunks else {}
        tails = self.engine.close_many(p.live.id for p in parts if p.chunk is None)
        if parts:
            self.seconds.append(time.perf_counter() - begin)
        given: dict[int, int] = {}
        answers: list[Answer] = []
        for part in parts:
            found = self._named((tails if part.chunk is None else outputs)[part.live.id])
            start = given.get(part.live.id, 0) if part.chunk is not None else 0
            stop = start + sum(p.rows for p in part.pieces)
            given[part.live.id] = stop
            if len(next(iter(found.values()))) < stop:
                raise UndertowError(
                    f"stream {part.record.key!r}: the engine gave fewer than the {stop} outputs that are due"
                )
            if not part.replayed:
                answers += _answers(part, {name: y[start:stop] for name, y in found.items()})
        return answers

    def _joined(self, chunks: list[Chunk]) -> dict[str, np.ndarray] | np.ndarray:
        columns = [c[0] if len(c) == 1 else np.concatenate(c) for c in zip(*chunks, strict=True)]
        return columns[0] if len(columns) == 1 else dict(zip(self._inputs, columns, strict=True))

    def _named(self, outputs: dict[str, np.ndarray] | np.ndarray) -> dict[str, np.ndarray]:
        return outputs if isinstance(outputs, dict) else {self._outputs[0]: outputs}


def _answers(part: Part, values: dict[str, np.ndarray]) -> list[Answer]:
    """One for each piece; a stream that ends has a last one that says so, be it empty."""
    live, ends, answers, begin = part.live, part.chunk is None, [], 0
    for piece in part.pieces:
        rows = {name: y[begin : begin + piece.rows] for name, y in values.items()}
        begin += piece.rows
        last = ends and begin == sum(p.rows for p in part.pieces)
        answers.append(Answer(live.name[1], piece.step, rows, part.record.source, piece.time_ns, piece.frame_ns, last))
    if ends and not answers:
        answers.append(Answer(live.name[1], part.step, values, part.record.source, end=True))
    return answers
