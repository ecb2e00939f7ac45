"""Sixteen lanes under construction: Python arithmetic that becomes LLVM instructions where a compiled program uses it.

A function written with `Lanes` is one instruction of compiled code, so numba never types its body. The lanes are float32, or
float64 after `wide`; comparisons give lanes of one bit for `where`. Numbers stand for themselves in all lanes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from .simd import _FLOAT, _I32, _I64, _V, LANES, _call, _instruction

_DOUBLE = ir.DoubleType()
Number = float | int


class Lanes:
    """An LLVM vector and the builder that it is made with."""

    __slots__ = ("builder", "value")

    def __init__(self, builder: Any, value: Any):
        self.builder, self.value = builder, value

    @property
    def kind(self) -> Any:
        return self.value.type.element

    def lift(self, other: "Lanes | Number") -> Any:
        """The other operand as an LLVM vector of this one's type."""
        if isinstance(other, Lanes):
            return other.value
        number = int(other) if isinstance(self.kind, ir.IntType) else float(other)
        if self.kind == _FLOAT:
            number = float(np.float32(number))
        return ir.Constant(self.value.type, [ir.Constant(self.kind, number)] * LANES)

    def build(self, name: str, other: "Lanes | Number", swapped: bool = False) -> "Lanes":
        a, b = self.value, self.lift(other)
        return Lanes(self.builder, getattr(self.builder, name)(*((b, a) if swapped else (a, b))))

    def __add__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("fadd", other)

    def __sub__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("fsub", other)

    def __mul__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("fmul", other)

    def __truediv__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("fdiv", other)

    def __radd__(self, other: Number) -> "Lanes":
        return self.build("fadd", other, swapped=True)

    def __rsub__(self, other: Number) -> "Lanes":
        return self.build("fsub", other, swapped=True)

    def __rmul__(self, other: Number) -> "Lanes":
        return self.build("fmul", other, swapped=True)

    def __rtruediv__(self, other: Number) -> "Lanes":
        return self.build("fdiv", other, swapped=True)

    def __neg__(self) -> "Lanes":
        return Lanes(self.builder, self.builder.fneg(self.value))

    def __and__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("and_", other)

    def __or__(self, other: "Lanes | Number") -> "Lanes":
        return self.build("or_", other)

    def __invert__(self) -> "Lanes":
        return Lanes(self.builder, self.builder.not_(self.value))

    def compare(self, relation: str, other: "Lanes | Number") -> "Lanes":
        """One bit a lane; false where either is NaN, but for `une`."""
        b = self.lift(other)
        compare = self.builder.fcmp_unordered if relation == "!=" else self.builder.fcmp_ordered
        return Lanes(self.builder, compare(relation, self.value, b))

    def __lt__(self, other: "Lanes | Number") -> "Lanes":
        return self.compare("<", other)

    def __gt__(self, other: "Lanes | Number") -> "Lanes":
        return self.compare(">", other)

    def same(self, other: "Lanes | Number") -> "Lanes":
        return self.compare("==", other)

    def differs(self, other: "Lanes | Number") -> "Lanes":
        return self.compare("!=", other)

    def add_bits(self, number: int) -> "Lanes":
        return self.build("add", number)

    def left(self, count: int) -> "Lanes":
        return self.build("shl", count)

    def right(self, count: int) -> "Lanes":
        """Without sign."""
        return self.build("lshr", count)


def _vector(kind: Any) -> Any:
    return ir.VectorType(kind, LANES)


def _math(name: str, *values: Lanes) -> Lanes:
    kind, first = values[0].value.type, values[0]
    suffix = "v16f32" if first.kind == _FLOAT else "v16f64"
    return Lanes(first.builder, _call(first.builder, f"llvm.{name}.{suffix}", kind, *[v.value for v in values]))


def fma(a: Lanes, b: Lanes | Number, c: Lanes | Number) -> Lanes:
    """a * b + c with one rounding."""
    return _math("fma", a, Lanes(a.builder, a.lift(b)), Lanes(a.builder, a.lift(c)))


def spread(like: Lanes, number: float) -> Lanes:
    """A number in all lanes."""
    return Lanes(like.builder, like.lift(number))


def polynomial(x: Lanes, first: float, *rest: float) -> Lanes:
    """Horner's scheme, the highest coefficient first."""
    total = spread(x, first)
    for coefficient in rest:
        total = fma(total, x, coefficient)
    return total


def floor(x: Lanes) -> Lanes:
    return _math("floor", x)


def nearest(x: Lanes) -> Lanes:
    return _math("rint", x)


def magnitude(x: Lanes) -> Lanes:
    return _math("fabs", x)


def where(condition: Lanes, a: Lanes | Number, b: Lanes | Number) -> Lanes:
    like = a if isinstance(a, Lanes) else b
    if not isinstance(like, Lanes):
        raise TypeError("of two numbers; make one of them lanes")
    return Lanes(condition.builder, condition.builder.select(condition.value, like.lift(a), like.lift(b)))


def at_most(x: Lanes, bound: float) -> Lanes:
    return where(x < bound, x, bound)


def at_least(x: Lanes, bound: float) -> Lanes:
    return where(x > bound, x, bound)


def wide(x: Lanes) -> Lanes:
    """The same numbers as float64."""
    return Lanes(x.builder, x.builder.fpext(x.value, _vector(_DOUBLE)))


def narrow(x: Lanes) -> Lanes:
    """Rounded to float32."""
    return Lanes(x.builder, x.builder.fptrunc(x.value, _vector(_FLOAT)))


def bits(x: Lanes) -> Lanes:
    """The lanes' bits as integers of their size."""
    return Lanes(x.builder, x.builder.bitcast(x.value, _vector(_I32 if x.kind == _FLOAT else _I64)))


def of_bits(x: Lanes) -> Lanes:
    return Lanes(x.builder, x.builder.bitcast(x.value, _vector(_FLOAT if x.kind == _I32 else _DOUBLE)))


def whole(x: Lanes) -> Lanes:
    """Integers of the lanes' size, towards zero."""
    return Lanes(x.builder, x.builder.fptosi(x.value, _vector(_I32 if x.kind == _FLOAT else _I64)))


def real(x: Lanes) -> Lanes:
    """Integers as floats of their size."""
    return Lanes(x.builder, x.builder.sitofp(x.value, _vector(_FLOAT if x.kind == _I32 else _DOUBLE)))


def negative(x: Lanes) -> Lanes:
    """Whose sign bit is set, minus zero too."""
    b = bits(x)
    return Lanes(x.builder, x.builder.icmp_signed("<", b.value, b.lift(0)))


def instruction(function: Callable[..., Lanes], arity: int = 1) -> Any:
    """A function of compiled code on float32 lanes."""

    def build(builder: Any, *values: Any) -> Any:
        return function(*[Lanes(builder, v) for v in values]).value

    return _instruction(_V, build, *[_V] * arity)
