"""How a recurrent layer goes through the frames of one step: where it reads its old state and writes its new one.

Several frames: the hidden states lie one behind the other, `(1 + frames + 1, directions, width)`, between the initial state of the
forward direction and that of the other; Y is what lies between. The cell state is updated where it lies.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .program import BATCH, Value, view
from .recurrent_cell import Cell


@dataclass(frozen=True, slots=True)
class Moment:
    """The places of one direction at one frame; the cell state is the hidden state where a layer has none."""

    x: Value
    old_h: Value
    new_h: Value
    old_c: Value
    new_c: Value


class Passage:
    """A layer's way through its frames; `through` each direction in turn, then `outputs`."""

    def __init__(self, cell: Cell, c: Value | None = None):
        self.cell, self.old_c = cell, c
        self.width = cell.hidden if cell.steps == 1 else cell.width
        row = (BATCH, cell.directions, self.width)
        frames = cell.steps if cell.steps == 1 else cell.steps + 2
        self.h = cell.program.scratch((BATCH, frames, *row[1:]))
        self.c = cell.program.scratch(row) if c else None
        self.row_bytes = 4 * cell.directions * self.width

    @contextmanager
    def through(self, d: int) -> Iterator[Moment]:
        """What is said inside is done for each frame in the direction's order."""
        cell = self.cell
        new_c = self._row(self.c, 0, d) if self.c else None
        if cell.steps == 1:
            old_h, new_h = cell.of(cell.h, d), self._row(self.h, 0, d)
            yield Moment(cell.x, old_h, new_h, cell.of(self.old_c, d) if self.old_c else old_h, new_c or new_h)
            return
        backwards = d in cell.backwards
        self._begin(cell.h, self._row(self.h, cell.steps + 1 if backwards else 0, d), d)
        if self.old_c and new_c:
            self._begin(self.old_c, new_c, d)
        numbers = range(cell.steps)
        with cell.program.loop("moment", numbers[::-1] if backwards else numbers):
            x = view(cell.x, (BATCH, cell.inputs)).moved("moment", 4 * cell.inputs)
            old, new = (self._row(self.h, i, d).moved("moment", self.row_bytes) for i in (2 if backwards else 0, 1))
            yield Moment(x, old, new, new_c or old, new_c or new)

    def _row(self, value: Value, frame: int, d: int) -> Value:
        cell = self.cell
        return view(value, (BATCH, cell.hidden), (frame * cell.directions + d) * self.width)

    def _begin(self, initial: Value, place: Value, d: int) -> None:
        cell = self.cell
        cell.program.strided(place, cell.of(initial, d), [cell.hidden], [1], [1])

    def outputs(self) -> list[Value]:
        """Y, Y_h and where there is one Y_c, in the layout of the node."""
        cell, frames = self.cell, self.cell.steps
        y = self._compact(self.h, 0 if frames == 1 else 1, frames)
        last = [0 if d in cell.backwards else frames - 1 for d in range(cell.directions)]
        h = view(y, (BATCH, cell.directions, cell.hidden), last[0] * cell.directions * cell.hidden)
        if len(set(last)) > 1:
            h = cell.program.scratch(h.shape)
            for d, frame in enumerate(last):
                of = view(y, (BATCH, cell.hidden), (frame * cell.directions + d) * cell.hidden)
                cell.program.strided(cell.of(h, d), of, [cell.hidden], [1], [1])
        states = [h] if self.c is None else [h, self._compact(self.c, 0, 1)]
        order = (BATCH, cell.directions, cell.hidden) if cell.layout else (cell.directions, BATCH, cell.hidden)
        whole = (BATCH, frames, *order[1:]) if cell.layout else (frames, *order)
        return [view(y, whole), *[view(s, order) for s in states]]

    def _compact(self, value: Value, first: int, count: int) -> Value:
        """Rows of `hidden` elements, from the first-th frame on."""
        cell, rows = self.cell, count * self.cell.directions
        if self.width == cell.hidden:
            return view(value, (BATCH, rows, cell.hidden), first * cell.directions * cell.hidden)
        out, start = cell.program.scratch((BATCH, rows, cell.hidden)), first * cell.directions * self.width
        cell.program.strided(out, value, [rows, cell.hidden], [cell.hidden, 1], [self.width, 1], (0, start))
        return out
