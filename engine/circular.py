"""sin, cos and tan of compiled programs, on sixteen float32 lanes.

The quadrant and the angle in it are found in float64 (Cody and Waite, pi / 2 in two parts, exact for |x| below 2**30), then
Cephes' sinf and cosf (S. Moshier) give within 1.2e-7. Beyond, the angle is held within the quadrant, so that the
result stays between -1 and 1; of infinity it is NaN.
"""

from .lanes import Lanes, at_least, at_most, floor, fma, instruction, narrow, nearest, polynomial, where, wide

_HALF_PI_HIGH, _HALF_PI_LOW = 1.5707963267948966, 6.123233995736766e-17


def reduced(x: Lanes) -> tuple[Lanes, Lanes]:
    """The quadrant of x, as 0.0, 1.0, 2.0 or 3.0, and the angle from its middle axis, within pi / 4."""
    d = wide(x)
    n = nearest(d * 0.6366197723675814)
    angle = fma(n, -_HALF_PI_LOW, fma(n, -_HALF_PI_HIGH, d))
    angle = where(angle.differs(angle), angle, at_most(at_least(angle, -0.7854), 0.7854))
    return narrow(n - 4.0 * floor(n * 0.25)), narrow(angle)


def sine_and_cosine(r: Lanes) -> tuple[Lanes, Lanes]:
    """Of an angle within pi / 4."""
    z = r * r
    sine = fma(polynomial(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1) * z, r, r)
    cosine = polynomial(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
    return sine, fma(cosine * z, z, fma(z, -0.5, 1.0))


def turned(q: Lanes, s: Lanes, c: Lanes) -> Lanes:
    """The sine of an angle in quadrant q, whose own sine and cosine are s and c."""
    value = where(q.same(1.0) | q.same(3.0), c, s)
    return where(q > 1.5, -value, value)


def sin(x: Lanes) -> Lanes:
    q, r = reduced(x)
    return turned(q, *sine_and_cosine(r))


def cos(x: Lanes) -> Lanes:
    q, r = reduced(x)
    return turned(where(q > 2.5, 0.0, q + 1.0), *sine_and_cosine(r))


def tan(x: Lanes) -> Lanes:
    q, r = reduced(x)
    s, c = sine_and_cosine(r)
    odd = q.same(1.0) | q.same(3.0)
    return where(odd, -c, s) / where(odd, s, c)


vsin, vcos, vtan = instruction(sin), instruction(cos), instruction(tan)
