"""pow of compiled programs, on sixteen float32 lanes: x ** p as 2 ** (p * log2 |x|) in float64, within one unit of float32.

log2 by the series of 2 atanh((m - 1) / (m + 1)) for m within sqrt(2) of one, 2 ** f by Taylor's; both are far below
float32's rounding. Zeros, infinities, NaN and negative bases are those of C99's pow (annex F.9.4.4).
"""

import math

from .lanes import (
    Lanes,
    at_least,
    at_most,
    bits,
    floor,
    instruction,
    magnitude,
    narrow,
    nearest,
    negative,
    of_bits,
    polynomial,
    real,
    spread,
    where,
    whole,
    wide,
)  # fmt: skip

_ATANH = [2 / math.log(2) / (2 * n + 1) for n in range(8, -1, -1)]
_EXP = [math.log(2) ** n / math.factorial(n) for n in range(11, -1, -1)]
_INFINITY, _NAN = float("inf"), float("nan")


def log2(x: Lanes) -> Lanes:
    """Of positive float64 lanes that were float32: none is subnormal."""
    b = bits(x)
    e, m = real(b.right(52).add_bits(-1023)), of_bits((b & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000)
    large = m > math.sqrt(2)
    e, m = where(large, e + 1.0, e), where(large, m * 0.5, m)
    s = (m - 1.0) / (m + 1.0)
    return polynomial(s * s, *_ATANH) * s + e


def exp2(y: Lanes) -> Lanes:
    """Of float64 lanes; beyond 200 in size as at 200, which float32 does not hold."""
    y = at_most(at_least(y, -200.0), 200.0)
    n = nearest(y)
    return polynomial(y - n, *_EXP) * of_bits(whole(n).add_bits(1023).left(52))


def power(x: Lanes, p: Lanes) -> Lanes:
    size, half = magnitude(x), p * 0.5
    integral = floor(p).same(p)
    odd = integral & floor(half).differs(half)
    result = narrow(exp2(wide(p) * log2(wide(size))))
    result = where(size.same(0.0), where(p < 0.0, spread(p, _INFINITY), 0.0), result)
    result = where(size.same(_INFINITY), where(p < 0.0, spread(p, 0.0), _INFINITY), result)
    result = where(size.same(1.0), 1.0, magnitude(result))
    result = where(negative(x) & odd, -result, result)
    inside = (x < 0.0) & (size < _INFINITY) & (magnitude(p) < _INFINITY)
    result = where(inside & ~integral, _NAN, result)
    result = where(x.differs(x) | p.differs(p), _NAN, result)
    return where(p.same(0.0) | x.same(1.0), 1.0, result)


vpow = instruction(power, 2)
