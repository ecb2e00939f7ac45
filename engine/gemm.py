"""The matrix product of compiled programs: `z[r] = start[r] + x[r] @ w` over packed weights, bit for bit the same for any batch.

Every output adds its products in the order of k, one fused multiply-add each, whether its row comes alone or in a tile, so a
row does not depend on the rows beside it. A tile is some rows times one column of sixteen lanes, whose sums stay in registers
while the column's weights stay in the first cache for all rows (the scheme of BLIS, Van Zee and van de Geijn 2015).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.extending import intrinsic

from .processor import processor
from .simd import _FLOAT, _I64, _VECTOR, LANES, _call, _load, _pointer, _splat, _store

COLUMN = 4 * LANES  # bytes of a column's line
# Of a tile the rows, those of a smaller one for what remains, and the columns; and columns that a row alone takes together. The
# sums fill the registers, 32 of 16 lanes or 16 of 8 lanes, but for the weights and one entry of x; on AVX-512 two columns, so
# that an entry of x is loaded for two products, two of which a core can begin a cycle. Tiling does not change a row's bits.
ROWS, FEW, TOGETHER, WIDEST = (
    (8, 4, 2, 8) if "+avx512f" in processor() else (6, 2, 1, 4) if "+avx2" in processor() else (4, 2, 1, 4)
)


def pack(weights: np.ndarray) -> np.ndarray:
    """weights (K, N) as columns of sixteen lanes, (ceil(N / 16), K, 16), filled up with zeros."""
    k, n = weights.shape
    columns = -(-n // LANES)
    padded = np.zeros((k, columns * LANES), np.float32)
    padded[:, :n] = weights
    return np.ascontiguousarray(padded.reshape(k, columns, LANES).transpose(1, 0, 2))


def _tile(rows: int, columns: int) -> Any:
    """z (rows, columns * 16) = start + x (rows, k) @ w in registers.

    x, start, z: addresses of the first row's entry in the tables of rows' addresses, an offset in bytes behind each.
    """

    def codegen(context: Any, b: Any, signature: Any, values: Sequence[Any]) -> Any:
        x, start, z = ([_row(b, values[i], r, values[i + 1]) for r in range(rows)] for i in (0, 2, 4))
        w, k = values[6:]
        x = [_pointer(b, address, _FLOAT) for address in x]
        line = lambda base, c: b.add(base, _I64(c * COLUMN))  # noqa: E731
        begin = [[_load(b, line(row, c)) for c in range(columns)] for row in start]
        column_bytes = b.mul(k, _I64(COLUMN))
        each = [b.add(w, b.mul(column_bytes, _I64(c))) for c in range(columns)]
        before, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
        b.branch(loop)
        b.position_at_end(loop)
        i = b.phi(_I64)
        i.add_incoming(_I64(0), before)
        sums = [[b.phi(_VECTOR) for _ in range(columns)] for _ in range(rows)]
        lines = [_load(b, b.add(base, b.mul(i, _I64(COLUMN)))) for base in each]
        for r in range(rows):
            every = _splat(b, b.load(b.gep(x[r], [i]), align=4))
            for c in range(columns):
                new = _call(b, "llvm.fma.v16f32", _VECTOR, every, lines[c], sums[r][c])
                sums[r][c].add_incoming(begin[r][c], before)
                sums[r][c].add_incoming(new, loop)
                begin[r][c] = new
        following = b.add(i, _I64(1))
        i.add_incoming(following, loop)
        b.cbranch(b.icmp_signed("<", following, k), loop, done)
        b.position_at_end(done)
        for r in range(rows):
            for c in range(columns):
                _store(b, line(z[r], c), begin[r][c])
        return context.get_dummy_value()

    names = "x, x_offset, start, start_offset, z, z_offset, w, k"
    scope: dict[str, Any] = {"result": types.void(*[types.int64] * 8), "codegen": codegen}
    exec(f"def tile(typingctx, {names}):\n    return result, codegen\n", scope)
    return intrinsic(scope["tile"])


def _row(b: Any, table: Any, r: int, offset: Any) -> Any:
    """The r-th address of a table, so many bytes further."""
    return b.add(b.load(b.gep(_pointer(b, table, _I64), [ir.Constant(_I64, r)]), align=8), offset)


_many, _few, _many_of_one, _few_of_one = (_tile(rows, columns) for columns in (TOGETHER, 1) for rows in (ROWS, FEW))
_widest, _four, _three, _two, _one = (_tile(1, columns) for columns in (WIDEST, 4, 3, 2, 1))


@njit(nogil=True)
def gemm(n, x, x_offset, start, start_offset, z, z_offset, w, k, columns):
    """z = start + x @ w for n rows; x, start, z: tables of the rows' addresses; offsets in bytes; w: address of `pack`ed weights."""
    step = k * COLUMN
    whole = n - n % ROWS
    tiled = n - (n - whole) % FEW
    c = np.int64(0)
    while tiled and c + TOGETHER <= columns:
        r, s, o, wc = np.int64(0), start_offset + c * COLUMN, z_offset + c * COLUMN, w + c * step
        while r < whole:
            _many(x + 8 * r, x_offset, start + 8 * r, s, z + 8 * r, o, wc, k)
            r += ROWS
        while r < tiled:
            _few(x + 8 * r, x_offset, start + 8 * r, s, z + 8 * r, o, wc, k)
            r += FEW
        c += TOGETHER
    while TOGETHER > 1 and tiled and c < columns:
        r, s, o, wc = np.int64(0), start_offset + c * COLUMN, z_offset + c * COLUMN, w + c * step
        while r < whole:
            _many_of_one(x + 8 * r, x_offset, start + 8 * r, s, z + 8 * r, o, wc, k)
            r += ROWS
        while r < tiled:
            _few_of_one(x + 8 * r, x_offset, start + 8 * r, s, z + 8 * r, o, wc, k)
            r += FEW
        c += 1
    for r in range(tiled, n):
        xr, sr, zr = x + 8 * r, start + 8 * r, z + 8 * r
        c, s, o = np.int64(0), start_offset, z_offset
        while c + WIDEST <= columns:
            _widest(xr, x_offset, sr, s, zr, o, w + c * step, k)
            c, s, o = c + WIDEST, s + WIDEST * COLUMN, o + WIDEST * COLUMN
        if c + 4 <= columns:
            _four(xr, x_offset, sr, s, zr, o, w + c * step, k)
            c, s, o = c + 4, s + 4 * COLUMN, o + 4 * COLUMN
        if c + 3 == columns:
            _three(xr, x_offset, sr, s, zr, o, w + c * step, k)
        elif c + 2 == columns:
            _two(xr, x_offset, sr, s, zr, o, w + c * step, k)
        elif c < columns:
            _one(xr, x_offset, sr, s, zr, o, w + c * step, k)
