"""The matrix product of compiled programs: `z[r] += x[r] @ w` over packed weights, bit for bit the same for any batch.

Every output adds its products in the order of k, one fused multiply-add each, whether its row comes alone or in a
block of four, so a row does not depend on the rows beside it. Weights are packed in panels of 32 columns, `(N / 32, K, 32)`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.extending import intrinsic

from .processor import processor
from .simd import _FLOAT, _I32, _I64, LANES, _call, _load, _pointer, _splat, _store, float32x16, get_int64

VECTORS = 2
PANEL = VECTORS * LANES
ROWS = 4
# Rows that `gates` takes together, and in how many parts it takes their lanes, so that the sums stay in registers: 32 of 16
# lanes, or 16 of 8 lanes. Blocking does not change a row's bits.
GATE_ROWS, PARTS = (4, 1) if "+avx512f" in processor() else (3, 2) if "+avx2" in processor() else (1, 1)


def pack(weights: np.ndarray) -> np.ndarray:
    """weights (K, N) as panels (ceil(N / 32), K, 32), filled up with zeros."""
    k, n = weights.shape
    panels = -(-n // PANEL)
    padded = np.zeros((k, panels * PANEL), np.float32)
    padded[:, :n] = weights
    return np.ascontiguousarray(padded.reshape(k, panels, PANEL).transpose(1, 0, 2))


def _block(rows: int, panels: int) -> Any:
    """z (rows, panels * 32) = start + x (rows, k) @ w in registers: addresses of each row's x, start and z; w and k."""
    names = [f"{what}{r}" for what in "xsz" for r in range(rows)]
    every = [(p, v) for p in range(panels) for v in range(VECTORS)]
    together = [every] if rows == 1 or PARTS == 1 else [[column] for column in every]

    def codegen(context: Any, b: Any, signature: Any, values: Sequence[Any]) -> Any:
        x, start, z = (values[i * rows : (i + 1) * rows] for i in range(3))
        w, k = values[3 * rows :]
        panel_bytes = b.mul(k, _I64(PANEL * 4))

        def weights(columns: Sequence[tuple[int, int]], i: Any) -> list[Any]:
            here = b.add(w, b.mul(i, _I64(PANEL * 4)))
            return [b.add(b.add(here, b.mul(panel_bytes, _I64(p))), _I64(v * LANES * 4)) for p, v in columns]

        at = lambda base, p, v: b.add(base, _I64((p * PANEL + v * LANES) * 4))  # noqa: E731
        for columns in together:
            begin = [[_load(b, at(start[r], p, v)) for p, v in columns] for r in range(rows)]
            done = _accumulate(b, x, k, begin, range(len(columns)), partial(weights, columns))
            for r in range(rows):
                for value, (p, v) in zip(done[r], columns, strict=True):
                    _store(b, at(z[r], p, v), value)
        return context.get_dummy_value()

    arguments = ", ".join([*names, "w", "k"])
    scope: dict[str, Any] = {"result": types.void(*[types.int64] * (3 * rows + 2)), "codegen": codegen}
    exec(f"def block(typingctx, {arguments}):\n    return result, codegen\n", scope)
    return intrinsic(scope["block"])


def _accumulate(
    b: Any,
    x: Sequence[Any],
    k: Any,
    begin: list[list[Any]],
    chosen: Sequence[int],
    weights: Callable[[Any], list[Any]],
    lanes: int = LANES,
) -> list[list[Any]]:
    """begin[r][c] + sum over i < k of x[r][i] * w, in the order of i, for c in chosen; weights(i): an address for each of those."""
    kind = ir.VectorType(_FLOAT, lanes)
    x = [_pointer(b, value, _FLOAT) for value in x]
    before, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
    b.branch(loop)
    b.position_at_end(loop)
    i = b.phi(_I64)
    i.add_incoming(_I64(0), before)
    sums = [{c: b.phi(kind) for c in chosen} for _ in x]
    new = [list(row) for row in begin]
    every = [_splat(b, b.load(b.gep(pointer, [i]), align=4), lanes) for pointer in x]
    for c, at in zip(chosen, weights(i), strict=True):  # one column's weights at a time: they take one register
        loaded = b.load(_pointer(b, at, kind), align=4)
        for r in range(len(x)):
            new[r][c] = _call(b, f"llvm.fma.v{lanes}f32", kind, every[r], loaded, sums[r][c])
            sums[r][c].add_incoming(begin[r][c], before)
            sums[r][c].add_incoming(new[r][c], loop)
    following = b.add(i, _I64(1))
    i.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, k), loop, done)
    b.position_at_end(done)
    return new


_four, _one1, _one2, _one4 = _block(ROWS, 1), _block(1, 1), _block(1, 2), _block(1, 4)


@njit(nogil=True)
def gemm(n, x, x_offset, start, start_offset, z, z_offset, w, k, panels):
    """z = start + x @ w for n rows; x, start, z: tables of the rows' addresses; offsets in bytes; w: address of `pack`ed weights."""
    step = PANEL * 4
    r = 0
    if n >= ROWS:
        whole = n - n % ROWS
        for p in range(panels):
            s, o, wp = start_offset + p * step, z_offset + p * step, w + p * k * step
            r = 0
            while r < whole:
                t = r * 8
                _four(
                    get_int64(x + t) + x_offset, get_int64(x + t + 8) + x_offset, get_int64(x + t + 16) + x_offset, get_int64(x + t + 24) + x_offset,
                    get_int64(start + t) + s, get_int64(start + t + 8) + s, get_int64(start + t + 16) + s, get_int64(start + t + 24) + s,
                    get_int64(z + t) + o, get_int64(z + t + 8) + o, get_int64(z + t + 16) + o, get_int64(z + t + 24) + o,
                    wp, k,
                )  # fmt: skip
                r += ROWS
    while r < n:
        xr, sr, zr = (
            get_int64(x + r * 8) + x_offset,
            get_int64(start + r * 8) + start_offset,
            get_int64(z + r * 8) + z_offset,
        )
        p = 0
        while p + 4 <= panels:
            _one4(xr, sr + p * step, zr + p * step, w + p * k * step, k)
            p += 4
        if p + 2 <= panels:
            _one2(xr, sr + p * step, zr + p * step, w + p * k * step, k)
            p += 2
        if p < panels:
            _one1(xr, sr + p * step, zr + p * step, w + p * k * step, k)
        r += 1


def _gates(rows: int, sums: int, of_x: Sequence[int], of_h: Sequence[int]) -> Any:
    """Sixteen lanes of each of `sums` sums: start + x @ w for those in of_x (none: no x), then + h @ r for those in of_h.

    Takes each row's x (where there is one), h and start (sums, 16), weights as `group` gives them of x followed by those of h,
    k_x and k_h; gives rows * sums vectors, which never were in memory.
    """
    names = [f"{what}{r}" for what in ("xhs" if of_x else "hs") for r in range(rows)]
    lanes, kind = LANES // PARTS, ir.VectorType(_FLOAT, LANES // PARTS)

    def some(b: Any, values: Sequence[Any], parts: Sequence[int]) -> list[list[Any]]:
        """Of each row the sums' lanes in these parts: part by part."""
        *given, weights, k_x, k_h = values
        begin = [
            [b.load(_pointer(b, b.add(at, _I64(4 * (LANES * i + lanes * p))), kind), align=4) for p in parts for i in range(sums)]
            for at in given[-rows:]
        ]  # fmt: skip
        second = b.add(weights, b.mul(k_x, _I64(4 * LANES * len(of_x))))
        work = [(given[:rows], weights, k_x, of_x)] if of_x else []
        for x, w, k, chosen in (*work, (given[-2 * rows : -rows], second, k_h, of_h)):
            columns = [j * sums + i for j in range(len(parts)) for i in chosen]
            begin = _accumulate(b, x, k, begin, columns, partial(_in_line, b, w, k, len(chosen), parts), lanes)
        return begin

    def codegen(context: Any, b: Any, signature: Any, values: Sequence[Any]) -> Any:
        together = [[p] for p in range(PARTS)] if rows > 1 else [list(range(PARTS))]
        found = [some(b, values, parts) for parts in together]
        joined = []
        for r in range(rows):
            every = [v for part in found for v in part[r]]
            joined += [_end_to_end(b, every[i::sums]) for i in range(sums)]
        return context.make_tuple(b, signature.return_type, joined)

    arguments = ", ".join([*names, "weights", "k_x", "k_h"])
    returned = types.UniTuple(float32x16, rows * sums)
    scope: dict[str, Any] = {"result": returned(*[types.int64] * (len(names) + 3)), "codegen": codegen}
    exec(f"def gates(typingctx, {arguments}):\n    return result, codegen\n", scope)
    return intrinsic(scope["gates"])


def group(weights: np.ndarray) -> np.ndarray:
    """Weights (K, sums, H) as `_gates` reads them, (H / 16, PARTS * K * sums * 16 / PARTS): sixteen lanes together, part by part."""
    k, sums, h = weights.shape
    split = weights.reshape(k, sums, h // LANES, PARTS, LANES // PARTS)
    return split.transpose(2, 3, 0, 1, 4).reshape(h // LANES, -1)


def _end_to_end(b: Any, parts: Sequence[Any]) -> Any:
    """One vector of the lanes of one or two."""
    if len(parts) == 1:
        return parts[0]
    return b.shuffle_vector(parts[0], parts[1], ir.Constant(ir.VectorType(_I32, LANES), list(range(LANES))))


def _in_line(b: Any, w: Any, k: Any, count: int, parts: Sequence[int], i: Any) -> list[Any]:
    """Addresses of w[part, i] (count, lanes), of each part."""
    line = 4 * LANES // PARTS * count
    here = [b.add(w, b.add(b.mul(k, _I64(line * p)), b.mul(i, _I64(line)))) for p in parts]
    return [b.add(at, _I64(line // count * n)) for at in here for n in range(count)]


# Sums of each kind's gates, and which of them take products with x and with h
SUMS = {"lstm": (4, (0, 1, 2, 3), (0, 1, 2, 3)), "gru": (4, (0, 1, 2), (0, 1, 3))}


def _pair(kind: str, with_x: bool) -> tuple[Any, Any]:
    """A kind's sums of one row, and of GATE_ROWS."""
    sums, of_x, of_h = SUMS[kind]
    one, many = (_gates(rows, sums, of_x if with_x else (), of_h) for rows in (1, GATE_ROWS))
    return one, many


lstm_gates_row, lstm_gates_rows = _pair("lstm", True)
gru_gates_row, gru_gates_rows = _pair("gru", True)
lstm_gates_looked_up_row, lstm_gates_looked_up_rows = _pair("lstm", False)
gru_gates_looked_up_row, gru_gates_looked_up_rows = _pair("gru", False)
