"""Transcendental functions of compiled programs, on sixteen float32 lanes; the same bits on every processor with FMA.

tanh: the 13/6 rational approximation that Eigen and XLA use. exp, log: Cephes' expf and logf (S. Moshier).
erf: Abramowitz and Stegun's 7.1.26 is too coarse for float32, so the odd 13/8 rational approximation of Eigen, within 3.3e-7.
sin, cos, tan and pow: see `circular` and `powers`. Worst errors against float64 are asserted in the tests.
"""

from .circular import vcos, vsin, vtan  # noqa: F401 (compiled programs take every name from here)
from .lanes import (
    Lanes,
    at_least,
    at_most,
    bits,
    floor,
    fma,
    instruction,
    magnitude,
    of_bits,
    polynomial,
    real,
    where,
    whole,
)
from .multiply import multiply  # noqa: F401
from .powers import vpow  # noqa: F401
from .simd import constant

ZERO, ONE, HALF, SIX, NEGATIVE_ONE = constant(0.0), constant(1.0), constant(0.5), constant(6.0), constant(-1.0)


def tanh(x: Lanes) -> Lanes:
    x = at_most(at_least(x, -7.90531110763549805), 7.90531110763549805)
    y = x * x
    p = polynomial(
        y, -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
        1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    )  # fmt: skip
    q = polynomial(y, 1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
    return x * p / q


def logistic(x: Lanes) -> Lanes:
    """Within 2e-7 of its value, for the gates of recurrent layers: half of tanh(x / 2), plus a half."""
    return fma(tanh(0.5 * x), 0.5, 0.5)


def exp(x: Lanes) -> Lanes:
    """exp(x); the smallest normal number below -87.34, its value at 88.38 above that."""
    x = at_most(at_least(x, -87.3365478515625), 88.3762626647949)
    n = at_most(floor(fma(x, 1.44269504088896341, 0.5)), 127.0)
    r = fma(n, 2.12194440e-4, fma(n, -0.693359375, x))
    p = polynomial(
        r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    )
    return (fma(p, r * r, r) + 1.0) * of_bits(whole(n).add_bits(127).left(23))


def sigmoid(x: Lanes) -> Lanes:
    return 1.0 / (1.0 + exp(0.0 - x))


def log(x: Lanes) -> Lanes:
    """log(x) of normal positive numbers; minus infinity at zero (and at subnormal numbers), NaN below."""
    e = real(bits(x).right(23).add_bits(-126))
    m = of_bits((bits(x) & 0x007FFFFF) | 0x3F000000)
    small = m < 0.707106781186547524
    e, r = where(small, e - 1.0, e), where(small, m + m, m) - 1.0
    z = r * r
    p = polynomial(
        r, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    y = fma(z, -0.5, fma(e, -2.12194440e-4, p * r * z))
    result = where(x < 1.1754943508e-38, float("-inf"), fma(e, 0.693359375, r + y))
    result = where(x < float("inf"), result, x)
    return where(x < 0.0, float("nan"), result)


def erf(x: Lanes) -> Lanes:
    x = at_most(at_least(x, -4.0), 4.0)
    y = x * x
    p = polynomial(
        y, -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
        -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
    )  # fmt: skip
    q = polynomial(
        y, -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
        -1.42647390514189e-02,
    )  # fmt: skip
    return x * p / q


def softplus(x: Lanes) -> Lanes:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|))."""
    return at_least(x, 0.0) + log(1.0 + exp(0.0 - magnitude(x)))


vtanh, gate, vexp, vsigmoid = instruction(tanh), instruction(logistic), instruction(exp), instruction(sigmoid)
vlog, verf, vsoftplus = instruction(log), instruction(erf), instruction(softplus)
