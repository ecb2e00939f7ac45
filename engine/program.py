"""A program under construction: values, where they lie, and the source lines that compute them.

Memory of one step of a block of streams: for each stream an arena row, a row of every input and output, and a row of
scratch. Tables hold the address of each stream's row (`rows`, `x0`.., `y0`.., `s`; `c` repeats the parameters' address; and what
`Program.table` gives), so every value is a table and an offset, and reshapes, squeezes and slices of the last axis cost nothing.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .scratch import Scratch
from .simd import LANES

BATCH = -1  # the batch axis in a value's shape
PAD_BYTES = 4 * LANES  # scratch and parameters may be read this far past their end
COMPILED = ("float32", "int64", "int32", "bool")  # of inputs, outputs and states
ACCESS = (*COMPILED, "float64", "float16", "int8", "uint8")  # of values between
UNPLACED = "k"  # the table of a constant that is not in the parameters yet


class Unsupported(Exception):
    """The compiled backend cannot run this node; the message says why."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: shape with BATCH at its batch axis (constants have none), and each stream's place of it.

    bounds: what an integer lies between, both included, where that is known; origin: the table of the input that these are
    elements of, where they are as the caller gave them; moving: what a loop's counter adds to the offset, as text;
    pieces: where it is other values end to end, the axis and those, see `joins`. looked_up: where it is one row of a constant
    table, that (entries, width) and the index, which stays what it is during a step.
    """

    shape: tuple[int, ...]
    dtype: str
    table: str
    offset: int
    const: np.ndarray | None = None
    bounds: tuple[int, int] | None = None
    origin: str = ""
    moving: str = ""
    pieces: tuple[int, tuple[Any, ...]] | None = None
    looked_up: tuple[np.ndarray, "Value"] | None = None

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
        return f"get_int64({self.table} + 8 * {row}) + {self.offset}{self.moving}"

    def moved(self, counter: str, step_bytes: int) -> "Value":
        """This value so many bytes further for each count of a loop."""
        return replace(self, moving=f"{self.moving} + {counter} * {step_bytes}")

    @property
    def row_strides(self) -> list[int]:
        """For each axis how many elements apart its entries lie in a stream's row; 0 for the batch axis."""
        rest = iter(strides(self.row_shape))
        return [0 if d == BATCH else next(rest) for d in self.shape]

    @property
    def range_or_none(self) -> tuple[int, int] | None:
        return self.range if self.dtype != "bool" and not self.dtype.startswith("float") else None

    @property
    def range(self) -> tuple[int, int]:
        """What an integer or a bool lies between, both included."""
        if self.const is not None and self.const.size:
            return int(self.const.min()), int(self.const.max())
        return self.bounds or whole_range(self.dtype)


def whole_range(dtype: str) -> tuple[int, int]:
    if dtype == "bool":
        return 0, 1
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


class Program:
    """Collects lines of the block function, scratch and parameters.

    limits: for tables of inputs used as an index, how many entries there are. probing: a first walk that finds the bounds of
    integer states, in which an index may be anything.
    """

    def __init__(self, probing: bool = False) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, float] = {}
        self.parameters = bytearray()
        self.places = Scratch()
        self.limits: dict[str, int] = {}
        self.tables: list[str] = []
        self.probing = probing
        self._placed: dict[int, Value] = {}
        self._in_rows = False
        self._depth = 0

    @property
    def scratch_bytes(self) -> int:
        return self.places.high

    def say(self, *lines: str, indent: int = 1) -> None:
        self._in_rows = self._in_rows and indent > 1
        self.lines += ["    " * (indent + self._depth) + line for line in lines]

    @contextmanager
    def loop(self, counter: str, numbers: range) -> Iterator[None]:
        """What is said inside is done for each of the numbers in turn, for the whole block."""
        self.say(f"for {counter} in {numbers!r}:")
        self._depth += 1
        yield
        self._depth -= 1
        self._in_rows = False

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

    def parameter(self, array: np.ndarray | np.generic, shape: Sequence[int] | None = None) -> Value:
        """A constant in the parameters, 64-byte aligned."""
        array = np.asarray(array, order="C")
        if array.dtype.name not in ACCESS:
            raise Unsupported(f"constants of {array.dtype.name}")
        offset = len(self.parameters)
        raw = array.tobytes()
        self.parameters += raw + b"\0" * (-len(raw) % 64 + PAD_BYTES)
        return Value(tuple(array.shape if shape is None else shape), array.dtype.name, "c", offset, array)

    def placed(self, value: Value) -> Value:
        """The value, in the parameters where it is a constant that was not."""
        if value.table != UNPLACED or value.const is None:
            return value
        key = id(value.const)
        if key not in self._placed:
            self._placed[key] = replace(self.parameter(value.const), const=value.const)  # which keeps the key its own
        return replace(value, table="c", offset=self._placed[key].offset)

    def scratch(self, shape: Sequence[int], dtype: str = "float32", items: int | None = None) -> Value:
        """Room for a value of a stream (`items`: more of them than the shape has, for padding)."""
        if dtype not in ACCESS:
            raise Unsupported(f"values of {dtype}")
        value = Value(tuple(shape), dtype, "s", 0)
        size = (items or value.size) * value.item
        return replace(value, offset=self.places.take(-(-size // 64) * 64 + PAD_BYTES))

    def like(self, source: Value, shape: Sequence[int], every: bool = False) -> Value:
        """Room for elements of `source`, moved; every: each of them is among those."""
        origin = source.origin if every else ""
        return replace(self.scratch(shape, source.dtype), bounds=source.range_or_none, origin=origin)

    def padded(self, value: Value) -> Value:
        """The value where a whole vector past its end may be read."""
        value = self.placed(value)
        if value.padded:
            return value
        out = self.like(value, value.shape, every=True)
        self.strided(out, value, [value.size], [1], [1])
        return out

    def table(self) -> str:
        """A table of the program's own, for the address of a row of each stream; set in a loop over the rows."""
        self.tables.append(f"begin{len(self.tables)}")
        return self.tables[-1]

    def rows(self) -> None:
        """Opens the loop over the block's rows, or goes on in it: rows do not see each other, so operators may share one."""
        if not self._in_rows:
            self.say("for r in range(n):")
            self._in_rows = True

    def vectors(
        self, out: Value, operands: Sequence[Value], expression: Callable[..., str], size: int | None = None
    ) -> None:
        """out[j] = expression(operands[j]) over flat float32 rows; operands of one element are spread over the lanes."""
        size = out.size if size is None else size
        self.rows()
        self.say(f"o = {out.at()}", indent=2)
        names: list[str] = []
        operands = [v if _is_number(v) else self.placed(v) for v in operands]
        for i, v in enumerate(operands):
            if _is_number(v) and v.const is not None:
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
        operands = [self.placed(v) for v in operands]
        self.rows()
        self.say(f"o = {out.at()}", *[f"a{i} = {v.at()}" for i, v in enumerate(operands)], indent=2)
        self.say(f"for j in range({out.size}):", indent=2)
        gets = [f"get_{v.dtype}(a{i}{'' if v.size == 1 else f' + {v.item} * j'})" for i, v in enumerate(operands)]
        self.say(f"set_{out.dtype}(o + {out.item} * j, {number_of(out.dtype)}({expression.format(*gets)}))", indent=3)

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
        source = self.placed(source)
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
        columns: int,
        shift: str = "0",
        z_shift: str = "0",
        indent: int = 1,
    ) -> None:
        begin = f"{start.offset}{start.moving}" + (f" + {z_shift}" if start.table == "s" else "")
        whole = [
            f"{x.offset}{x.moving} + {shift}",
            begin,
            f"{out.offset}{out.moving} + {z_shift}",
            f"{k}",
            f"{columns}",
        ]
        a, s, z, k_, p = (f"np.int64({number})" for number in whole)  # numba would compile the product for each literal
        self.say(
            f"gemm(n, {x.table}, {a}, {start.table}, {s}, {out.table}, {z}, get_int64(c) + {weights.offset}{weights.moving}, {k_}, {p})",
            indent=indent,
        )

    def broadcast(self, value: Value, shape: tuple[int, ...]) -> Value:
        """`value` with the row shape of `shape`, copied only where its layout changes."""
        if value.size == 1 or value.row_shape == tuple(d for d in shape if d != BATCH):
            return value
        if value.const is not None:
            full = np.broadcast_to(
                value.const.reshape([1 if d == BATCH else d for d in value.shape]),
                [1 if d == BATCH else d for d in shape],
            )
            return self.parameter(full, [d for d in shape if d != BATCH])
        have = (1,) * (len(shape) - len(value.shape)) + value.shape
        dims, of, step = [d for d in shape if d != BATCH], [], 1
        for want, got in zip(reversed(shape), reversed(have), strict=True):
            if want != BATCH:
                of.insert(0, 0 if got == 1 else step)
                step *= got
        if step == math.prod(dims):
            return value
        out = self.like(value, shape, every=True)
        self.strided(out, value, dims, strides(dims), of)
        return out


def _is_number(value: Value) -> bool:
    """A constant that the program's text can hold."""
    return value.const is not None and value.size == 1 and bool(np.isfinite(value.const).all())


def number_of(dtype: str) -> str:
    """What compiled code computes values of a dtype as: float16 is held as float32, integers as int64."""
    return {"float32": "np.float32", "float16": "np.float32", "float64": "np.float64", "bool": "bool"}.get(
        dtype, "np.int64"
    )


def strides(dims: Sequence[int]) -> list[int]:
    """Element strides of a C-ordered array."""
    return [math.prod(dims[i + 1 :]) for i in range(len(dims))]


def view(value: Value, shape: Sequence[int], offset: int = 0) -> Value:
    """The same memory under another shape, `offset` elements further."""
    const, row = value.const, [d for d in shape if d != BATCH]
    if const is not None:
        const = const.reshape(-1)[offset : offset + math.prod(row)].reshape(row)
    every = math.prod(row) == value.size
    origin, looked_up = (value.origin, value.looked_up) if every else ("", None)
    offset = value.offset + offset * value.item
    return replace(value, shape=tuple(shape), offset=offset, const=const, origin=origin, looked_up=looked_up)


Lowering = Callable[[Program, Any, list[Value | None], dict[str, Any]], list[Value]]
