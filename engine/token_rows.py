"""What generation keeps in a stream's row, and what one sampled token changes there: kernels over the arrays of `token_work`.

Of each stream: its seed, how many tokens it generated (the counter of its random numbers), how many tokens it has seen, how
many frames it had when the last token was sampled, and of each voice that token, which is not stepped yet, and the last
RECENT tokens for the repetition penalty.
"""

import numpy as np
from numba import njit

from .artifact import StateSpec
from .contexts import BLOCK, FIRST_TENSOR, MEMORY, TABLES, TENSORS, WIDTH
from .kernels import call_block
from .layout import FRAMES, LAST_ACTIVE
from .sampling import RECENT, sample, uniform
from .simd import get_float64, get_int32, get_int64, set_float64, set_int32, set_int64

SEED, COUNT, SEEN, SINCE, NEXT = 0, 8, 16, 24, 32  # bytes from the start of generation's part of a row
RUNNING, STOPPED, BROKEN = 0, 1, 2  # what became of a stream in a call
TEMPERATURE, TOP_P, PENALTY, TOP_K, MAX_STEPS, MIN_STEPS = range(0, 48, 8)  # bytes from the start of a call's settings
# Bytes from the start of a `Work.context`: arrays are addresses, so that no call between kernels counts references
ARENA, STRIDE, PART, SLOTS, FEED, FIRST, LENGTH, VOICES, SIZES, STOPS, ENDS, SETTINGS = range(0, 96, 8)
TOKENS, SCORES, MADE, STATUS, LANES, BASES, STRIDES, OUTPUT_TABLES, OUTPUTS, WEIGHTS = range(96, 176, 8)


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
def settle(call, i, lane):
    """Samples stream i's next token of each voice from a lane's logits; whether the stream goes on. call: a `Work.context`."""
    row = get_int64(call + ARENA) + get_int64(get_int64(call + SLOTS) + 8 * i) * get_int64(call + STRIDE)
    own, voices, settings = row + get_int64(call + PART), get_int64(call + VOICES), get_int64(call + SETTINGS)
    made, most = get_int64(call + MADE) + 8 * i, np.int64(get_float64(settings + MAX_STEPS))
    n, scores = get_int64(made), get_int64(call + SCORES) + 8 * i
    out = get_int64(call + TOKENS) + 4 * voices * (i * most + n)
    seed, count, seen = get_int64(own + SEED), get_int64(own + COUNT), get_int64(own + SEEN)
    barring = n < np.int64(get_float64(settings + MIN_STEPS))
    stopped, score = False, get_float64(scores)
    for v in range(voices):
        ends = get_int64(call + ENDS) + 8 * v
        stops, ways = get_int64(call + STOPS) + 8 * get_int64(ends), get_int64(ends + 8) - get_int64(ends)
        logits = get_int64(get_int64(call + BASES) + 8 * v) + lane * get_int64(get_int64(call + STRIDES) + 8 * v)
        size, recent = get_int64(get_int64(call + SIZES) + 8 * v), own + NEXT + 8 * voices + 4 * RECENT * v
        token, log_probability = sample(
            logits, get_int64(call + WEIGHTS), size, recent, min(seen, RECENT), np.float32(get_float64(settings + PENALTY)),
            stops, ways if barring else 0, get_float64(settings + TEMPERATURE),
            np.int64(get_float64(settings + TOP_K)), get_float64(settings + TOP_P), uniform(seed, count * voices + v),
        )  # fmt: skip
        if token < 0:
            set_int64(get_int64(call + STATUS) + 8 * i, BROKEN)
            return False
        set_int32(out + 4 * v, token)
        score += log_probability
        for j in range(ways):
            stopped = stopped or get_int64(stops + 8 * j) == token
    for v in range(voices):
        token = np.int64(get_int32(out + 4 * v))
        set_int64(own + NEXT + 8 * v, token)
        remember(own, voices, v, seen, token)
    set_int64(own + COUNT, count + 1)
    set_int64(own + SEEN, seen + 1)
    set_int64(own + SINCE, get_int64(row))
    set_float64(scores, score)
    set_int64(made, n + 1)
    if stopped:
        set_int64(get_int64(call + STATUS) + 8 * i, STOPPED)
    return not stopped and n + 1 < most


@njit(nogil=True)
def admit(call, n, width, begin, end):
    """Fills lanes n.. with streams begin.., each at its first token: how many lanes are in use, and the next stream."""
    lanes = get_int64(call + LANES)
    while n < width and begin < end:
        set_int64(lanes + 16 * n, begin)
        set_int64(lanes + 16 * n + 8, 0)
        n, begin = n + 1, begin + 1
    return n, begin


@njit(nogil=True)
def row_address(call, lane):
    """Where the row of the stream in a lane begins."""
    i = get_int64(get_int64(call + LANES) + 16 * lane)
    return get_int64(call + ARENA) + get_int64(get_int64(call + SLOTS) + 8 * i) * get_int64(call + STRIDE)


@njit(nogil=True)
def token_address(call, lane, row):
    """Where the token lies that the stream in a lane steps next: in its prompt, or the one that was sampled."""
    at = get_int64(call + LANES) + 16 * lane
    i, t = get_int64(at), get_int64(at + 8)
    if t < get_int64(get_int64(call + LENGTH) + 8 * i):
        first = get_int64(get_int64(call + FIRST) + 8 * i)
        return get_int64(call + FEED) + (first + t) * 8 * get_int64(call + VOICES)
    return row + get_int64(call + PART) + NEXT


@njit(nogil=True)
def settle_lanes(call, n):
    """After a step of n lanes: samples where the prompt is through, and closes the gaps of streams that ended; lanes in use."""
    lanes, lengths, kept = get_int64(call + LANES), get_int64(call + LENGTH), 0
    for r in range(n):
        i, t = get_int64(lanes + 16 * r), get_int64(lanes + 16 * r + 8) + 1
        if t < get_int64(lengths + 8 * i) or settle(call, i, r):
            set_int64(lanes + 16 * kept, i)
            set_int64(lanes + 16 * kept + 8, t)
            kept += 1
    return kept


@njit(nogil=True)
def generate(program, call, now, begin, end):
    """Tokens of streams begin..end, each from its prompt until it ends: steps a block of them, samples, feeds the tokens back.

    A block's lanes are refilled: when a stream ends, the next one takes its lane, so blocks stay full whatever the streams'
    lengths are. A row does not depend on the rows beside it, so neither do the tokens.
    """
    block, memory, width = get_int64(program + BLOCK), get_int64(program + MEMORY), get_int64(program + WIDTH)
    line, voices, outputs = 8 * width, get_int64(call + VOICES), get_int64(call + OUTPUTS)
    valid, ones = line * (FIRST_TENSOR + get_int64(program + TENSORS)), memory + line * get_int64(program + TABLES)
    bases, strides, tables = get_int64(call + BASES), get_int64(call + STRIDES), get_int64(call + OUTPUT_TABLES)
    n, following = np.int64(0), begin
    while True:
        n, following = admit(call, n, width, following, end)
        if n == 0:
            return
        for r in range(n):
            row, at = row_address(call, r), memory + 8 * r
            token = token_address(call, r, row)
            set_int64(row + FRAMES, get_int64(row + FRAMES) + 1)
            set_int64(row + LAST_ACTIVE, now)
            set_int64(at, row)
            for v in range(voices):
                set_int64(at + line * (FIRST_TENSOR + v), token + 8 * v)
            for i in range(0, 8 * outputs, 8):
                set_int64(at + line * get_int64(tables + i), get_int64(bases + i) + r * get_int64(strides + i))
            set_int64(at + valid, ones + 8 * r)
            set_int64(ones + 8 * r, 1)
        call_block(block, n, memory)  # pyright: ignore[reportCallIssue]
        n = settle_lanes(call, n)


@njit(nogil=True)
def next_tokens(call, n, out):
    """out (voices, n): the token of each voice that each lane steps next."""
    for r in range(n):
        at = token_address(call, r, row_address(call, r))
        for v in range(len(out)):
            out[v, r] = get_int64(at + 8 * v)
