"""Which outputs of a stream become ready when, which frame each of them answers, and when that frame was.

With K frames in and M outputs a step, output j answers frame j * K // M; the delay decides when it is ready. All of it
follows from how many frames the stream has seen, so the processor knows before the engine has stepped.
"""

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from ..engine.artifact import StepSpec


class Span(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """`count` frames from frame `first` on: the time of the first of them, and nanoseconds from each to the next."""

    first: int
    count: int
    time_ns: int | None
    frame_ns: int


@dataclass(frozen=True, slots=True)
class Piece:
    """`rows` outputs from output `step` of the stream on: the time of the first's frame, and nanoseconds between frames."""

    step: int
    rows: int
    time_ns: int | None
    frame_ns: int


@dataclass(frozen=True, slots=True)
class Numbering:
    """frames_in: K. rows_out: M. delay_rows: outputs of the first steps that answer no frame. flushes: there is a tail.

    A model of whole sequences gives every output at the end; it has frames and outputs in the proportion of its lengths.
    """

    spec: StepSpec
    frames_in: int
    rows_out: int
    delay_rows: int
    flushes: bool

    @classmethod
    def of(cls, spec: StepSpec) -> "Numbering":
        k, m = spec.frames_per_step, spec.outputs_per_step
        if spec.sequence:
            k, m = (math.prod(stage[i] for stage in spec.lengths) for i in (2, 0))
        return cls(spec, k, m, -(-spec.delay * m // k), spec.sequence or spec.valid_input is not None)

    def ready(self, frames: int) -> int:
        """How many outputs are out once the stream has seen so many frames."""
        if self.spec.sequence:
            return 0
        return max(0, frames // self.frames_in * self.rows_out - self.delay_rows)

    def ready_many(self, frames: np.ndarray) -> np.ndarray:
        """`ready` of many streams, int64 (N,)."""
        if self.spec.sequence:
            return np.zeros_like(frames)
        return np.maximum(0, frames // self.frames_in * self.rows_out - self.delay_rows)

    @property
    def at_once(self) -> bool:
        """Each frame is answered by one output as soon as it is there."""
        return self.spec.at_once

    def answered(self, spans: list[Span], new: Span) -> list[Piece]:
        """The outputs that become ready with the frames of `new`, which joins `spans`; frames that are answered leave it."""
        _append(spans, new)
        return self._pieces(spans, self.ready(new.first), self.ready(new.first + new.count))

    def tail(self, spans: list[Span], frames: int) -> list[Piece]:
        """The outputs that the end of the stream pushes out."""
        done = self.ready(frames)
        total = self.spec.outputs_of(frames) if self.flushes else done
        pieces = self._pieces(spans, done, max(done, total))
        missing = total - done - sum(p.rows for p in pieces)
        if missing > 0:  # more than frames in proportion: they go on at the pace of the last
            last = pieces.pop() if pieces else Piece(done, 0, None, 0)
            pieces.append(Piece(last.step, last.rows + missing, last.time_ns, last.frame_ns))
        return pieces

    def _pieces(self, spans: list[Span], begin: int, end: int) -> list[Piece]:
        pieces, k, m = [], self.frames_in, self.rows_out
        for span in spans:
            past = -(-(span.first + span.count) * m // k)  # the first output that answers a frame after the span
            stop = min(end, past)
            if stop > begin:
                pieces.append(Piece(begin, stop - begin, self._time(span, begin), span.frame_ns))
                begin = stop
        while spans and spans[0].first + spans[0].count <= begin * k // m:
            del spans[0]
        return pieces

    def _time(self, span: Span, row: int) -> int | None:
        """Between two frames where a step gives more outputs than it takes frames."""
        if span.time_ns is None:
            return None
        return span.time_ns + (row * self.frames_in - span.first * self.rows_out) * span.frame_ns // self.rows_out


def _append(spans: list[Span], new: Span) -> None:
    """Joins `new` to the last span where it goes on at its pace: what waits for an answer stays small."""
    last = spans[-1] if spans else None
    if last is None or last.frame_ns != new.frame_ns or (last.time_ns is None) != (new.time_ns is None):
        spans.append(new)
    elif last.time_ns is None or last.time_ns + last.count * last.frame_ns == new.time_ns:
        spans[-1] = Span(last.first, last.count + new.count, last.time_ns, last.frame_ns)
    else:
        spans.append(new)
