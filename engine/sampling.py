"""One token out of a row of logits: repetition penalty, temperature, top-k, top-p, a random number that a counter decides.

Nothing is sorted: both cuts are thresholds, found by bisection over the weights' bits, with counts and sums on sixteen
lanes (the idea of FlashInfer's sampling kernels). Weights that are equal fall on the same side of a cut, as in torch's filters.
The order of every sum is fixed, so the same logits give the same token in the compiled loop and beside ONNX Runtime.
"""

import math

import numpy as np
from numba import njit

from .functions import vexp
from .simd import (
    copy_bytes,
    fold_add,
    fold_max,
    get_float32,
    get_int32,
    keep,
    load,
    load_some,
    set_float32,
    set_int32,
    splat,
    store,
    vabs,
    vmax,
    where_less,
)

RECENT = 64  # tokens that the repetition penalty looks back over; kept in the stream's row
NOT_FINITE = -1
_LOW = np.float32(-3.4028234e38)
_ABOVE_ONE = 0x3F800001  # the bits after those of 1.0, the largest weight


@njit(nogil=True)
def uniform(seed, n):
    """The n-th number of [0, 1) of a seed: SplitMix64 (Steele, Lea, Flood 2014), whose state is a counter."""
    z = np.uint64(seed) + np.uint64(n + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float64((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


@njit(nogil=True)
def largest(logits, size):
    """The largest of `size` floats at an address, and whether all are finite."""
    whole, rest = size - size % 16, size % 16
    wrong, top = splat(np.float32(0)), splat(_LOW)
    for j in range(0, 4 * whole, 64):
        v = load(logits + j)
        wrong, top = wrong + vabs(v - v), vmax(top, v)
    if rest:
        v = load_some(logits + 4 * whole, rest, _LOW)
        wrong, top = wrong + vabs(v - v), vmax(top, v)
    return fold_max(top), fold_add(wrong) == np.float32(0)


@njit(nogil=True)
def partition(logits, size, top):
    """The sum of exp(logit - top)."""
    whole, rest = size - size % 16, size % 16
    total, shift = splat(np.float32(0)), splat(top)
    for j in range(0, 4 * whole, 64):
        total = total + vexp(load(logits + j) - shift)
    if rest:
        total = total + keep(vexp(load_some(logits + 4 * whole, rest, top) - shift), rest, np.float32(0))
    return fold_add(total)


@njit(nogil=True)
def _weigh(logits, weights, size, top, sharpness):
    """weights = exp((logit - top) * sharpness), zeros up to a whole vector; their sum."""
    whole, rest = size - size % 16, size % 16
    total, shift, factor = splat(np.float32(0)), splat(top), splat(sharpness)
    for j in range(0, 4 * whole, 64):
        w = vexp((load(logits + j) - shift) * factor)
        store(weights + j, w)
        total = total + w
    if rest:
        w = vexp((load_some(logits + 4 * whole, rest, top) - shift) * factor)
        w = keep(w, rest, np.float32(0))
        store(weights + 4 * whole, w)
        total = total + w
    return fold_add(total)


@njit(nogil=True)
def _from(weights, end, bits):
    """How many weights have at least these bits, and their sum; `end`: bytes of the weights, the number's room behind them."""
    set_int32(weights + end, bits)
    least = splat(get_float32(weights + end))
    zero, one = splat(np.float32(0)), splat(np.float32(1))
    count, total = zero, zero
    for j in range(0, end, 64):
        w = load(weights + j)
        count, total = count + where_less(w, least, zero, one), total + where_less(w, least, zero, w)
    return np.int64(fold_add(count)), fold_add(total)


@njit(nogil=True)
def _cut(weights, end, bits):
    """Weights of fewer bits become zero; the sum of the others."""
    set_int32(weights + end, bits)
    least, zero = splat(get_float32(weights + end)), splat(np.float32(0))
    total = zero
    for j in range(0, end, 64):
        w = load(weights + j)
        w = where_less(w, least, zero, w)
        store(weights + j, w)
        total = total + w
    return fold_add(total)


@njit(nogil=True)
def _kth(weights, end, k):
    """The largest bits that at least k weights have."""
    low, high = np.int64(0), np.int64(_ABOVE_ONE)
    while high - low > 1:
        middle = (low + high) // 2
        count = _from(weights, end, middle)[0]
        if count == k:
            return middle
        if count > k:
            low = middle
        else:
            high = middle
    return low


@njit(nogil=True)
def _nucleus(weights, end, least):
    """The largest bits such that the weights of at least those come to `least`."""
    low, high = np.int64(0), np.int64(_ABOVE_ONE)
    below, above = np.int64(end), np.int64(0)
    while high - low > 1 and below - above > 1:
        middle = (low + high) // 2
        count, total = _from(weights, end, middle)
        if total >= least:
            low, below = middle, count
        else:
            high, above = middle, count
    return low


@njit(nogil=True)
def _pick(weights, end, target):
    """The first place at which the running sum of weights is above the target; never one of weight zero."""
    running, last = 0.0, np.int64(0)
    for j in range(0, end, 64):
        following = running + np.float64(fold_add(load(weights + j)))
        if following > running:
            last = j
        if following > target:
            break
        running = following
    found = last // 4
    for k in range(last // 4, last // 4 + 16):
        w = np.float64(get_float32(weights + 4 * k))
        if w > 0:
            found = np.int64(k)
            running += w
            if running > target:
                break
    return found


@njit(nogil=True)
def _first(logits, size, value):
    """The first place of a value."""
    for k in range(size):
        if get_float32(logits + 4 * k) == value:
            return np.int64(k)
    return np.int64(0)


@njit(nogil=True)
def _changed(logits, weights, size, recent, count, penalty, stops, begin, end):
    """weights = the logits, those of recent tokens penalised (Keskar et al. 2019), those of barred tokens the lowest."""
    copy_bytes(weights, logits, 4 * size)  # pyright: ignore[reportCallIssue]
    for j in range(count):
        token = np.int64(get_int32(recent + 4 * j))
        if token < size:
            x = get_float32(logits + 4 * token)
            set_float32(weights + 4 * token, x / penalty if x > np.float32(0) else x * penalty)
    for j in range(begin, end):
        set_float32(weights + 4 * stops[j], _LOW)


@njit(nogil=True)
def sample(logits, weights, size, recent, count, penalty, stops, begin, end, temperature, top_k, top_p, u):
    """A token, NOT_FINITE where a logit is not, and its log-probability under the logits as they are.

    logits: address of `size` floats. weights: address of room for whole vectors of them and one more. recent: address of
    `count` int32 tokens to penalise. stops[begin:end]: tokens that are barred. temperature 0: the largest, the first of equals.
    """
    top, finite = largest(logits, size)
    if not finite:
        return np.int64(NOT_FINITE), 0.0
    source, peak, room = logits, top, (size + 15) // 16 * 64
    changed = end > begin or penalty != np.float32(1)
    if changed:
        _changed(logits, weights, size, recent, count, penalty, stops, begin, end)
        source, peak = weights, largest(weights, size)[0]
    whole = np.float32(0)
    if temperature == 0.0:
        token = _first(source, size, peak)
    else:
        total = _weigh(source, weights, size, peak, np.float32(1.0 / temperature))
        whole = total
        if end > begin:
            for j in range(begin, end):
                set_float32(weights + 4 * stops[j], np.float32(0))
            total = _from(weights, room, 0)[1]
        if 0 < top_k < size:
            total = _cut(weights, room, _kth(weights, room, top_k))
        if top_p < 1.0:
            total = _cut(weights, room, _nucleus(weights, room, np.float32(top_p) * total))
        token = _pick(weights, room, u * np.float64(total))
    if changed or temperature != 1.0:
        whole = partition(logits, size, top)
    return token, np.float64(get_float32(logits + 4 * token) - top) - math.log(np.float64(whole))
