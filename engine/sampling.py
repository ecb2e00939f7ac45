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
    bits_of_float,
    copy_bytes,
    float_of_bits,
    fold_add,
    fold_max,
    fold_min,
    get_float32,
    get_int32,
    get_int64,
    keep,
    load,
    load_some,
    set_float32,
    splat,
    store,
    vabs,
    vmax,
    vmin,
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
def _weigh_and_sum(logits, weights, size, top, sharpness):
    """`_weigh`, and beside it `partition` of the same logits: in one pass their exponentials overlap."""
    whole, rest = size - size % 16, size % 16
    total, shift, factor = splat(np.float32(0)), splat(top), splat(sharpness)
    plain = total
    for j in range(0, 4 * whole, 64):
        x = load(logits + j) - shift
        w = vexp(x * factor)
        store(weights + j, w)
        total, plain = total + w, plain + vexp(x)
    if rest:
        x = load_some(logits + 4 * whole, rest, top) - shift
        w = keep(vexp(x * factor), rest, np.float32(0))
        store(weights + 4 * whole, w)
        total, plain = total + w, plain + keep(vexp(x), rest, np.float32(0))
    return fold_add(total), fold_add(plain)


@njit(nogil=True)
def _smallest(weights, size):
    """The bits of the smallest of `size` weights."""
    whole, rest = size - size % 16, size % 16
    least = splat(np.float32(1))
    for j in range(0, 4 * whole, 64):
        least = vmin(least, load(weights + j))
    if rest:
        least = vmin(least, load_some(weights + 4 * whole, rest, np.float32(1)))
    return bits_of_float(fold_min(least))


@njit(nogil=True)
def _sum_from(weights, end, bits):
    """The sum of the weights, `end` bytes of them, that have at least these bits."""
    least, zero = splat(float_of_bits(bits)), splat(np.float32(0))
    total = zero
    for j in range(0, end, 64):
        w = load(weights + j)
        total = total + where_less(w, least, zero, w)
    return fold_add(total)


@njit(nogil=True)
def _kth(weights, end, k, low):
    """The largest bits, from `low` on, that at least k weights have."""
    high, zero, one = np.int64(_ABOVE_ONE), splat(np.float32(0)), splat(np.float32(1))
    while high - low > 1:
        middle = (low + high) // 2
        least, counts = splat(float_of_bits(middle)), zero
        for j in range(0, end, 64):
            counts = counts + where_less(load(weights + j), least, zero, one)
        count = np.int64(fold_add(counts))
        if count == k:
            return middle
        if count > k:
            low = middle
        else:
            high = middle
    return low


@njit(nogil=True)
def _nucleus(weights, end, low, total, share):
    """The largest bits, from `low` on, such that the weights of at least those come to `share`; and their sum, `total` for `low`."""
    high, zero, one = np.int64(_ABOVE_ONE), splat(np.float32(0)), splat(np.float32(1))
    below, above = np.int64(end), np.int64(0)
    while high - low > 1 and below - above > 1:
        middle = (low + high) // 2
        least, counts, kept = splat(float_of_bits(middle)), zero, zero
        for j in range(0, end, 64):
            w = load(weights + j)
            counts, kept = counts + where_less(w, least, zero, one), kept + where_less(w, least, zero, w)
        count, come = np.int64(fold_add(counts)), fold_add(kept)
        if come >= share:
            low, below, total = middle, count, come
        else:
            high, above = middle, count
    return low, total


@njit(nogil=True)
def _pick(weights, end, bits, target):
    """The first place at which the running sum of weights of at least these bits is above the target; never one of weight zero."""
    running, last, cut = 0.0, np.int64(0), float_of_bits(bits)
    least, zero = splat(cut), splat(np.float32(0))
    for j in range(0, end, 64):
        w = load(weights + j)
        following = running + np.float64(fold_add(where_less(w, least, zero, w)))
        if following > running:
            last = j
        if following > target:
            break
        running = following
    found = last // 4
    for k in range(last // 4, last // 4 + 16):
        w = get_float32(weights + 4 * k)
        if w > np.float32(0) and w >= cut:
            found = np.int64(k)
            running += np.float64(w)
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
def _changed(logits, weights, size, recent, count, penalty, barred, bars):
    """weights = the logits, those of recent tokens penalised (Keskar et al. 2019), those of barred tokens the lowest."""
    copy_bytes(weights, logits, 4 * size)  # pyright: ignore[reportCallIssue]
    for j in range(count):
        token = np.int64(get_int32(recent + 4 * j))
        if token < size:
            x = get_float32(logits + 4 * token)
            set_float32(weights + 4 * token, x / penalty if x > np.float32(0) else x * penalty)
    for j in range(bars):
        set_float32(weights + 4 * get_int64(barred + 8 * j), _LOW)


@njit(nogil=True)
def sample(logits, weights, size, recent, count, penalty, barred, bars, temperature, top_k, top_p, u):
    """A token, NOT_FINITE where a logit is not, and its log-probability under the logits as they are.

    logits: address of `size` floats. weights: address of room for whole vectors of them and one more. recent: address of
    `count` int32 tokens to penalise. barred: address of `bars` tokens that may not come. temperature 0: the largest, the first
    of equals.
    """
    top, finite = largest(logits, size)
    if not finite:
        return np.int64(NOT_FINITE), 0.0
    source, peak, room = logits, top, (size + 15) // 16 * 64
    changed = bars > 0 or penalty != np.float32(1)
    if changed:
        _changed(logits, weights, size, recent, count, penalty, barred, bars)
        source, peak = weights, largest(weights, size)[0]
    if temperature == 0.0:
        token, whole = _first(source, size, peak), partition(logits, size, top)
    else:
        if changed:
            total = _weigh(source, weights, size, peak, np.float32(1.0 / temperature))
            whole = partition(logits, size, top)
        elif temperature == 1.0:
            total = whole = _weigh(source, weights, size, peak, np.float32(1))
        else:
            total, whole = _weigh_and_sum(source, weights, size, peak, np.float32(1.0 / temperature))
        for j in range(bars):
            set_float32(weights + 4 * get_int64(barred + 8 * j), np.float32(0))
        cut = np.int64(0)
        if 0 < top_k < size or top_p < 1.0:
            cut = _smallest(weights, size)
        if 0 < top_k < size:
            cut = _kth(weights, room, top_k, cut)
        if bars or 0 < top_k < size:
            total = _sum_from(weights, room, cut)
        if top_p < 1.0:
            cut, total = _nucleus(weights, room, cut, total, np.float32(top_p) * total)
        token = _pick(weights, room, cut, u * np.float64(total))
    return token, np.float64(get_float32(logits + 4 * token) - top) - math.log(np.float64(whole))
