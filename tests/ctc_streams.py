"""Streams of scores through a CTC decoder, without an engine: the states lie in rows of bytes, as an arena's do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from undertow.engine.artifact import StepSpec, TensorSpec
from undertow.engine.decoders.ctc import Ctc
from undertow.engine.decoders.decoder import About, Events, Outputs

ABC = ("<b>", " ", "a", "b", "c")


def decoder_of(names: Sequence[str] = ABC, place_s: float | None = None, **keys: Any) -> Any:
    """A decoder of a model with these labels."""
    score = TensorSpec("scores", (len(names),), "float32")
    spec = StepSpec((TensorSpec("x", (1,), "float32"),), (score,), (), labels=tuple(names))
    return Ctc(**keys).decoder(About(spec, place_s))


class Streams:
    """Rows for so many streams, in their initial state."""

    def __init__(self, decoder: Any, capacity: int):
        self.decoder, self.seen = decoder, np.zeros(capacity, np.int64)
        sizes = [int(np.prod(s.shape)) * np.dtype(s.dtype).itemsize for s in decoder.states]
        offsets = np.cumsum([16, *(-(-size // 16) * 16 for size in sizes)])
        self.rows = np.zeros((capacity, offsets[-1]), np.uint8)
        self.columns: dict[str, np.ndarray] = {}
        for state, size, offset in zip(decoder.states, sizes, offsets[:-1].tolist(), strict=True):
            flat = self.rows[:, offset : offset + size].view(state.dtype)
            inner = flat.strides[1] * np.cumprod([1, *state.shape[:0:-1]])[::-1] if state.shape else []
            strides = (self.rows.strides[0], *(int(s) for s in inner))
            self.columns[state.name] = np.ndarray(
                (capacity, *state.shape), state.dtype, buffer=self.rows.data, offset=offset, strides=strides
            )
            self.columns[state.name][:] = state.initial_value()

    def push(self, chunks: Mapping[int, np.ndarray]) -> dict[int, list[dict[str, Any]]]:
        """The events of each slot, as dicts with `row` its place in the stream."""
        slots = np.array(list(chunks), np.int64)
        counts = np.array([len(c) for c in chunks.values()], np.int64)
        at = np.concatenate([self.seen[s] + np.arange(len(c)) for s, c in chunks.items()])
        values = np.ascontiguousarray(np.concatenate(list(chunks.values())), np.float32)
        self.seen[slots] += counts
        outputs = Outputs(slots, counts, {"scores": values}, at, {}, None)  # pyright: ignore[reportArgumentType]
        return told(slots, self.decoder.events(self.columns, outputs), at)

    def end(self, slots: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
        """The last events of each slot."""
        given = np.array(slots, np.int64)
        return told(given, self.decoder.finish(self.columns, given), None)


def told(slots: np.ndarray, events: Events, at: np.ndarray | None) -> dict[int, list[dict[str, Any]]]:
    """Events by slot."""
    found: dict[int, list[dict[str, Any]]] = {int(s): [] for s in slots}
    for i, (stream, row) in enumerate(zip(events.streams.tolist(), events.rows.tolist(), strict=True)):
        event = {name: value[i] if value.dtype == object else value[i].item() for name, value in events.values.items()}
        found[int(slots[stream])].append(event | {"row": -1 if at is None else int(at[row]), "at": int(events.at[i])})
    return found


def whole(decoder: Any, scores: np.ndarray) -> list[dict[str, Any]]:
    """The events of one stream from beginning to end."""
    streams = Streams(decoder, 1)
    return streams.push({0: scores})[0] + streams.end([0])[0] if len(scores) else streams.end([0])[0]


def finals(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(e) for e in events if e["final"]]


def peaky(rng: np.random.Generator, tokens: Sequence[int], size: int, noise: float = 1.0, blank: int = 0) -> np.ndarray:
    """Logits in which these tokens are said one after the other, with blanks between and noise."""
    path: list[int] = []
    for token in tokens:
        path += [blank] * int(rng.integers(1, 3)) + [token] * int(rng.integers(1, 3))
    logits = rng.normal(0, noise, (len(path) + 1, size)).astype(np.float32)
    logits[np.arange(len(path) + 1), [*path, blank]] += 5
    return logits
