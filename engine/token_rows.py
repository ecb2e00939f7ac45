"""What generation keeps in a stream's row, and what one sampled token changes there.

Of each stream: its seed, how many tokens it generated (the counter of its random numbers), how many tokens it has seen, how
many frames it had when the last token was sampled, and of each voice that token, which is not stepped yet, and the last
RECENT tokens for the repetition penalty.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit, types

from .artifact import StateSpec
from .sampling import RECENT, sample, uniform
from .simd import get_int64, set_int32, set_int64

if TYPE_CHECKING:
    from .voices import Voices

SEED, COUNT, SEEN, SINCE, NEXT = 0, 8, 16, 24, 32  # bytes from the start of generation's part of a row
RUNNING, STOPPED, BROKEN = 0, 1, 2  # what became of a stream in a call
TEMPERATURE, TOP_P, PENALTY, TOP_K, MAX_STEPS, MIN_STEPS = range(6)  # places in a call's settings


def token_states(voices: int) -> tuple[StateSpec, ...]:
    """The states of a model with so many inputs, in the order of the constants above."""
    numbers = [("seed", ()), ("count", ()), ("seen", ()), ("since", ()), ("next", (voices,))]
    ring = StateSpec("generate.recent", "generate.recent", (voices, RECENT), "int32")
    return *(
        StateSpec(f"generate.{name}", f"generate.{name}", shape, "int64", -1.0 if name == "next" else 0.0)
        for name, shape in numbers
    ), ring


@njit(nogil=True)
def remember(own, voices, voice, seen, token):
    """Puts a token into the ring of a voice's recent ones, as the one after `seen`."""
    set_int32(own + NEXT + 8 * voices + 4 * (voice * RECENT + seen % RECENT), token)


@njit(nogil=True)
def remember_prompts(arena, stride, part, slots, feed, first, length):
    """Tokens of prompts, feed (total, voices), become recent ones: rows first[i] .. first[i] + length[i] of stream i."""
    voices = feed.shape[1]
    for i in range(len(slots)):
        own = arena + slots[i] * stride + part
        seen = get_int64(own + SEEN)
        for t in range(max(0, length[i] - RECENT), length[i]):
            for v in range(voices):
                remember(own, voices, v, seen + t, feed[first[i] + t, v])
        set_int64(own + SEEN, seen + length[i])


@njit(nogil=True)
def settle(row, part, i, lane, bases, strides, weights, sizes, settings, stops, ends, tokens, scores, made, status):
    """Samples stream i's next token of each voice; whether the stream goes on.

    row, part: the address of its row and the offset of generation's part. bases, strides, sizes (voices,): lane r's logits of
    voice v are `sizes[v]` floats at bases[v] + r * strides[v]. stops[ends[v]:ends[v + 1]]: the voice's stop tokens.
    tokens (B, max_steps, voices), scores, made, status (B,): what is there of each stream.
    """
    own, voices, n = row + part, len(sizes), made[i]
    seed, count, seen = get_int64(own + SEED), get_int64(own + COUNT), get_int64(own + SEEN)
    stopped, score = False, 0.0
    for v in range(voices):
        begin, end = ends[v], ends[v + 1]
        token, log_probability = sample(
            bases[v] + lane * strides[v], weights, sizes[v], own + NEXT + 8 * voices + 4 * RECENT * v, min(seen, RECENT),
            np.float32(settings[PENALTY]), stops, begin, end if n < settings[MIN_STEPS] else begin,
            settings[TEMPERATURE], np.int64(settings[TOP_K]), settings[TOP_P], uniform(seed, count * voices + v),
        )  # fmt: skip
        if token < 0:
            status[i] = BROKEN
            return False
        tokens[i, n, v] = token
        score += log_probability
        for j in range(begin, end):
            stopped = stopped or stops[j] == token
    for v in range(voices):
        set_int64(own + NEXT + 8 * v, tokens[i, n, v])
        remember(own, voices, v, seen, tokens[i, n, v])
    set_int64(own + COUNT, count + 1)
    set_int64(own + SEEN, seen + 1)
    set_int64(own + SINCE, get_int64(row))
    scores[i] += score
    made[i] = n + 1
    if stopped:
        status[i] = STOPPED
    return not stopped and n + 1 < settings[MAX_STEPS]


@njit(nogil=True)
def admit(lanes, n, width, begin, end):
    """Fills lanes n.. with streams begin.., each at its first token: how many lanes are in use, and the next stream."""
    while n < width and begin < end:
        lanes[n, 0], lanes[n, 1] = begin, 0
        n, begin = n + 1, begin + 1
    return n, begin


@njit(nogil=True)
def token_address(own, feed, first, length, t, voices):
    """Where the token lies that a stream steps next: in its prompt, or the one that was sampled."""
    if t < length:
        return feed + (first + t) * 8 * voices
    return own + NEXT


@njit(nogil=True)
def settle_lanes(lanes, n, arena, stride, part, slots, length, bases, strides, weights, sizes, settings, stops, ends,
                 tokens, scores, made, status):  # fmt: skip
    """After a step of n lanes: samples where the prompt is through, and closes the gaps of streams that ended; lanes in use."""
    kept = 0
    for r in range(n):
        i, t = lanes[r, 0], lanes[r, 1] + 1
        row = arena + slots[i] * stride
        if t < length[i] or settle(
            row, part, i, r, bases, strides, weights, sizes, settings, stops, ends, tokens, scores, made, status
        ):
            lanes[kept, 0], lanes[kept, 1] = i, t
            kept += 1
    return kept


@njit(nogil=True)
def next_tokens(lanes, n, arena, stride, part, slots, feed, first, length, out):
    """out (voices, n): the token of each voice that each lane steps next."""
    voices, start = len(out), feed.ctypes.data
    for r in range(n):
        i = lanes[r, 0]
        own = arena + slots[i] * stride + part
        at = token_address(own, start, first[i], length[i], lanes[r, 1], voices)
        for v in range(voices):
            out[v, r] = get_int64(at + 8 * v)


@dataclass(frozen=True, slots=True)
class Work:
    """The streams of one call and what comes of them, as arrays that kernels read and write.

    slots, first, length (B,), feed (total, voices): as in `remember_prompts`; the first token of a feed may be the one that was
    sampled last. sizes (voices,): entries of each voice's logits. settings, stops, ends, tokens, scores, made, status: as in `settle`.
    """

    slots: np.ndarray
    feed: np.ndarray
    first: np.ndarray
    length: np.ndarray
    sizes: np.ndarray
    settings: np.ndarray
    stops: np.ndarray
    ends: np.ndarray
    tokens: np.ndarray
    scores: np.ndarray
    made: np.ndarray
    status: np.ndarray

    @property
    def arguments(self) -> tuple[np.ndarray, ...]:
        """What kernels take last."""
        return self.sizes, self.settings, self.stops, self.ends, self.tokens, self.scores, self.made, self.status


class Logits:
    """Room for the logits of some lanes, and for the weights that one row is sampled by; behind the voices' logits for the outputs beside them."""

    def __init__(self, voices: "Voices", lanes: int):
        widths = np.array([*(4 * size for size in voices.sizes), *(size for _, size in voices.beside)], np.int64)
        widths = -(-widths // 8) * 8
        line = int(widths.sum())
        self._rows = np.empty((lanes, line // 8), np.float64)
        self._weights = np.empty(max(voices.sizes) + 32, np.float32)
        self.bases = self._rows.ctypes.data + np.cumsum(widths) - widths
        self.strides = np.full(len(widths), line, np.int64)
        self.weights = self._weights.ctypes.data


_I64, _INDEX, _WIDE = types.int64, types.int64[::1], types.int64[:, ::1]
OF_WORK = (
    _INDEX, types.float64[::1], _INDEX, _INDEX, types.int32[:, :, ::1], types.float64[::1], _INDEX, _INDEX,
)  # fmt: skip
LOOP = (*[_I64] * 7, _INDEX, _WIDE, _INDEX, _INDEX, _WIDE, _INDEX, _INDEX, _I64, *OF_WORK)


@cache
def compiled() -> Any:
    """`remember_prompts`, compiled once a process."""
    from .cache import load_static  # which reads this file, to tell programs of its versions apart

    signature = (_I64, _I64, _I64, _INDEX, _WIDE, _INDEX, _INDEX)
    return load_static([remember_prompts], {"remember_prompts": [signature]})


@cache
def of_waves() -> Any:
    """What goes before and after a step that is not compiled: `next_tokens` and `settle_lanes`."""
    from .cache import load_static

    lanes = (_WIDE, _I64, _I64, _I64, _I64, _INDEX)
    signatures = {
        "next_tokens": [(*lanes, _WIDE, _INDEX, _INDEX, _WIDE)],
        "settle_lanes": [(*lanes, _INDEX, _INDEX, _INDEX, _I64, *OF_WORK)],
    }
    return load_static([next_tokens, settle_lanes], signatures)
