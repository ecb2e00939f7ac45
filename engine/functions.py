"""Transcendental functions of compiled programs, on sixteen float32 lanes; the same bits on every processor with FMA.

tanh: the 13/6 rational approximation that Eigen and XLA use. exp, log: Cephes' expf and logf (S. Moshier).
erf: Abramowitz and Stegun's 7.1.26 is too coarse for float32, so the odd 13/8 rational approximation of Eigen.
Worst errors against float64 are asserted in the tests.
"""

from numba import njit

from .simd import constant, exponent, mantissa, times_power_of_two, vabs, vfloor, vfma, vmax, vmin, where_less

ZERO, ONE, HALF, SIX, NEGATIVE_ONE = constant(0.0), constant(1.0), constant(0.5), constant(6.0), constant(-1.0)

_T_MAX, _T_MIN = constant(7.90531110763549805), constant(-7.90531110763549805)
_T13, _T11, _T9 = constant(-2.76076847742355e-16), constant(2.00018790482477e-13), constant(-8.60467152213735e-11)
_T7, _T5, _T3 = constant(5.12229709037114e-08), constant(1.48572235717979e-05), constant(6.37261928875436e-04)
_T1, _TD6, _TD4 = constant(4.89352455891786e-03), constant(1.19825839466702e-06), constant(1.18534705686654e-04)
_TD2, _TD0 = constant(2.26843463243900e-03), constant(4.89352518554385e-03)


@njit(forceinline=True)
def vtanh(x):
    x = vmin(vmax(x, _T_MIN()), _T_MAX())
    y = x * x
    p = vfma(vfma(vfma(_T13(), y, _T11()), y, _T9()), y, _T7())
    p = vfma(vfma(vfma(p, y, _T5()), y, _T3()), y, _T1())
    q = vfma(vfma(vfma(_TD6(), y, _TD4()), y, _TD2()), y, _TD0())
    return x * p / q


@njit(forceinline=True)
def gate(x):
    """The logistic function within 2e-7 of its value, for the gates of recurrent layers: half of tanh(x / 2), plus a half."""
    return vfma(HALF(), vtanh(HALF() * x), HALF())


_LOG2E, _LN2_HIGH, _LN2_LOW = constant(1.44269504088896341), constant(-0.693359375), constant(2.12194440e-4)
_E_MAX, _E_MIN, _E_TOP = constant(88.3762626647949), constant(-87.3365478515625), constant(127.0)
_E5, _E4, _E3 = constant(1.9875691500e-4), constant(1.3981999507e-3), constant(8.3334519073e-3)
_E2, _E1, _E0 = constant(4.1665795894e-2), constant(1.6666665459e-1), constant(5.0000001201e-1)


@njit(forceinline=True)
def vexp(x):
    """exp(x); the smallest normal number below -87.34, its value at 88.38 above that."""
    x = vmin(vmax(x, _E_MIN()), _E_MAX())
    n = vmin(vfloor(vfma(x, _LOG2E(), HALF())), _E_TOP())
    r = vfma(n, _LN2_LOW(), vfma(n, _LN2_HIGH(), x))
    p = vfma(vfma(vfma(_E5(), r, _E4()), r, _E3()), r, _E2())
    p = vfma(vfma(p, r, _E1()), r, _E0())
    return times_power_of_two(vfma(p, r * r, r) + ONE(), n)


@njit(forceinline=True)
def vsigmoid(x):
    return ONE() / (ONE() + vexp(ZERO() - x))


_SQRT_HALF, _MIN_NORMAL = constant(0.707106781186547524), constant(1.1754943508e-38)
_L8, _L7, _L6 = constant(7.0376836292e-2), constant(-1.1514610310e-1), constant(1.1676998740e-1)
_L5, _L4, _L3 = constant(-1.2420140846e-1), constant(1.4249322787e-1), constant(-1.6668057665e-1)
_L2, _L1, _L0 = constant(2.0000714765e-1), constant(-2.4999993993e-1), constant(3.3333331174e-1)
_NOT_A_NUMBER, _MINUS_INFINITY = constant(float("nan")), constant(float("-inf"))


@njit(forceinline=True)
def vlog(x):
    """log(x) of normal positive numbers; minus infinity at zero (and at subnormal numbers), NaN below."""
    e, m = exponent(x), mantissa(x)
    small = where_less(m, _SQRT_HALF(), ONE(), ZERO())
    e = e - small
    r = vfma(m, small, m) - ONE()
    z = r * r
    p = vfma(vfma(vfma(_L8(), r, _L7()), r, _L6()), r, _L5())
    p = vfma(vfma(vfma(p, r, _L4()), r, _L3()), r, _L2())
    p = vfma(vfma(p, r, _L1()), r, _L0()) * r * z
    y = vfma(ZERO() - HALF(), z, vfma(e, _LN2_LOW_NEGATIVE(), p))
    result = vfma(e, _LN2_HIGH_POSITIVE(), r + y)
    result = where_less(x, _MIN_NORMAL(), _MINUS_INFINITY(), result)
    return where_less(x, ZERO(), _NOT_A_NUMBER(), result)


_LN2_LOW_NEGATIVE, _LN2_HIGH_POSITIVE = constant(-2.12194440e-4), constant(0.693359375)

_ERF_MAX, _ERF_MIN = constant(4.0), constant(-4.0)
_A13, _A11, _A9 = constant(-2.72614225801306e-10), constant(2.77068142495902e-08), constant(-2.10102402082508e-06)
_A7, _A5, _A3 = constant(-5.69250639462346e-05), constant(-7.34990630326855e-04), constant(-2.95459980854025e-03)
_A1, _B8, _B6 = constant(-1.60960333262415e-02), constant(-1.45660718464996e-05), constant(-2.13374055278905e-04)
_B4, _B2, _B0 = constant(-1.68282697438203e-03), constant(-7.37332916720468e-03), constant(-1.42647390514189e-02)


@njit(forceinline=True)
def verf(x):
    x = vmin(vmax(x, _ERF_MIN()), _ERF_MAX())
    y = x * x
    p = vfma(vfma(vfma(_A13(), y, _A11()), y, _A9()), y, _A7())
    p = vfma(vfma(vfma(p, y, _A5()), y, _A3()), y, _A1())
    q = vfma(vfma(vfma(vfma(_B8(), y, _B6()), y, _B4()), y, _B2()), y, _B0())
    return x * p / q


@njit(forceinline=True)
def vsoftplus(x):
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|))."""
    return vmax(x, ZERO()) + vlog(ONE() + vexp(ZERO() - vabs(x)))
