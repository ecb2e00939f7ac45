"""The matrix product of compiled programs: `z[r] += x[r] @ w` over packed weights, bit for bit the same for any batch.

Every output adds its products in the order of k, one fused multiply-add each, whether its row comes alone or in a
block of four, so a row does not depend on the rows beside it. Weights are packed in panels of 32 columns, `(N / 32, K, 32)`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numba import njit, types
from numba.core.extending import intrinsic

from .processor import processor
from .simd import _FLOAT, _I64, _VECTOR, LANES, _call, _load, _pointer, _splat, _store, float32x16, get_int64

VECTORS = 2
PANEL = VECTORS * LANES
ROWS = 4


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
    columns = [(p, v) for p in range(panels) for v in range(VECTORS)]

    def codegen(context: Any, b: Any, signature: Any, values: Sequence[Any]) -> Any:
        x, start, z = (values[i * rows : (i + 1) * rows] for i in range(3))
        w, k = values[3 * rows :]
        panel_bytes = b.mul(k, _I64(PANEL * 4))

        def weights(i: Any) -> list[Any]:
            here = b.add(w, b.mul(i, _I64(PANEL * 4)))
            return [b.add(b.add(here, b.mul(panel_bytes, _I64(p))), _I64(v * LANES * 4)) for p, v in columns]

        at = lambda base, p, v: b.add(base, _I64((p * PANEL + v * LANES) * 4))  # noqa: E731
        begin = [[_load(b, at(start[r], p, v)) for p, v in columns] for r in range(rows)]
        done = _accumulate(b, x, k, begin, range(len(columns)), weights)
        for r in range(rows):
            for value, (p, v) in zip(done[r], columns, strict=True):
                _store(b, at(z[r], p, v), value)
        return context.get_dummy_value()

    arguments = ", ".join([*names, "w", "k"])
    scope: dict[str, Any] = {"result": types.void(*[types.int64] * (3 * rows + 2)), "codegen": codegen}
    exec(f"def block(typingctx, {arguments}):\n    return result, codegen\n", scope)
    return intrinsic(scope["block"])


def _accumulate(
    b: Any, x: Sequence[Any], k: Any, begin: list[list[Any]], chosen: Sequence[int], weights: Callable[[Any], list[Any]]
) -> list[list[Any]]:
    """begin[r][c] + sum over i < k of x[r][i] * w, in the order of i, for c in chosen; weights(i): an address for each of those."""
    x = [_pointer(b, value, _FLOAT) for value in x]
    before, loop, done = b.block, b.append_basic_block("k"), b.append_basic_block("done")
    b.branch(loop)
    b.position_at_end(loop)
    i = b.phi(_I64)
    i.add_incoming(_I64(0), before)
    sums = [{c: b.phi(_VECTOR) for c in chosen} for _ in x]
    loaded = dict(zip(chosen, [_load(b, address) for address in weights(i)], strict=True))
    new = [list(row) for row in begin]
    for r, pointer in enumerate(x):
        every = _splat(b, b.load(b.gep(pointer, [i]), align=4))
        for c in chosen:
            new[r][c] = _call(b, "llvm.fma.v16f32", _VECTOR, every, loaded[c], sums[r][c])
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


# Rows that `gates` takes together: as many as leave their sums in registers. Blocking does not change a row's bits.
GATE_ROWS = 4 if "+avx512f" in processor() else 1


def _gates(rows: int, sums: int, of_x: Sequence[int], of_h: Sequence[int]) -> Any:
    """Sixteen lanes of each of `sums` sums: bias + x @ w for those in of_x, then + h @ r for those in of_h.

    Takes each row's x and h, bias (sums, 16), weights (k_x, len(of_x), 16) followed by (k_h, len(of_h), 16), k_x and k_h;
    gives rows * sums vectors, which never were in memory.
    """
    names = [f"{what}{r}" for what in "xh" for r in range(rows)]

    def codegen(context: Any, b: Any, signature: Any, values: Sequence[Any]) -> Any:
        bias, weights, k_x, k_h = values[2 * rows :]
        begin = [_load(b, b.add(bias, _I64(4 * LANES * i))) for i in range(sums)]
        done = [list(begin) for _ in range(rows)]
        second = b.add(weights, b.mul(k_x, _I64(4 * LANES * len(of_x))))
        for at, w, k, chosen in ((0, weights, k_x, of_x), (rows, second, k_h, of_h)):
            places = partial(_in_line, b, w, len(chosen))
            done = _accumulate(b, values[at : at + rows], k, done, chosen, places)
        return context.make_tuple(b, signature.return_type, [v for row in done for v in row])

    arguments = ", ".join([*names, "bias", "weights", "k_x", "k_h"])
    returned = types.UniTuple(float32x16, rows * sums)
    scope: dict[str, Any] = {"result": returned(*[types.int64] * (2 * rows + 4)), "codegen": codegen}
    exec(f"def gates(typingctx, {arguments}):\n    return result, codegen\n", scope)
    return intrinsic(scope["gates"])


def _in_line(b: Any, w: Any, count: int, i: Any) -> list[Any]:
    """Addresses of w[i] (count, 16)."""
    here = b.add(w, b.mul(i, _I64(4 * LANES * count)))
    return [b.add(here, _I64(4 * LANES * n)) for n in range(count)]


LSTM_SUMS, GRU_SUMS = (4, (0, 1, 2, 3), (0, 1, 2, 3)), (4, (0, 1, 2), (0, 1, 3))
lstm_gates_1, lstm_gates_4 = _gates(1, *LSTM_SUMS), _gates(4, *LSTM_SUMS)
gru_gates_1, gru_gates_4 = _gates(1, *GRU_SUMS), _gates(4, *GRU_SUMS)
