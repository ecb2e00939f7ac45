"""The arrays of one call of generation, as its kernels in `token_rows` take them; and those kernels compiled."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import types

from .arena import address
from .cache import load_static
from .contexts import FIRST_TENSOR
from .section import Section
from .token_rows import generate, next_tokens, remember_prompts, settle_lanes
from .voices import Voices


@dataclass(frozen=True, slots=True)
class Work:
    """The streams of one call and what comes of them, as arrays that kernels read and write.

    slots (B,): of its streams. feed (total, voices): tokens, of which stream i steps rows first[i] .. first[i] + length[i] first;
    the first of those may be the one that was sampled last. sizes (voices,): entries of each voice's logits.
    stops[ends[v]:ends[v + 1]]: stop tokens of voice v. settings: as `Call.settings` gives them.
    tokens (B, max_steps, voices), scores, made, status (B,): what is there of each stream.
    """

    slots: np.ndarray
    feed: np.ndarray
    first: np.ndarray
    length: np.ndarray
    sizes: np.ndarray
    stops: np.ndarray
    ends: np.ndarray
    settings: np.ndarray
    tokens: np.ndarray
    scores: np.ndarray
    made: np.ndarray
    status: np.ndarray

    def context(self, section: Section, part: int, lanes: np.ndarray, logits: "Logits") -> np.ndarray:
        """What kernels take: addresses, in the order of the constants of `token_rows`; all that is named here must outlive it.

        lanes (.., 2): the stream in each lane, and how many tokens it has stepped; kernels fill it. part: the offset of
        generation's part of a row from the section's.
        """
        whole = [_pointer(a, "int64") for a in (self.slots, self.feed, self.first, self.length)]
        how = [_pointer(a, "int64") for a in (self.sizes, self.stops, self.ends)]
        made = [_pointer(a, "int64") for a in (self.made, self.status)]
        room = [_pointer(a, "int64") for a in (lanes, logits.bases, logits.strides, logits.tables)]
        numbers = [
            section.address, section.stride, part, *whole, len(self.sizes), *how, _pointer(self.settings, "float64"),
            _pointer(self.tokens, "int32"), _pointer(self.scores, "float64"), *made, *room, len(logits.tables),
            _pointer(logits.weights, "float32"),
        ]  # fmt: skip
        return np.array(numbers, np.int64)


def _pointer(array: np.ndarray, dtype: str) -> int:
    """The address of an array that kernels read without its type."""
    assert array.dtype == dtype, f"{array.dtype}, expected {dtype}"
    assert array.flags.c_contiguous
    return address(array)


@dataclass(frozen=True, slots=True)
class Logits:
    """Where the voices' logits of some lanes lie, and room for the weights that one row is sampled by.

    bases, strides: where lane 0's are, and bytes from a lane's to the next one's. tables: of a program, for each of those.
    memory: what these are addresses in.
    """

    memory: tuple[np.ndarray, ...]
    bases: np.ndarray
    strides: np.ndarray
    tables: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> "Logits":
        """Of each voice, float32 (lanes, V)."""
        bases, strides = (
            np.array(n, np.int64) for n in zip(*((address(a), a.strides[0]) for a in arrays), strict=True)
        )
        return cls(tuple(arrays), bases, strides, np.zeros(0, np.int64), _weights(max(a.shape[1] for a in arrays)))

    @classmethod
    def room(cls, voices: Voices, lanes: int) -> "Logits":
        """A lane's end to end, behind them room for the outputs beside the voices'."""
        widths = np.array([*(4 * size for size in voices.sizes), *(size for _, size in voices.beside)], np.int64)
        widths = -(-widths // 8) * 8
        line = int(widths.sum())
        rows = np.empty((lanes, line // 8), np.float64)
        bases, strides = address(rows) + np.cumsum(widths) - widths, np.full(len(widths), line, np.int64)
        places = [*(y for _, y in voices.pairs), *(y for y, _ in voices.beside)]
        tables = np.array(places, np.int64) + FIRST_TENSOR + len(voices)
        return cls((rows,), bases, strides, tables, _weights(max(voices.sizes)))


def _weights(most: int) -> np.ndarray:
    """Room for so many in whole vectors, and one more."""
    return np.empty(most + 32, np.float32)


_I64, _INDEX, _WIDE = types.int64, types.int64[::1], types.int64[:, ::1]


@cache
def compiled() -> Any:
    """`remember_prompts`, compiled once a process."""
    signature = (_I64, _I64, _I64, _INDEX, _WIDE, _INDEX, _INDEX)
    return load_static([remember_prompts], {"remember_prompts": [signature]})


@cache
def loop() -> Any:
    """`generate` over a compiled program."""
    return load_static([generate], {"generate": [(_I64,) * 5]}).generate


@cache
def of_waves() -> Any:
    """What goes before and after a step that is not compiled: `next_tokens` and `settle_lanes`."""
    signatures = {"next_tokens": [(_I64, _I64, _WIDE)], "settle_lanes": [(_I64, _I64)]}
    return load_static([next_tokens, settle_lanes], signatures)
