"""A program under construction: values, where they lie, and the source lines that compute them.

Memory of one step of a block of streams: for each stream an arena row, a row of every input and output, and a row of
scratch. Tables hold the address of each stream's row (`rows`, `x0`.., `y0`.., `s`; `c` repeats the parameters' address), so every
value is a table and an offset, and reshapes, squeezes and slices of the last axis cost nothing.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .simd import LANES

BATCH = -1  # the batch axis in a value's shape
PAD_BYTES = 4 * LANES  # scratch and parameters may be read this far past their end
ACCESS = {"float32": "float32", "int64": "int64", "int32": "int32", "bool": "bool"}


class Unsupported(Exception):
    """The compiled backend cannot run this node; the message says why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: shape with BATCH at its batch axis (constants have none), and each stream's place of it."""

    shape: tuple[int, ...]
    dtype: str
    table: str
    offset: int
    const: np.ndarray | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        return tuple(d for d in self.shape if d != BATCH)

    @property
    def size(self) -> int:
        return math.prod(self.row_shape)

    @property
    def batched(self) -> bool:
        return BATCH in self.shape

    @property
    def item(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def padded(self) -> bool:
        return self.table in ("s", "c")

    def at(self, row: str = "r") -> str:
        return f"get_int64({self.table} + 8 * {row}) + {self.offset}"


class Program:
    """Collects lines of the block function, scratch and parameters."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, float] = {}
        self.parameters = bytearray()
        self.scratch_bytes = 0
        self.limits: dict[str, int] = {}

    def say(self, *lines: str, indent: int = 1) -> None:
        self.lines += ["    " * indent + line for line in lines]

    def literal(self, value: float) -> str:
        """A vector constant, as an expression."""
        name = next(
            (n for n, v in self.constants.items() if v == value and math.copysign(1, v) == math.copysign(1, value)),
            None,
        )
        if name is None:
            name = f"K{len(self.constants)}"
            self.constants[name] = value
        return f"{name}()"

    def parameter(self, array: np.ndarray, shape: Sequence[int] | None = None) -> Value:
        """A constant in the parameters, 64-byte aligned."""
        array = np.ascontiguousarray(array)
        if array.dtype.name not in ACCESS:
            raise Unsupported(f"constants of {array.dtype.name}")
        offset = len(self.parameters)
        raw = array.tobytes()
        self.parameters += raw + b"\0" * (-len(raw) % 64 + PAD_BYTES)
        return Value(tuple(array.shape if shape is None else shape), array.dtype.name, "c", offset, array)

    def scratch(self, shape: Sequence[int], dtype: str = "float32", items: int | None = None) -> Value:
        """Room for a value of a stream (`items`: more of them than the shape has, for padding)."""
        if dtype not in ACCESS:
            raise Unsupported(f"values of {dtype}")
        value = Value(tuple(shape), dtype, "s", self.scratch_bytes)
        size = (items or value.size) * value.item
        self.scratch_bytes += -(-size // 64) * 64 + PAD_BYTES
        return value

    def rows(self) -> None:
        self.say("for r in range(n):")

    def vectors(
        self, out: Value, operands: Sequence[Value], expression: Callable[..., str], size: int | None = None
    ) -> None:
        """out[j] = expression(operands[j]) over flat float32 rows; operands of one element are spread over the lanes."""
        size = out.size if size is None else size
        self.rows()
        self.say(f"o = {out.at()}", indent=2)
        names: list[str] = []
        for i, v in enumerate(operands):
            if v.const is not None and v.size == 1:
                names.append(self.literal(float(v.const.reshape(-1)[0])))
                continue
            self.say(f"a{i} = {v.at()}", indent=2)
            if v.size == 1 and size != 1:
                self.say(f"v{i} = splat(get_float32(a{i}))", indent=2)
                names.append(f"v{i}")
            else:
                names.append("")
        whole, rest = size, 0
        if any(not v.padded and not name for v, name in zip(operands, names, strict=True)):
            whole, rest = size - size % LANES, size % LANES
        if whole:
            self.say(f"for j in range(0, {4 * whole}, {4 * LANES}):", indent=2)
            self.say(f"store(o + j, {expression(*[n or f'load(a{i} + j)' for i, n in enumerate(names)])})", indent=3)
        if rest:
            tail = [n or f"load_some(a{i} + {4 * whole}, {rest}, np.float32(0))" for i, n in enumerate(names)]
            self.say(f"store(o + {4 * whole}, {expression(*tail)})", indent=2)

    def scalars(self, out: Value, operands: Sequence[Value], expression: str) -> None:
        """out[j] = expression over flat rows of any types, one element at a time."""
        self.rows()
        self.say(f"o = {out.at()}", *[f"a{i} = {v.at()}" for i, v in enumerate(operands)], indent=2)
        self.say(f"for j in range({out.size}):", indent=2)
        gets = [f"get_{v.dtype}(a{i}{'' if v.size == 1 else f' + {v.item} * j'})" for i, v in enumerate(operands)]
        cast = {"float32": "np.float32", "int64": "np.int64", "int32": "np.int32", "bool": "bool"}[out.dtype]
        self.say(f"set_{out.dtype}(o + {out.item} * j, {cast}({expression.format(*gets)}))", indent=3)

    def strided(
        self,
        out: Value,
        source: Value,
        dims: Sequence[int],
        to: Sequence[int],
        of: Sequence[int],
        start: tuple[int, int] = (0, 0),
    ) -> None:
        """out[start + i . to] = source[start + i . of] for i in dims; strides in elements."""
        keep = [(d, t, o) for d, t, o in zip(dims, to, of, strict=True) if d != 1]
        merged: list[tuple[int, int, int]] = []
        for d, t, o in keep:
            if merged and merged[-1][1] == d * t and merged[-1][2] == d * o:
                merged[-1] = (merged[-1][0] * d, t, o)
            else:
                merged.append((d, t, o))
        item = out.item
        self.rows()
        self.say(f"o = {out.at()} + {start[0] * item}", f"a = {source.at()} + {start[1] * item}", indent=2)
        run = 1
        if merged and merged[-1][1:] == (1, 1):
            run = merged.pop()[0]
        for depth, (d, _, _) in enumerate(merged):
            self.say(f"for i{depth} in range({d}):", indent=2 + depth)
        target = " + ".join(["o", *[f"i{k} * {t * item}" for k, (_, t, _) in enumerate(merged)]])
        origin = " + ".join(["a", *[f"i{k} * {o * item}" for k, (_, _, o) in enumerate(merged)]])
        self.say(f"copy_bytes({target}, {origin}, {run * item})", indent=2 + len(merged))

    def gemm(
        self,
        out: Value,
        x: Value,
        start: Value,
        weights: Value,
        k: int,
        panels: int,
        shift: str = "0",
        z_shift: str = "0",
        indent: int = 1,
    ) -> None:
        self.say(
            f"gemm(n, {x.table}, {x.offset} + {shift}, {start.table}, {start.offset} + {z_shift if start.table == 's' else 0}, "
            f"{out.table}, {out.offset} + {z_shift}, get_int64(c) + {weights.offset}, {k}, {panels})",
            indent=indent,
        )

    def broadcast(self, value: Value, shape: tuple[int, ...]) -> Value:
        """`value` with the row shape of `shape`, copied only where its layout changes."""
        if value.size == 1 or value.row_shape == tuple(d for d in shape if d != BATCH):
            return value
        if value.const is not None and not value.batched:
            full = np.broadcast_to(value.const, [1 if d == BATCH else d for d in shape])
            return self.parameter(full, [d for d in shape if d != BATCH])
        have = (1,) * (len(shape) - len(value.shape)) + value.shape
        dims, of, step = [d for d in shape if d != BATCH], [], 1
        for want, got in zip(reversed(shape), reversed(have), strict=True):
            if want != BATCH:
                of.insert(0, 0 if got == 1 else step)
                step *= got
        if step == math.prod(dims):
            return value
        out = self.scratch(shape, value.dtype)
        self.strided(out, value, dims, strides(dims), of)
        return out


def strides(dims: Sequence[int]) -> list[int]:
    """Element strides of a C-ordered array."""
    return [math.prod(dims[i + 1 :]) for i in range(len(dims))]


def view(value: Value, shape: Sequence[int], offset: int = 0) -> Value:
    """The same memory under another shape, `offset` elements further."""
    const = value.const
    return replace(
        value,
        shape=tuple(shape),
        offset=value.offset + offset * value.item,
        const=None if const is None or offset else const,
    )


Lowering = Callable[[Program, Any, list[Value | None], dict[str, Any]], list[Value]]
