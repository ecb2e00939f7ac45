"""Operators of both backends against the oracle: many to a graph, as compiling a graph costs seconds."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.errors import BackendError

from .checks import assert_close
from .graphs import bare, frames
from .naive import NaiveEngine
from .step_graph import StepGraph

BACKENDS = ["numba", "ort"]
Build = Callable[[], Artifact]


def unary() -> Artifact:
    """Functions of one float, of a state that follows the frames, and of the frame itself."""
    g = StepGraph(opset=20)
    x, h = g.input("x", (7,)), g.state("h", (7,), initial=0.25)
    g.next("h", g.op("Tanh", g.op("Add", g.op("Mul", h, g.weight([0.5])), x)))
    kinds = ["Neg", "Abs", "Exp", "Erf", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Tanh", "Sigmoid", "HardSigmoid"]
    kinds += ["HardSwish", "Softplus", "Softsign", "Gelu", "Mish", "ThresholdedRelu", "Floor", "Ceil", "Round", "Sign"]
    for kind in kinds:
        g.output(f"y_{kind}", g.op(kind, x), (7,))
        if kind not in ("Floor", "Ceil", "Round", "Sign", "ThresholdedRelu"):
            g.output(f"h_{kind}", g.op(kind, h), (7,))
    above = g.op("Add", g.op("Abs", x), g.weight([0.5]))
    for kind in ("Log", "Sqrt", "Reciprocal"):
        g.output(f"y_{kind}", g.op(kind, above), (7,))
    return g.artifact()


def attributes() -> Artifact:
    """The same with attributes of their own, and reductions and norms."""
    g = StepGraph(opset=20)
    x, h = g.input("x", (3, 5)), g.state("h", (3, 5))
    g.next("h", x)
    given: list[tuple[str, dict[str, Any]]] = [
        ("LeakyRelu", {"alpha": 0.3}),
        ("Elu", {"alpha": 0.6}),
        ("Selu", {"alpha": 0.6, "gamma": 1.3}),
        ("Celu", {"alpha": 0.4}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("ThresholdedRelu", {"alpha": 0.55}),
        ("Gelu", {"approximate": "tanh"}),
        ("Softmax", {}),
    ]
    for i, (kind, more) in enumerate(given):
        g.output(f"y{i}", g.op(kind, x, **more), (3, 5))
    for kind in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"):
        g.output(f"{kind}_last", g.op(kind, x, g.ints(-1), keepdims=0), (3,))
        g.output(f"{kind}_first", g.op(kind, h, g.ints(1)), (1, 5))
        g.output(f"{kind}_both", g.op(kind, x, g.ints(1, 2), keepdims=0), ())
    g.output("norm", g.op("LayerNormalization", x, g.noise(5), g.noise(5), epsilon=1e-3), (3, 5))
    g.output("norm2", g.op("LayerNormalization", x, g.noise(3, 5), axis=1), (3, 5))
    g.output("prelu", g.op("PRelu", x, g.noise(5)), (3, 5))
    g.output("prelu1", g.op("PRelu", x, g.noise(3, 1)), (3, 5))
    g.output("clip", g.op("Clip", x, g.weight(-0.5), g.weight(0.75)), (3, 5))
    g.output("clip_low", g.op("Clip", x, g.weight(-0.5)), (3, 5))
    g.output("clip_high", g.op("Clip", x, "", g.weight(0.5)), (3, 5))
    return g.artifact()


def arithmetic() -> Artifact:
    """Two and more inputs, broadcast in every way that a batch allows; integers; logic."""
    g = StepGraph()
    x, u, n = g.input("x", (3, 4)), g.input("u", (4,)), g.input("n", (4,), "int64")
    h, i = g.state("h", (3, 1), initial=0.5), g.state("i", (), "int64", initial=-7)
    g.next("h", g.op("ReduceMax", x, axes=[2]))
    g.next("i", g.op("Add", i, g.weight(2, "int64")))
    row = g.op("Unsqueeze", u, g.ints(1))
    for kind in ("Add", "Sub", "Mul", "Max", "Min"):
        g.output(f"{kind}_row", g.op(kind, x, row), (3, 4))
        g.output(f"{kind}_column", g.op(kind, h, x), (3, 4))
        g.output(f"{kind}_outer", g.op(kind, h, row), (3, 4))
        g.output(f"{kind}_weight", g.op(kind, g.noise(3, 4), x), (3, 4))
        g.output(f"{kind}_number", g.op(kind, u, g.weight(0.5)), (4,))
    g.output("three", g.op("Max", x, row, h), (3, 4))
    away = g.op("Add", g.op("Abs", row), g.weight([0.5]))
    g.output("div", g.op("Div", x, away), (3, 4))
    g.output("square", g.op("Pow", x, g.weight(2.0)), (3, 4))
    g.output("cube", g.op("Pow", x, g.weight(3, "int64")), (3, 4))
    for kind in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"):
        g.output(f"{kind}", g.op(kind, x, row), (3, 4), "bool")
    low, high = g.op("Less", u, g.weight([0.5])), g.op("Greater", u, g.weight([-0.5]))
    for kind in ("And", "Or"):
        g.output(kind, g.op(kind, low, high), (4,), "bool")
    g.output("not", g.op("Not", low), (4,), "bool")
    g.output("where", g.op("Where", g.op("Less", x, row), h, row), (3, 4))
    seven = g.op("Sub", g.op("Mul", n, g.ints(3)), g.ints(7))
    for kind, other in [("Add", 1), ("Max", 5), ("Min", 0), ("Equal", 8)]:
        g.output(f"int_{kind}_{other}", g.op(kind, seven, g.ints(other)), (4,), "bool" if kind == "Equal" else "int64")
    for kind in ("Neg", "Abs"):
        g.output(f"int_{kind}", g.op(kind, seven), (4,), "int64")
    g.output("float", g.op("Cast", seven, to=TensorProto.FLOAT), (4,))
    g.output("whole", g.op("Cast", x, to=TensorProto.INT32), (3, 4), "int32")
    g.output("truth", g.op("Cast", seven, to=TensorProto.BOOL), (4,), "bool")
    g.output("bit", g.op("Cast", low, to=TensorProto.FLOAT), (4,))
    g.output("counter", i, (), "int64")
    return g.artifact()


def matrices() -> Artifact:
    """Gemm and MatMul: alpha, beta, every C, odd sizes, matrices of frames."""
    g = StepGraph()
    x, m, big = g.input("x", (5,)), g.input("m", (3, 4)), g.state("big", (67,), initial=0.125)
    w = g.noise(67, 5)
    grown = g.op("Gemm", x, w, g.noise(67), alpha=0.5, beta=1.5, transB=1)
    g.next("big", g.op("Tanh", g.op("Add", grown, g.op("MatMul", big, g.noise(67, 67, scale=0.1)))))
    g.output("gemm", grown, (67,))
    g.output("gemm_plain", g.op("Gemm", x, g.noise(5, 1)), (1,))
    g.output("gemm_number", g.op("Gemm", x, g.noise(5, 19), g.weight(0.5), beta=-2.0), (19,))
    g.output("gemm_row", g.op("Gemm", x, g.noise(5, 33), g.noise(1, 33)), (33,))
    g.output("matmul", g.op("MatMul", big, g.noise(67, 2)), (2,))
    g.output("matmul_rows", g.op("MatMul", m, g.noise(4, 6)), (3, 6))
    return g.artifact()


def shapes() -> Artifact:
    """Concat, Split, Slice, Reshape, Squeeze, Unsqueeze, Transpose, Flatten, Expand, Gather, Identity."""
    g = StepGraph(opset=18)
    x, h = g.input("x", (2, 3, 4)), g.state("h", (2, 3, 4), initial=np.arange(24.0).reshape(2, 3, 4))
    index, letter = g.input("index", (2,), "int64"), g.input("letter", (), "int32")
    g.next("h", g.op("Slice", g.op("Concat", h, x, axis=2), g.ints(3), g.ints(6), g.ints(2)))
    for axis, shape in [(1, (4, 3, 4)), (-2, (2, 6, 4)), (3, (2, 3, 8))]:
        g.output(f"concat{axis}", g.op("Concat", h, x, axis=axis), shape)
    for i, name in enumerate(g.op_many("Split", x, g.ints(1, 2), names=["s0", "s1"], axis=2)):
        g.output(f"split{i}", name, (2, i + 1, 4))
    for i, name in enumerate(g.op_many("Split", x, names=["e0", "e1"], axis=-1, num_outputs=2)):
        g.output(f"even{i}", name, (2, 3, [2, 2][i]))
    g.output("slice", g.op("Slice", x, g.ints(1, -3), g.ints(2**62, -1), g.ints(2, 3)), (2, 2, 2))
    g.output(
        "slice_back", g.op("Slice", x, g.ints(-1, 2), g.ints(-(2**62), 0), g.ints(3, 2), g.ints(-2, -1)), (2, 2, 2)
    )
    g.output("slice_step", g.op("Slice", h, g.ints(0), g.ints(99), g.ints(-1), g.ints(3)), (2, 3, 2))
    g.output("reshape", g.op("Reshape", x, g.ints(0, -1, 2)), (12, 2))
    g.output("reshape_free", g.op("Reshape", x, g.ints(-1, 24)), (24,))
    g.output("flatten", g.op("Flatten", h), (24,))
    g.output("squeeze", g.op("Squeeze", g.op("Unsqueeze", x, g.ints(1, -1)), g.ints(-1)), (1, 2, 3, 4))
    for perm in itertools.permutations((1, 2, 3)):
        shape = tuple((2, 3, 4)[p - 1] for p in perm)
        g.output("t" + "".join(map(str, perm)), g.op("Transpose", x, perm=[0, *perm]), shape)
    g.output("expand", g.op("Expand", g.op("Unsqueeze", x, g.ints(3)), g.ints(1, 1, 1, 5, 1)), (2, 3, 5, 4))
    g.output("embed", g.op("Gather", g.noise(11, 5), index), (2, 5))
    g.output("embed_one", g.op("Gather", g.noise(11, 3), letter), (3,))
    return g.artifact()


def convolutions() -> Artifact:
    """Over a buffered window: groups, strides, dilations, pads."""
    g = StepGraph()
    x = g.input("x", (4, 3))
    h = g.state("h", (4, 6), initial=np.arange(24.0).reshape(4, 6) / 24)
    window = g.op("Concat", h, x, axis=2)
    g.next("h", g.op("Slice", window, g.ints(3), g.ints(9), g.ints(2)))
    g.output("plain", g.op("Conv", window, g.noise(5, 4, 3), g.noise(5)), (5, 7))
    g.output("whole", g.op("Conv", window, g.noise(2, 4, 9)), (2, 1))
    g.output("stride", g.op("Conv", window, g.noise(17, 4, 3), strides=[2], pads=[1, 2]), (17, 5))
    g.output("group", g.op("Conv", window, g.noise(6, 2, 2), g.noise(6), group=2, dilations=[3]), (6, 6))
    g.output("depth", g.op("Conv", window, g.noise(8, 1, 4), group=4), (8, 6))
    g.output("point", g.op("Conv", x, g.noise(3, 4, 1)), (3, 3))
    return g.artifact()


def raw_layer(g: StepGraph, kind: str, x: str, size: int, n: int, tag: str, **more: Any) -> None:
    """A layer with inputs of the operator's own rank; more: attributes, and which optional inputs it has."""
    directions = 2 if more.get("direction") == "bidirectional" else 1
    gates, letters = {"LSTM": (4, "hc"), "GRU": (3, "h"), "RNN": (1, "h")}[kind]
    bias, stateful, peepholes = more.pop("bias", True), more.pop("stateful", True), more.pop("peepholes", False)
    layout = more.get("layout", 0)
    weights = [g.noise(directions, gates * n, size, scale=0.4), g.noise(directions, gates * n, n, scale=0.4)]
    given = [
        g.op("Unsqueeze", x, g.ints(layout)),
        *weights,
        g.noise(directions, 2 * gates * n, scale=0.2) if bias else "",
        "",
    ]
    states = [g.state(f"{letter}_{tag}", (directions, n), initial=0.25) for letter in letters] if stateful else []
    moved = states if layout else [g.op("Transpose", s, perm=[1, 0, 2]) for s in states]
    given += moved or [""] * len(letters)
    given += [g.noise(directions, 3 * n)] if peepholes else []
    while not given[-1]:
        given.pop()
    names = [f"{tag}_y", *(f"{tag}_{letter}" for letter in letters)]
    y, *after = g.op_many(kind, *given, names=names, hidden_size=n, **more)
    flat = g.op("Flatten", after[0] if layout else g.op("Transpose", after[0], perm=[1, 0, 2]))
    for state, value in zip(states, after, strict=False):
        g.next(state, value if layout else g.op("Transpose", value, perm=[1, 0, 2]))
    g.output(
        f"out_{tag}", g.op("Reshape", y, g.ints(-1, directions * n)) if directions == 1 else flat, (directions * n,)
    )


VARIANTS: dict[str, list[dict[str, Any]]] = {
    "LSTM": [
        {
            "direction": "bidirectional",
            "activations": ["HardSigmoid", "Softsign", "Elu", "Sigmoid", "Affine", "ScaledTanh"],
            "activation_alpha": [0.3, 0.9, 0.8, 0.7],
            "activation_beta": [0.4, 0.1, 0.6],
        },
        {"peepholes": True, "clip": 0.4},
        {"input_forget": 1, "bias": False, "direction": "reverse"},
        {"stateful": False, "activations": ["HardSigmoid", "Relu", "Tanh"]},
    ],
    "GRU": [
        {
            "direction": "bidirectional",
            "linear_before_reset": 1,
            "clip": 0.5,
            "activations": ["HardSigmoid", "Softsign", "Sigmoid", "LeakyRelu"],
        },
        {"bias": False},
        {"stateful": False, "direction": "reverse", "linear_before_reset": 1},
    ],
    "RNN": [
        {"direction": "bidirectional", "activations": ["Softplus", "ThresholdedRelu"], "activation_alpha": [0.1]},
        {"clip": 0.3, "bias": False},
        {"stateful": False, "activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]},
        {"direction": "reverse", "activations": ["Elu"]},
    ],
}


def layers(kind: str) -> Artifact:
    """Every attribute of one kind of recurrent layer."""
    g = StepGraph()
    x = g.input("x", (5,))
    for i, (n, more) in enumerate(zip([3, 16, 1, 5], VARIANTS[kind], strict=False)):
        raw_layer(g, kind, x, 5, n, f"v{i}", **more)
    return g.artifact()


GRAPHS: dict[str, Build] = {
    "unary": unary,
    "attributes": attributes,
    "arithmetic": arithmetic,
    "matrices": matrices,
    "shapes": shapes,
    "convolutions": convolutions,
    "lstm": lambda: layers("LSTM"),
    "gru": lambda: layers("GRU"),
    "rnn": lambda: layers("RNN"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", GRAPHS)
def test_operators(name: str, backend: str) -> None:
    """Three streams of unequal lengths, stepped together, give what the oracle gives of each alone."""
    artifact = GRAPHS[name]()
    engine, naive = Engine(artifact, backend=backend, max_streams=8), NaiveEngine(artifact)
    chunks = {key: frames(artifact.spec, n, seed=n) for key, n in [("a", 5), ("b", 2), ("c", 7)]}
    outputs = engine.push_many({key: bare(artifact.spec, chunk) for key, chunk in chunks.items()})
    for key, chunk in chunks.items():
        assert_close(outputs[key], naive.push(key, chunk), f"{name} on {backend}, stream {key}:")
        assert_close(engine.state(key), naive.state(key), f"{name} on {backend}, state of {key}:")


def test_layout() -> None:
    """layout=1, which ONNX Runtime lacks, on the compiled backend."""
    g = StepGraph()
    x = g.input("x", (5,))
    for kind in ("LSTM", "GRU", "RNN"):
        raw_layer(g, kind, x, 5, 2, kind, layout=1)
    artifact = g.artifact()
    chunk = frames(artifact.spec, 4, seed=0)["x"]
    got = Engine(artifact, backend="numba", max_streams=2).push("a", chunk)
    assert_close(got, NaiveEngine(artifact).push("a", chunk))


def whole(g: StepGraph, x: str, kind: str, *more: str) -> str:
    numbers = g.op("Cast", g.op("Mul", x, g.weight([8.0])), to=TensorProto.INT64)
    return g.op("Cast", g.op(kind, numbers, *more), to=TensorProto.FLOAT)


BEYOND: dict[str, tuple[tuple[int, ...], Callable[[StepGraph, str], str]]] = {
    "Softmax, an axis inside": ((3, 5), lambda g, x: g.op("Softmax", x, axis=1)),
    "Sum": ((3, 5), lambda g, x: g.op("Sum", x, x, "h")),
    "Mean": ((3, 5), lambda g, x: g.op("Mean", x, "h")),
    "MatMul, weights first": ((2, 5), lambda g, x: g.op("MatMul", g.noise(2, 3), x)),
    "MatMul, two inputs": ((3, 3), lambda g, x: g.op("MatMul", x, g.op("Transpose", "h", perm=[0, 2, 1]))),
    "Gather, constant places": ((3, 3), lambda g, x: g.op("Gather", x, g.ints(3, 0, -1), axis=2)),
    "Gather, one place": ((5,), lambda g, x: g.op("Gather", x, g.weight(-1, "int64"), axis=1)),
    "Conv, padded by itself": ((2, 5), lambda g, x: g.op("Conv", x, g.noise(2, 3, 4), auto_pad="SAME_LOWER")),
    "Conv, two axes": (
        (4, 3, 4),
        lambda g, x: g.op("Conv", g.op("Unsqueeze", x, g.ints(1)), g.noise(4, 1, 2, 3), pads=[1, 1, 0, 0]),
    ),
    "MatMul, a vector": ((3,), lambda g, x: g.op("MatMul", x, g.noise(5))),
    "Div of whole numbers": ((3, 5), lambda g, x: whole(g, x, "Div", g.ints(-3))),
    "Sign of whole numbers": ((3, 5), lambda g, x: whole(g, x, "Sign")),
    "Pow, an exponent for each": (
        (3, 5),
        lambda g, x: g.op("Pow", g.op("Add", g.op("Abs", x), g.weight([0.5])), g.noise(5)),
    ),
    "Pow, computed exponents": ((3, 5), lambda g, x: g.op("Pow", g.op("Exp", "h"), x)),
    "Einsum, a sum of one term": ((3,), lambda g, x: g.op("Einsum", x, equation="bij->bi")),
    "ReduceProd": ((3,), lambda g, x: g.op("ReduceProd", x, axes=[2], keepdims=0)),
}


def compiled(artifact: Artifact) -> tuple[Engine | None, str]:
    """The engine, or why there is none."""
    try:
        return Engine(artifact, backend="numba", max_streams=2), ""
    except BackendError as error:
        return None, str(error)


@pytest.mark.parametrize("name", BEYOND)
def test_rarer_operators(name: str) -> None:
    """What the compiler does not know it refuses with the node and a remedy, and `auto` runs on ONNX Runtime then."""
    shape, build = BEYOND[name]
    g = StepGraph()
    x = g.input("x", (3, 5))
    g.next(g.state("h", (3, 5), initial=0.5), x)
    g.output("y", build(g, x), shape)
    artifact = g.artifact()
    engine, refusal = compiled(artifact)
    if engine is None:
        assert re.search(r"node '\w+' \(\w+\): .*use backend='ort' or 'auto'", refusal)
        engine = Engine(artifact, backend="auto", max_streams=2)
        assert engine.backend == "ort"
    chunk = frames(artifact.spec, 3, seed=5)["x"]
    assert_close(engine.push("a", chunk), NaiveEngine(artifact).push("a", chunk), name)
