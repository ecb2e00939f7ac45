"""What stands at the end of a stream: outputs in, events out, with state in the stream's row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..artifact import StateSpec, StepSpec

if TYPE_CHECKING:
    from ..stage import Stage


@dataclass(frozen=True, slots=True)
class About:
    """What a decoder decodes: the outputs of `spec`. place_s: seconds from a place in the stream to the next, None where unknown.

    in_chain: of the last of several stages, so that places are those of the stream's frames, and `Outputs.frames` is empty.
    """

    spec: StepSpec
    place_s: float | None = None
    in_chain: bool = False


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a batch of streams gave: stream i has the next counts[i] rows of each value, in order.

    slots: int64 (B,), distinct. counts: int64 (B,). values: by the output's name, C-contiguous (R, *out).
    at: int64 (R,): each row's place in its stream: the index of the output; in a chain of stages that of the input frame.
    frames: by the input's name (R, *frame), the frames that the rows answer, where each frame is answered at once by one
    output; else empty. stage: what gave them, and can step copies of the streams on the arena's spare slots.
    """

    slots: np.ndarray
    counts: np.ndarray
    values: Mapping[str, np.ndarray]
    at: np.ndarray
    frames: Mapping[str, np.ndarray]
    stage: "Stage"


@dataclass(slots=True)
class Events:
    """E events; the streams in the batch's order, those of one stream in theirs.

    streams: int64 (E,), index into the batch. rows: int64 (E,), index of the output row with which each became known,
    -1 where the stream's end made it known. at: int64 (E,), the place in the stream of that row; of the end that of the last one.
    values: by name (E, ...).
    Iterating gives each event as a dict: `at`, and the values by name.
    """

    streams: np.ndarray
    rows: np.ndarray
    values: dict[str, np.ndarray]
    at: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.streams)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        columns = {"at": self.at.tolist()} | {name: list(array) for name, array in self.values.items()}
        for i in range(len(self)):
            yield {name: _plain(column[i]) for name, column in columns.items()}

    def of(self, stream: int) -> "Events":
        """Those of one stream of the batch, as if it had been alone but for `rows`."""
        begin, end = np.searchsorted(self.streams, (stream, stream + 1)).tolist()
        return self.chosen(slice(begin, end), np.zeros(end - begin, np.int64))

    def chosen(self, places: Any, streams: np.ndarray | None = None) -> "Events":
        """Some of them; streams: what their streams are called now."""
        values = {name: array[places] for name, array in self.values.items()}
        return Events(self.streams[places] if streams is None else streams, self.rows[places], values, self.at[places])


class Decoder(Protocol):
    """Decodes the outputs of all streams of an engine; what it knows of one stream is in that stream's row alone.

    states: what it keeps there; their names begin with "decode.". spare: of how many streams it may step copies at once.
    columns: each state's view (slots, *shape) of the arena, by name, to be read and written at `outputs.slots`.
    """

    @property
    def states(self) -> Sequence[StateSpec]: ...

    @property
    def spare(self) -> int: ...

    def events(self, columns: Mapping[str, np.ndarray], outputs: Outputs) -> Events:
        """What the outputs say; the same for a stream however it is cut into batches and whatever else is in them.

        `at` of the events is filled in by the caller.
        """
        ...

    def finish(self, columns: Mapping[str, np.ndarray], slots: np.ndarray) -> Events:
        """What is still to be said of streams that end now, `slots` int64 (B,)."""
        ...


def no_events(columns: Mapping[str, tuple[tuple[int, ...], Any]]) -> Events:
    """None at all. columns: shape and dtype of each value."""
    none = np.zeros(0, np.int64)
    return Events(none, none, {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in columns.items()}, none)


def joined(parts: Sequence[Events]) -> Events:
    """All of them, stream by stream, each stream's in the order of the parts."""
    some = [part for part in parts if len(part)]
    if len(some) < 2:
        return some[0] if some else parts[0]
    order = np.argsort(np.concatenate([part.streams for part in some]), kind="stable")
    values = {name: np.concatenate([part.values[name] for part in some])[order] for name in some[0].values}
    streams, rows, at = (np.concatenate([getattr(part, n) for part in some])[order] for n in ("streams", "rows", "at"))
    return Events(streams, rows, values, at)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
