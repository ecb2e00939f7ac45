"""Random step graphs of the wider operator set: those of `graphs`, and products, windows, places and scans among them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from undertow.engine.artifact import Artifact

from .graphs import OPERATORS, STATES, Drawn, Growing, add_inputs, add_outputs


def apply_matmul(b: Growing) -> None:
    """Two computed matrices, or by an equation, or a constant first."""
    g, x, y = b.g, b.any(), b.any()
    one = g.op("Reshape", b.fitted(x, 6), g.ints(0, 2, 3))
    other = g.op("Mul", g.op("Reshape", b.fitted(y, 51), g.ints(0, 3, 17)), g.weight([0.5]))
    kind = b.choose.pick(["matmul", "einsum", "left"])
    if kind == "matmul":
        z, size = g.op("MatMul", one, other), 34
    elif kind == "einsum":
        z, size = g.op("Einsum", other, one, equation="bij,bki->bjk"), 34
    else:
        z, size = g.op("MatMul", g.noise(5, 3, scale=0.5), other), 85
    b.add(g.op("Tanh", g.op("Reshape", z, g.ints(-1, size))), size)


def apply_angle(b: Growing) -> None:
    x = b.any()
    b.add(b.g.op(b.choose.pick(["Sin", "Cos"]), b.g.op("Mul", x.name, b.g.weight([3.0]))), x.size)


def apply_power(b: Growing) -> None:
    """A smooth positive base, any exponent."""
    g, x, y = b.g, b.any(), b.any()
    base = g.op("Add", g.op("Abs", x.name), g.weight([0.5]))
    exponent = b.choose.pick([g.weight([1.7]), g.noise(x.size), g.op("Tanh", b.fitted(y, x.size))])
    b.add(g.op("Tanh", g.op("Pow", base, exponent)), x.size)


def apply_window(b: Growing) -> None:
    """Padded and pooled along the features."""
    g, x = b.g, b.any()
    line = g.op("Unsqueeze", x.name, g.ints(1))
    mode = b.choose.pick(["constant", "edge", "wrap"])
    wide = g.op("Pad", line, g.ints(0, 0, 1, 0, 0, 2), mode=mode)
    size = (x.size + 3 - 2) // 2 + 1
    kind = b.choose.pick(["MaxPool", "AveragePool", "Conv"])
    if kind == "Conv":
        pooled = g.op("Conv", wide, g.noise(1, 1, 2), strides=[2])
    else:
        pooled = g.op(kind, wide, kernel_shape=[2], strides=[2])
    b.add(g.op("Flatten", pooled), size)


def apply_scan(b: Growing) -> None:
    x = b.any()
    attributes = {"exclusive": b.choose.whole(0, 1), "reverse": b.choose.whole(0, 1)}
    near = b.g.op("Mul", x.name, b.g.weight([1 / x.size]))
    b.add(b.g.op("CumSum", near, b.g.weight(-1, "int64"), **attributes), x.size)


def apply_place(b: Growing) -> None:
    """What the place of the largest, or the k largest, says; of exact tensors alone, whose order rounding cannot change."""
    g, x = b.g, b.any(exact=True)
    kind = b.choose.pick(["embed", "top", "hot"])
    if kind == "top":
        k = min(3, x.size)
        values, _ = g.op_many("TopK", x.name, g.ints(k), names=[g.fresh(), g.fresh()], axis=1)
        b.add(values, k, exact=True)
        return
    at = g.op(b.choose.pick(["ArgMax", "ArgMin"]), x.name, axis=1, keepdims=0)
    if kind == "embed":
        b.add(g.op("Gather", g.noise(x.size, 4), at), 4)
    else:
        b.add(g.op("OneHot", at, g.weight(x.size, "int64"), g.weight([0.0, 1.0])), x.size, exact=True)


def apply_tile(b: Growing) -> None:
    x = b.any()
    if x.size < 40:
        b.add(b.g.op("Tile", x.name, b.g.ints(1, 2)), 2 * x.size, x.exact)


def apply_whole(b: Growing) -> None:
    """Whole numbers divided, by either sign; eighths become whole and come back."""
    g, x = b.g, b.any(exact=True)
    numbers = g.op("Cast", g.op("Mul", x.name, g.weight([8.0])), to=TensorProto.INT64)
    kind, divisor = b.choose.pick(["Div", "Mod"]), b.choose.pick([-5, -3, 2, 7])
    back = g.op("Cast", g.op(kind, numbers, g.ints(divisor)), to=TensorProto.FLOAT)
    b.add(g.op("Mul", back, g.weight([0.125])), x.size, exact=True)


def apply_size(b: Growing) -> None:
    x = b.any()
    near = b.g.op("Add", x.name, b.g.weight(np.linspace(0.5, 1, x.size)))
    b.add(b.g.op(b.choose.pick(["ReduceL2", "ReduceLogSumExp"]), near, axes=[1]), 1)


WIDER: list[Callable[[Growing], None]] = [apply_matmul, apply_angle, apply_power, apply_window, apply_scan, apply_place]
WIDER += [apply_tile, apply_whole, apply_size]


@st.composite
def wide_step_graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Artifact:
    """A group of states, and 5 to 9 operators of which two in three are of the wider set."""
    choose, seed = Drawn(draw), draw(st.integers(0, 2**16))
    b = Growing(choose, seed, 1, 1)
    add_inputs(b)
    choose.pick(STATES)(b)
    for _ in range(choose.whole(5, 9)):
        choose.pick([*WIDER, *WIDER, *OPERATORS])(b)
    add_outputs(b)
    return b.g.artifact()
