"""Matrix products: with constant weights over packed columns, of two computed values row by row of the batch.

A value's row has no batch axis, so an axis that is the batch counts as one entry. Every sum is in the order of the
contracted axis, one fused multiply-add each.
"""

from typing import Any

import numpy as np

from .arguments import Attributes, Inputs, constant, floats, optional
from .elementwise import pointwise, unary
from .gemm import pack
from .program import BATCH, Lowering, Program, Unsupported, Value, view
from .shapes import features, transposed
from .simd import LANES


def product(program: Program, x: Value, weights: np.ndarray, bias: np.ndarray | None) -> Value:
    """x (.., K) @ weights (K, N) + bias (N,)."""
    if x.dtype != "float32" or weights.dtype != np.float32:
        raise Unsupported(f"products of {x.dtype} and {weights.dtype.name}")
    k, n = weights.shape
    if x.shape[-1] != k or k == 0:
        raise Unsupported(f"a product over the batch axis, or of shapes {x.shape} and {weights.shape}")
    packed = program.parameter(pack(weights))
    start = np.zeros(packed.shape[0] * LANES, np.float32)
    if bias is not None:
        start[:n] = bias
    return multiplied(program, x, packed, program.parameter(start), k, n)


def multiplied(program: Program, x: Value, packed: Value, start: Value, k: int, n: int) -> Value:
    """start + x (.., k) @ weights (k, n), which are packed in (.., columns, k, 16); start (.., columns * 16)."""
    columns, places = packed.shape[-3], x.size // k
    z = program.scratch((*x.shape[:-1], n), items=places * columns * LANES)
    if places == 1:
        program.gemm(z, x, start, packed, k, columns)
        return z
    program.say(f"for q in range({places}):")
    program.gemm(z, x, start, packed, k, columns, shift=f"q * {4 * k}", z_shift=f"q * {4 * columns * LANES}", indent=2)
    if n == columns * LANES:
        return z
    out = program.scratch((*x.shape[:-1], n))
    program.strided(out, z, [places, n], [n, 1], [columns * LANES, 1])
    return out


def contraction(
    program: Program, x: Value, y: Value, lead: list[tuple[int, int, int]], m: int, k: int, n: int
) -> Value:
    """Row layout (lead.., m, n) of x (m, k) @ y (k, n); lead: entries of each leading axis, and how far apart in x and in y."""
    if k == 0:
        raise Unsupported("a product over no entries")
    x, y = program.placed(x), program.padded(y)
    out = program.scratch((BATCH, *[d for d, _, _ in lead], m, n))
    program.rows()
    program.say(f"o = {out.at()}", f"a = {x.at()}", f"e = {y.at()}", indent=2)
    place, x_at, y_at = "0", "a", "e"
    for i, (count, x_step, y_step) in enumerate(lead):
        program.say(f"for i{i} in range({count}):", indent=2 + i)
        place = f"({place}) * {count} + i{i}"
        x_at, y_at = f"{x_at} + i{i} * {4 * x_step}", f"{y_at} + i{i} * {4 * y_step}"
    sizes = ", ".join(f"np.int64({size})" for size in (m, k, n))
    program.say(f"multiply({x_at}, {y_at}, o + ({place}) * {4 * m * n}, {sizes})", indent=2 + len(lead))
    return out


def matmul_of(program: Program, x: Value, y: Value) -> Value:
    """ONNX MatMul, either side a constant or computed."""
    if x.dtype != "float32" or y.dtype != "float32":
        raise Unsupported(f"products of {x.dtype} and {y.dtype}")
    if len(x.shape) == 1 or len(y.shape) == 1:
        return _of_vector(program, x, y)
    if y.const is not None and len(y.shape) == 2:
        return product(program, x, y.const, None)
    if x.const is not None and len(x.shape) == 2 and len(y.shape) == 2 and y.shape[1] == BATCH:
        z = product(program, view(y, (BATCH, y.shape[0])), np.ascontiguousarray(x.const.T), None)
        return view(z, (x.shape[0], BATCH))
    k = x.shape[-1]
    if k == BATCH or k != y.shape[-2]:
        raise Unsupported(f"a product over the batch axis, or of shapes {x.shape} and {y.shape}")
    return _general(program, x, y)


def _of_vector(program: Program, x: Value, y: Value) -> Value:
    if len(x.shape) == 1:
        z = matmul_of(program, view(x, (1, *x.shape)), y)
        return view(z, (*z.shape[:-2], z.shape[-1]))
    z = matmul_of(program, x, view(y, (*y.shape, 1)))
    return view(z, z.shape[:-1])


def _general(program: Program, x: Value, y: Value) -> Value:
    m, k, n = (features(d) for d in (x.shape[-2:-1], x.shape[-1:], y.shape[-1:]))
    rank = max(len(x.shape), len(y.shape)) - 2
    leads = [(1,) * (rank + 2 - len(v.shape)) + v.shape[:-2] for v in (x, y)]
    steps = [[0] * (rank + 2 - len(v.shape)) + v.row_strides[:-2] for v in (x, y)]
    shape, lead = [], []
    for a, b, x_step, y_step in zip(*leads, *steps, strict=True):
        d = a if b == 1 else b
        if len({a, b} - {1}) > 1:
            raise Unsupported(f"a product of shapes {x.shape} and {y.shape}")
        shape.append(d)
        if d != BATCH:
            lead.append((d, 0 if a == 1 else x_step, 0 if b == 1 else y_step))
    shape += [x.shape[-2], y.shape[-1]]
    if shape.count(BATCH) != 1:
        raise Unsupported(f"a product of shapes {x.shape} and {y.shape}, whose batch axes do not meet")
    return view(contraction(program, x, y, lead, m, k, n), shape)


def matmul(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    return [matmul_of(program, floats(inputs), floats(inputs, 1))]


def gemm(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    x, w, c = floats(inputs), floats(inputs, 1), optional(inputs, 2)
    x = transposed(program, x, (1, 0)) if attributes.get("transA", 0) else x
    w = transposed(program, w, (1, 0)) if attributes.get("transB", 0) else w
    alpha, beta = np.float32(attributes.get("alpha", 1.0)), np.float32(attributes.get("beta", 1.0))
    if w.const is not None and x.shape[0] == BATCH and (c is None or c.const is not None):
        bias = None if c is None or c.const is None else np.broadcast_to(beta * c.const, (1, w.shape[1]))[0]
        return [product(program, x, w.const * alpha, bias)]
    z = matmul_of(program, x, w)
    if alpha != 1:
        z = unary(program, z, f"{{0}} * {program.literal(float(alpha))}")
    if c is None:
        return [z]
    if beta != 1:
        c = (
            pointwise(program, "Mul", [c, program.parameter(np.array(beta))])
            if c.const is None
            else _scaled(program, c, beta)
        )
    return [pointwise(program, "Add", [z, c])]


def _scaled(program: Program, c: Value, beta: np.float32) -> Value:
    return program.parameter(beta * constant([c], 0, "constants"))


def einsum(program: Program, node: Any, inputs: Inputs, attributes: Attributes) -> list[Value]:
    """Equations of two terms that are a product of matrices: each letter once in a term, and none summed in one term alone."""
    equation = attributes["equation"].decode().replace(" ", "")
    terms, arrow, out = equation.partition("->")
    terms = terms.split(",")
    out = out if arrow else "".join(sorted(c for c in set("".join(terms)) if "".join(terms).count(c) == 1))
    if "." in equation or len(terms) != 2 or any(len(set(t)) < len(t) for t in (*terms, out)):
        raise Unsupported(f"the equation {equation!r}; use MatMul, ReduceSum and Transpose")
    (a, b), (x, y) = terms, (floats(inputs), floats(inputs, 1))
    size = dict(zip(a + b, x.shape + y.shape, strict=True))
    both = [c for c in a if c in b and c in out]
    summed = [c for c in a if c in b and c not in out]
    left, right = ([c for c in t if c in out and c not in both] for t in (a, b))
    if any(c not in both + summed + left + right for c in a + b) or any(size[c] == BATCH for c in summed):
        raise Unsupported(f"the equation {equation!r}, which sums one term alone, or over the batch axis")
    if any(v.shape[t.index(c)] != size[c] for t, v in ((a, x), (b, y)) for c in t):
        raise Unsupported(f"the equation {equation!r} of shapes {x.shape} and {y.shape}")
    x = transposed(program, x, [a.index(c) for c in both + left + summed])
    y = transposed(program, y, [b.index(c) for c in both + summed + right])
    m, k, n = (features([size[c] for c in letters]) for letters in (left, summed, right))
    lead = [(size[c], v, w) for c, v, w in zip(both, x.row_strides, y.row_strides, strict=False) if size[c] != BATCH]
    letters = both + left + right
    z = view(contraction(program, x, y, lead, m, k, n), [size[c] for c in letters])
    return [transposed(program, z, [letters.index(c) for c in out])]


PRODUCTS: dict[str, Lowering] = {"Gemm": gemm, "MatMul": matmul, "Einsum": einsum}
