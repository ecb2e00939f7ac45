"""Sixteen float32 lanes as a numba value, and the arithmetic of compiled programs on it.

LLVM maps the sixteen lanes to whatever the processor has: one AVX-512 register, two AVX2, four NEON. Every operation
is a single IEEE operation a lane (fused multiply-add is written as such, nothing is contracted or reordered), so a
program's bits do not depend on the vector length. Addresses are int64; memory is little-endian and need not be aligned.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.extending import intrinsic, lower_builtin, register_model
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

LANES = 16
_FLOAT, _HALF, _I32, _I64 = ir.FloatType(), ir.HalfType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_IVECTOR = ir.VectorType(_I32, LANES)


class Float32x16(types.Type):
    """The type of sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


float32x16 = Float32x16()


@register_model(Float32x16)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _instruction(result: Any, build: Callable[..., Any], *argument_types: Any) -> Any:
    """A function of compiled code that is `build(builder, *llvm_values)`."""
    arity = len(argument_types)

    def typing(_context: Any, *arguments: Any) -> Any:
        if any(
            not isinstance(a, types.Integer) if want is types.int64 else a != want
            for a, want in zip(arguments, argument_types, strict=True)
        ):
            return None

        def codegen(context: Any, builder: Any, _signature: Any, values: Sequence[Any]) -> Any:
            out = build(builder, *values)
            return context.get_dummy_value() if result is types.void else out

        return result(*argument_types), codegen

    # numba reads the arity of an intrinsic off its Python signature
    names = ", ".join("abcdefgh"[:arity])
    scope: dict[str, Any] = {"typing": typing}
    exec(f"def instruction(typingctx, {names}):\n    return typing(typingctx, {names})\n", scope)
    return intrinsic(scope["instruction"])


def _call(builder: Any, name: str, result: Any, *values: Any) -> Any:
    kind = ir.FunctionType(result, [v.type for v in values])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), values)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _splat(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    empty = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(empty, scalar, _I32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _constant(value: float) -> Any:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(value)))] * LANES)


def _load(builder: Any, address: Any) -> Any:
    return builder.load(_pointer(builder, address, _VECTOR), align=4)


def _store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _pointer(builder, address, _VECTOR), align=4)


def _mask(builder: Any, count: Any) -> Any:
    lanes = ir.Constant(_IVECTOR, list(range(LANES)))
    return builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(count, _I32)))


def _load_some(builder: Any, address: Any, count: Any, rest: Any) -> Any:
    pointer, mask = _pointer(builder, address, _VECTOR), _mask(builder, count)
    return _call(builder, "llvm.masked.load.v16f32.p0v16f32", _VECTOR, pointer, _I32(4), mask, _splat(builder, rest))


def _store_some(builder: Any, address: Any, value: Any, count: Any) -> None:
    pointer, mask = _pointer(builder, address, _VECTOR), _mask(builder, count)
    _call(builder, "llvm.masked.store.v16f32.p0v16f32", ir.VoidType(), value, pointer, _I32(4), mask)


def _where_set(builder: Any, address: Any, x: Any, y: Any) -> Any:
    """x where the sixteen bools at the address are set, y elsewhere."""
    kind = ir.VectorType(ir.IntType(8), LANES)
    bools = builder.load(_pointer(builder, address, kind), align=1)
    return builder.select(builder.icmp_signed("!=", bools, ir.Constant(kind, [0] * LANES)), x, y)


def _fold(combine: Callable[..., Any]) -> Callable[..., Any]:
    """Sixteen lanes to one: lane l with lane l + 8, then + 4, + 2, + 1."""

    def build(builder: Any, value: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        for half in (8, 4, 2, 1):
            order = [(lane + half) % LANES for lane in range(LANES)]
            value = combine(builder, value, builder.shuffle_vector(value, undefined, ir.Constant(_IVECTOR, order)))
        return builder.extract_element(value, _I32(0))

    return build


def _choose(relation: str) -> Callable[..., Any]:
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(relation, a, b), a, b)


_maximum, _minimum, _add = _choose(">"), _choose("<"), lambda builder, a, b: builder.fadd(a, b)
_V, _F, _A, _N = float32x16, types.float32, types.int64, types.void

load = _instruction(_V, _load, _A)
store = _instruction(_N, _store, _A, _V)
load_some = _instruction(_V, _load_some, _A, _A, _F)
store_some = _instruction(_N, _store_some, _A, _V, _A)
splat = _instruction(_V, _splat, _F)
fold_add = _instruction(_F, _fold(_add), _V)
fold_multiply = _instruction(_F, _fold(lambda builder, a, b: builder.fmul(a, b)), _V)
fold_max = _instruction(_F, _fold(_maximum), _V)
fold_min = _instruction(_F, _fold(_minimum), _V)
vfma = _instruction(_V, lambda builder, a, b, c: _call(builder, "llvm.fma.v16f32", _VECTOR, a, b, c), _V, _V, _V)
vmax = _instruction(_V, _maximum, _V, _V)
vmin = _instruction(_V, _minimum, _V, _V)
vsqrt = _instruction(_V, lambda builder, a: _call(builder, "llvm.sqrt.v16f32", _VECTOR, a), _V)
vabs = _instruction(_V, lambda builder, a: _call(builder, "llvm.fabs.v16f32", _VECTOR, a), _V)
vfloor = _instruction(_V, lambda builder, a: _call(builder, "llvm.floor.v16f32", _VECTOR, a), _V)
vceil = _instruction(_V, lambda builder, a: _call(builder, "llvm.ceil.v16f32", _VECTOR, a), _V)
vround = _instruction(_V, lambda builder, a: _call(builder, "llvm.rint.v16f32", _VECTOR, a), _V)
where_less = _instruction(
    _V, lambda builder, a, b, x, y: builder.select(builder.fcmp_ordered("<", a, b), x, y), _V, _V, _V, _V
)
float_of_bits = _instruction(_F, lambda builder, bits: builder.bitcast(builder.trunc(bits, _I32), _FLOAT), _A)
bits_of_float = _instruction(_A, lambda builder, number: builder.zext(builder.bitcast(number, _I32), _I64), _F)
where_set = _instruction(_V, _where_set, _A, _V, _V)
keep = _instruction(
    _V, lambda builder, v, count, rest: builder.select(_mask(builder, count), v, _splat(builder, rest)), _V, _A, _F
)


def _arithmetic(symbol: Callable[..., Any], name: str) -> None:
    """`symbol` of two vectors. Typed and lowered at once: numba's `overload` would compile a function for each."""

    class Operator(AbstractTemplate):
        key = symbol

        def generic(self, args: Any, kws: Any) -> Any:
            return signature(_V, _V, _V) if args == (_V, _V) else None

    infer_global(symbol, types.Function(Operator))
    lower_builtin(symbol, _V, _V)(lambda _context, builder, _signature, values: getattr(builder, name)(*values))


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def constant(value: float) -> Any:
    """A function of compiled code, without arguments, that gives `value` in all lanes."""
    return _instruction_without_arguments(_constant(value))


def _instruction_without_arguments(value: Any) -> Any:
    def literal(typingctx: Any) -> Any:
        return float32x16(), lambda context, builder, signature, values: value

    return intrinsic(literal)


def _scalar_access(kind: Any, llvm: Any, stored: Any = None) -> tuple[Any, Any]:
    stored = stored or llvm

    def read(builder: Any, address: Any) -> Any:
        value = builder.load(_pointer(builder, address, stored), align=1)
        return builder.trunc(value, llvm) if stored is not llvm else value

    def write(builder: Any, address: Any, value: Any) -> None:
        value = builder.zext(value, stored) if stored is not llvm else value
        builder.store(value, _pointer(builder, address, stored), align=1)

    return _instruction(kind, read, _A), _instruction(_N, write, _A, kind)


get_float32, set_float32 = _scalar_access(types.float32, _FLOAT)
get_float64, set_float64 = _scalar_access(types.float64, ir.DoubleType())
get_int64, set_int64 = _scalar_access(types.int64, _I64)
get_int32 = _scalar_access(types.int32, _I32)[0]
get_float16 = _instruction(_F, lambda b, a: b.fpext(b.load(_pointer(b, a, _HALF), align=1), _FLOAT), _A)
set_float16 = _instruction(_N, lambda b, a, v: _write(b, a, b.fptrunc(v, _HALF)), _A, _F)
get_int8, get_uint8 = (_scalar_access(kind, ir.IntType(8))[0] for kind in (types.int8, types.uint8))
get_bool, set_bool = _scalar_access(types.boolean, ir.IntType(1), ir.IntType(8))


def _set_low(size: int) -> Any:
    """A store of the low bits of an integer."""
    kind = ir.IntType(size)
    return _instruction(
        _N, lambda builder, address, v: _write(builder, address, builder.trunc(v, kind)), _A, types.int64
    )


def _write(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, _pointer(builder, address, value.type), align=1)


set_int32, set_int8 = _set_low(32), _set_low(8)
set_uint8 = set_int8


def _divide(name: str, by_minus_one: Callable[[Any, Any], Any]) -> Any:
    """Division as in C, which traps on no operands: by zero it gives zero, by minus one what wraps around."""

    def build(b: Any, x: Any, y: Any) -> Any:
        zero, minus_one = b.icmp_signed("==", y, _I64(0)), b.icmp_signed("==", y, _I64(-1))
        result = getattr(b, name)(x, b.select(b.or_(zero, minus_one), _I64(1), y))
        result = b.select(minus_one, by_minus_one(b, x), result)
        return b.select(zero, _I64(0), result)

    return _instruction(types.int64, build, types.int64, types.int64)


quotient = _divide("sdiv", lambda b, x: b.neg(x))
remainder = _divide("srem", lambda b, x: _I64(0))


def _modulo(b: Any, rest: Any, y: Any) -> Any:
    """A remainder with the sign of the divisor."""
    turned = b.and_(b.icmp_signed("!=", rest, _I64(0)), b.icmp_signed("<", b.xor(rest, y), _I64(0)))
    return b.select(turned, b.add(rest, y), rest)


signed_as_divisor = _instruction(types.int64, _modulo, types.int64, types.int64)
float_remainder = _instruction(_F, lambda b, x, y: b.frem(x, y), _F, _F)


@intrinsic
def move_bytes(typingctx, target, source, count):
    """count bytes from source to target, which may overlap."""

    def codegen(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        byte = ir.IntType(8)
        cgutils.raw_memmove(
            builder, _pointer(builder, values[0], byte), _pointer(builder, values[1], byte), values[2], 1, align=1
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def copy_bytes(typingctx, target, source, count):
    """count bytes from source to target, which do not overlap."""

    def codegen(context: Any, builder: Any, signature: Any, values: Sequence[Any]) -> Any:
        byte = ir.IntType(8)
        cgutils.raw_memcpy(
            builder, _pointer(builder, values[0], byte), _pointer(builder, values[1], byte), values[2], 1, align=1
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
