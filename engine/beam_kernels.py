"""One step of a beam search over many streams: candidates ranked, hypotheses that ended put away, rows to fork said."""

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types

from .cache import load_static
from .sampling import largest, partition
from .simd import copy_bytes, fold_max, get_float32, get_int64, load, load_some, set_int64
from .token_rows import BROKEN, COUNT, NEXT, SEEN, SINCE, STOPPED, remember

_LOW = np.float32(-3.4028234e38)


@njit(nogil=True)
def penalty(length, alpha):
    """What a hypothesis' log-probability is divided by: Wu et al. 2016, equation 14."""
    return ((5.0 + length) / 6.0) ** alpha


@njit(nogil=True)
def _insert(scores, beams, tokens, score, beam, token):
    """Into a list of the best, the best first, unless it is full of others at least as good."""
    at = len(scores)
    while at > 0 and score > scores[at - 1]:
        at -= 1
    for k in range(len(scores) - 1, at, -1):
        scores[k], beams[k], tokens[k] = scores[k - 1], beams[k - 1], tokens[k - 1]
    if at < len(scores):
        scores[at], beams[at], tokens[at] = score, beam, token


@njit(nogil=True)
def _rank(logits, size, score, beam, stops, barred, going, ending):
    """Adds a beam's candidates to the lists: those that go on, and stop tokens unless they are barred. False: not finite."""
    top, finite = largest(logits, size)
    if not finite:
        return False
    begin = score - np.float64(top) - math.log(np.float64(partition(logits, size, top)))
    for j in range(0, size, 16):
        count = min(16, size - j)
        v = load(logits + 4 * j) if count == 16 else load_some(logits + 4 * j, count, _LOW)
        if begin + np.float64(fold_max(v)) > going[0][-1]:
            for token in range(j, j + count):
                x = begin + np.float64(get_float32(logits + 4 * token))
                if x > going[0][-1] and not _among(stops, token):
                    _insert(going[0], going[1], going[2], x, beam, token)
    if not barred:
        for token in stops:
            _insert(ending[0], ending[1], ending[2], begin + np.float64(get_float32(logits + 4 * token)), beam, token)
    return True


@njit(nogil=True)
def _among(stops, token):
    return (stops == token).any()


@njit(nogil=True)
def _found(best, sums, ends, score, total, step, beam, token, stopped):
    """Puts a hypothesis that ended among a stream's best; whether it is the best now."""
    at = len(best)
    while at > 0 and score > best[at - 1]:
        at -= 1
    for k in range(len(best) - 1, at, -1):
        best[k], sums[k] = best[k - 1], sums[k - 1]
        ends[k] = ends[k - 1]
    if at < len(best):
        best[at], sums[at] = score, total
        ends[at, 0], ends[at, 1], ends[at, 2], ends[at, 3] = step, beam, token, stopped
    return at == 0


@njit(nogil=True)
def extend(active, rows, live, logits, scores, stops, step, barred, last, alpha, longest, wanted, side, base,
           parents, tokens, best, sums, ends, status, moves):  # fmt: skip
    """Takes every active stream a token further; how many rows are to be forked, `moves` (.., 3): from slot, to slot, token.

    active (A,): streams; rows (A,): each one's first row of logits (R, V); live (G,): its beams. scores (G, W): of those.
    parents, tokens (T, G, W): at each step the beam that a beam comes from and its token. best (G, W), sums (G, W),
    ends (G, W, 4): of hypotheses that ended the score, the log-probability, and step, beam before, token, whether by a stop.
    status (G,): STOPPED once nothing better can come, BROKEN. Slots of a stream: twice W of beams, and the best's.
    """
    width, size, start = scores.shape[1], logits.shape[1], logits.ctypes.data
    going = np.empty(width), np.empty(width, np.int64), np.empty(width, np.int64)
    ending = np.empty(width), np.empty(width, np.int64), np.empty(width, np.int64)
    count = 0
    for a in range(len(active)):
        b = active[a]
        own = base + b * (2 * width + 1)
        going[0][:], ending[0][:] = -np.inf, -np.inf
        for w in range(live[b]):
            if not _rank(start + 4 * size * (rows[a] + w), size, scores[b, w], w, stops, barred, going, ending):
                status[b], ends[b, 0, 0] = BROKEN, step
        if status[b] == BROKEN:
            continue
        whole = penalty(step + 1.0, alpha)
        for k in range(width):
            better = 0
            while better < width and going[0][better] >= ending[0][k]:
                better += 1
            if ending[0][k] == -np.inf or k + better >= width:
                break
            if _found(
                best[b], sums[b], ends[b], ending[0][k] / whole, ending[0][k], step, ending[1][k], ending[2][k], 1
            ):
                moves[count, 0], moves[count, 1], moves[count, 2] = (
                    own + side * width + ending[1][k],
                    own + 2 * width,
                    ending[2][k],
                )
                count += 1
        for k in range(width):
            if going[0][k] == -np.inf:
                break
            source = own + side * width + going[1][k]
            if last:
                if _found(
                    best[b], sums[b], ends[b], going[0][k] / whole, going[0][k], step, going[1][k], going[2][k], 0
                ):
                    moves[count, 0], moves[count, 1], moves[count, 2] = source, own + 2 * width, going[2][k]
                    count += 1
                continue
            parents[step, b, k], tokens[step, b, k], scores[b, k] = going[1][k], going[2][k], going[0][k]
            live[b] = k + 1
        if last or best[b, wanted - 1] >= going[0][0] / penalty(longest, alpha):
            status[b] = STOPPED
            continue
        for k in range(live[b]):
            moves[count, 0], moves[count, 1] = own + side * width + parents[step, b, k], own + (1 - side) * width + k
            moves[count, 2] = tokens[step, b, k]
            count += 1
    return count


@njit(nogil=True)
def fork(arena, stride, moves):
    """Rows of the arena onto others: moves (M, 3)."""
    for m in range(len(moves)):
        copy_bytes(arena + moves[m, 1] * stride, arena + moves[m, 0] * stride, stride)  # pyright: ignore[reportCallIssue]


@njit(nogil=True)
def take(section, stride, part, moves):
    """The forked rows' last token is that of their move; section: the address of the stage's part of slot 0."""
    for m in range(len(moves)):
        row = section + moves[m, 1] * stride
        own, token = row + part, moves[m, 2]
        seen = get_int64(own + SEEN)
        remember(own, 1, 0, seen, token)
        set_int64(own + NEXT, token)
        set_int64(own + SEEN, seen + 1)
        set_int64(own + COUNT, get_int64(own + COUNT) + 1)
        set_int64(own + SINCE, get_int64(row))


@njit(nogil=True)
def trace(parents, tokens, stream, end, out):
    """out (T,): the tokens of a hypothesis that ended as `end` says."""
    step, beam = end[0], end[1]
    out[step] = end[2]
    while step > 0:
        step -= 1
        out[step] = tokens[step, stream, beam]
        beam = parents[step, stream, beam]


@cache
def compiled() -> Any:
    """The loops, compiled once a process."""
    i64, f64, i32, flag = types.int64, types.float64, types.int32, types.boolean
    index, wide, deep = i64[::1], i64[:, ::1], i32[:, :, ::1]
    settings = (index, i64, flag, flag, f64, i64, i64, i64, i64)
    streams = (index, index, index, types.float32[:, ::1], f64[:, ::1])
    signatures = {
        "extend": [(*streams, *settings, deep, deep, f64[:, ::1], f64[:, ::1], i64[:, :, ::1], index, wide)],
        "fork": [(i64, i64, wide)],
        "take": [(i64, i64, i64, wide)],
        "trace": [(deep, deep, i64, index, index)],
    }
    return load_static([extend, fork, take, trace], signatures)
