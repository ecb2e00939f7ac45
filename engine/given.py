"""What a batch of streams gave, and what makes it of their frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .artifact import StepSpec
from .collected import Collected
from .decoders import Events
from .errors import UndertowError
from .frames import Intake
from .index import Key


@dataclass(slots=True)
class Given:
    """What a batch of B streams gave.

    outputs: of each output the rows that became ready (R, *out), the streams' end to end. rows: int64 (B,), how many each has.
    events: what a decoder made of them; `events.rows` are among the R. Where there are several stages, or tokens are generated, there
    are no outputs, and a stream's rows are its frames. marks: then bool (R,), where something that is not finite came up.
    """

    outputs: list[np.ndarray]
    rows: np.ndarray
    events: Events | None = None
    marks: np.ndarray | None = None

    def broken(self) -> np.ndarray:
        """Which rows are not finite, bool (R,)."""
        return not_finite(self.outputs, int(self.rows.sum())) if self.marks is None else self.marks


def not_finite(outputs: Sequence[np.ndarray], rows: int) -> np.ndarray:
    """Which rows have a value that is not finite in any of the outputs, bool (rows,)."""
    bad = np.zeros(rows, np.bool_)
    for y in outputs:
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            bad |= ~np.isfinite(y).reshape(rows, -1).all(1)
    return bad


class Executor(Protocol):
    """From the frames of streams, which the caller names by slot, to what they give. Neither locks nor checks.

    spec: what goes in and comes out, as the engine's callers see it. collected: the frames that wait for the ends of their streams.
    """

    spec: StepSpec
    intake: Intake
    collected: Collected | None

    @property
    def backend(self) -> str:
        """What it runs on."""
        ...

    def refusals(self, keys: Sequence[Key], slots: np.ndarray, counts: np.ndarray) -> dict[Key, UndertowError]:
        """The streams, new where the slot is below 0, that may not take counts[i] frames more, and why."""
        ...

    def advance(
        self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray], now: int, keys: Sequence[Key]
    ) -> Given:
        """Takes each stream over its next counts[i] rows of the inputs."""
        ...

    def seen(self, slots: np.ndarray) -> np.ndarray:
        """How many frames each stream has been given, int64 (B,)."""
        ...

    def end(self, slots: np.ndarray, now: int, keys: Sequence[Key]) -> tuple[Given, dict[int, UndertowError]]:
        """What streams that end still give, and by place why some cannot end; those have no rows. The slots are theirs until the caller frees them."""
        ...
