"""The oracle against ONNX Runtime, operator by operator: that is what makes it an oracle."""

import math
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from undertow.engine.artifact import Artifact

from .graphs import frames, random_graph, step_graphs
from .naive import NaiveEngine, run_graph, run_node
from .step_graph import lookahead_step, lstm_step

R = np.random.default_rng(7)
F = np.float32


def normal(*shape: int) -> np.ndarray:
    return R.normal(size=shape).astype(F)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + F(0.25)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def against_ort(kind: str, inputs: list[Any], outputs: int = 1, opset: int = 17, **attributes: Any) -> None:
    """One node in both: arrays in, the same arrays out."""
    arrays = {f"i{n}": a for n, a in enumerate(inputs) if a is not None}
    names = [f"i{n}" if a is not None else "" for n, a in enumerate(inputs)]
    node = helper.make_node(kind, names, [f"o{n}" for n in range(outputs)], **attributes)
    results = [helper.make_empty_tensor_value_info(f"o{n}") for n in range(outputs)]
    given = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in arrays.items()
    ]
    graph = helper.make_graph([node], "one", given, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wide = [None if a is None else a.astype(np.float64) if a.dtype.kind == "f" else a for a in inputs]
    for ours, theirs in zip(run_node(node, wide), session.run(None, arrays), strict=False):
        assert ours.shape == theirs.shape
        assert (ours.dtype == theirs.dtype) or (ours.dtype == np.float64 and theirs.dtype.kind == "f")
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


UNARY = [
    "Neg",
    "Abs",
    "Exp",
    "Sqrt",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "Erf",
    "Relu",
    "LeakyRelu",
    "Elu",
    "Selu",
    "Celu",
    "Tanh",
    "Sigmoid",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Softmax",
    "LogSoftmax",
    "ThresholdedRelu",
    "Identity",
    "Log",
    "Clip",
    "Flatten",
    "Transpose",
    "Mish",
    "Gelu",
]


@pytest.mark.parametrize("kind", UNARY)
def test_one_input(kind: str) -> None:
    """Every operator of one float input, with its default attributes."""
    x = positive(3, 5) if kind in ("Sqrt", "Log", "Reciprocal") else normal(3, 5) * 3
    against_ort(kind, [x], opset={"Mish": 18, "Gelu": 20}.get(kind, 17))


ATTRIBUTES = [
    ("LeakyRelu", {"alpha": 0.3}),
    ("Elu", {"alpha": 0.7}),
    ("Selu", {"alpha": 0.7, "gamma": 1.4}),
    ("Celu", {"alpha": 0.4}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("ThresholdedRelu", {"alpha": 0.6}),
    ("Softmax", {"axis": 1}),
    ("LogSoftmax", {"axis": 0}),
    ("Flatten", {"axis": 2}),
    ("Flatten", {"axis": -1}),
    ("Flatten", {"axis": 0}),
    ("Transpose", {"perm": [2, 0, 1]}),
    ("Gelu", {"approximate": "tanh", "opset": 20}),
    ("Cast", {"to": TensorProto.INT64}),
    ("Cast", {"to": TensorProto.BOOL}),
    ("Cast", {"to": TensorProto.FLOAT16}),
    ("Split", {"axis": 1, "outputs": 3, "num_outputs": 3, "opset": 18}),
    ("Split", {"axis": -1, "outputs": 2}),
    ("ReduceSum", {"keepdims": 0}),
    ("ReduceSum", {"noop_with_empty_axes": 1}),
    ("ReduceMean", {"axes": [1, -1]}),
    ("ReduceMax", {"axes": [-1], "keepdims": 0}),
    ("ReduceMin", {"axes": [1]}),
    ("ReduceProd", {"axes": [0, 2]}),
]


@pytest.mark.parametrize(("kind", "attributes"), ATTRIBUTES)
def test_attributes(kind: str, attributes: dict[str, Any]) -> None:
    """Operators of one input with other attributes than the default."""
    against_ort(kind, [normal(2, 5, 4) * 2], **attributes)


TWO = [
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Max",
    "Min",
    "Sum",
    "Mean",
    "PRelu",
    "Less",
    "Greater",
    "LessOrEqual",
    "GreaterOrEqual",
    "MatMul",
]


@pytest.mark.parametrize("kind", TWO)
def test_two_inputs(kind: str) -> None:
    """Every operator of two floats, broadcast where it allows."""
    if kind == "MatMul":
        for a, b in [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((2, 3, 4), (2, 4, 1)), ((3, 4), (4,))]:
            against_ort(kind, [normal(*a), normal(*b)])
        return
    shapes = [((2, 3, 4), (4,)), ((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1))]
    for a, b in [*shapes, *([] if kind == "PRelu" else [((1, 4), (2, 3, 1)), ((), (3,))])]:
        against_ort(kind, [normal(*a), normal(*b)])


def test_integers_and_booleans() -> None:
    """Integer arithmetic truncates and wraps as in C; logic and comparison give booleans."""
    a, b = ints(-7, 7, -8, 9, 2**62), ints(2, -2, 4, 4, 3)
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "Greater"):
        against_ort(kind, [a, b])
    for kind in ("Neg", "Abs", "Sign"):
        against_ort(kind, [a])
    against_ort("Pow", [ints(2, 3, -2), ints(5, 2, 3)])
    against_ort("Pow", [positive(3), ints(2, 0, 3)])
    against_ort("Equal", [normal(2, 1).round(), normal(3).round()])
    p, q = np.array([True, True, False, False]), np.array([True, False, True, False])
    for kind in ("And", "Or"):
        against_ort(kind, [p, q])
    against_ort("Not", [p])
    against_ort("Cast", [p], to=TensorProto.FLOAT)
    against_ort("Cast", [a[:4]], to=TensorProto.FLOAT)
    against_ort("ReduceSum", [a[:4].reshape(2, 2).astype(np.int32), ints(1)])


def test_pow() -> None:
    """A positive base to any power, any base to a whole power."""
    against_ort("Pow", [positive(3, 4), normal(4)])
    against_ort("Pow", [normal(3, 4), np.array(2, F)])


@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(trans: tuple[int, int]) -> None:
    """alpha, beta, both transpositions, and every shape of C."""
    a, b = normal(3, 4), normal(4, 5)
    a, b = (a.T.copy() if trans[0] else a), (b.T.copy() if trans[1] else b)
    for c in (None, normal(5), normal(3, 1), normal(3, 5), np.array(2, F)):
        against_ort(
            "Gemm", [a, b, c] if c is not None else [a, b], alpha=0.5, beta=-1.5, transA=trans[0], transB=trans[1]
        )


def test_clip_and_where() -> None:
    """Clip takes either bound or both, as inputs; Where broadcasts all three."""
    x = normal(3, 4)
    for low, high in [(None, F(0.5)), (F(-0.2), None), (F(-0.3), F(0.1)), (F(0.3), F(0.1))]:
        against_ort("Clip", [x, None if low is None else np.array(low), None if high is None else np.array(high)])
    against_ort("Where", [normal(3, 1) > 0, normal(4), normal(3, 4)])


def test_layer_normalization() -> None:
    """Over the last axis or the last two, with bias and without."""
    x = normal(2, 3, 4)
    against_ort("LayerNormalization", [x, normal(4), normal(4)])
    against_ort("LayerNormalization", [x, normal(4)], epsilon=0.1)
    against_ort("LayerNormalization", [x, normal(3, 4), normal(3, 4)], outputs=3, axis=1)


def test_shapes() -> None:
    """Concat, Split, Slice with every sign of step and bounds beyond the axis, Reshape, Squeeze, Expand, Gather."""
    x = normal(2, 5, 4)
    against_ort("Concat", [x, normal(2, 1, 4), normal(2, 3, 4)], axis=-2)
    against_ort("Split", [x, ints(1, 3, 1)], outputs=3, axis=1)
    against_ort("Slice", [x, ints(1), ints(4), ints(1)])
    against_ort("Slice", [x, ints(-3, 0), ints(2**62, -1), ints(1, -1), ints(2, 1)])
    against_ort("Slice", [x, ints(-1), ints(-(2**62)), ints(1), ints(-2)])
    against_ort("Slice", [x, ints(99), ints(0), ints(2), ints(-1)])
    against_ort("Slice", [x, ints(3), ints(1), ints(1)])
    against_ort("Slice", [x, ints(0, 1), ints(1, 3)])
    against_ort("Reshape", [x, ints(0, -1)])
    against_ort("Reshape", [x, ints(5, 0, 2)[[0, 2, 2, 2]]])
    against_ort("Squeeze", [normal(1, 3, 1), ints(0)])
    against_ort("Squeeze", [normal(1, 3, 1)])
    against_ort("Unsqueeze", [x, ints(0, -1)])
    against_ort("Expand", [normal(3, 1), ints(2, 1, 4)])
    against_ort("Gather", [normal(7, 3), ints(6, -1, 0)])
    against_ort("Gather", [x, np.array([[1, 0], [3, 3]], np.int32)], axis=1)
    against_ort("Gather", [x, np.array(2, np.int64)], axis=-1)
    against_ort("ReduceSum", [x, ints(-1, 1)], keepdims=0)
    against_ort("ReduceMean", [x, ints(2)], opset=18)
    against_ort("ReduceMax", [x, ints(1)], opset=18, keepdims=0)


@pytest.mark.parametrize(
    ("x", "w", "attributes"),
    [
        ((2, 3, 9), (4, 3, 3), {}),
        ((2, 4, 9), (6, 2, 3), {"group": 2, "strides": [2], "pads": [1, 2]}),
        ((1, 3, 12), (3, 1, 3), {"group": 3, "dilations": [3]}),
        ((1, 2, 6, 5), (3, 2, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
        ((1, 2, 7, 6), (4, 1, 3, 2), {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((1, 2, 7), (4, 2, 4), {"auto_pad": "SAME_LOWER"}),
        ((1, 2, 7), (4, 2, 4), {"auto_pad": "VALID", "kernel_shape": [4]}),
    ],
)
def test_conv(x: tuple[int, ...], w: tuple[int, ...], attributes: dict[str, Any]) -> None:
    """One and two dimensions, groups, strides, dilations, explicit and automatic pads."""
    against_ort("Conv", [normal(*x), normal(*w), normal(w[0])], **attributes)
    against_ort("Conv", [normal(*x), normal(*w)], **attributes)


GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer_inputs(
    kind: str, steps: int, directions: int, bias: bool, initial: bool, peepholes: bool = False
) -> list[Any]:
    batch, size, hidden, gates = 2, 3, 5, GATES[kind]
    given: list[Any] = [
        normal(steps, batch, size),
        normal(directions, gates * hidden, size),
        normal(directions, gates * hidden, hidden),
    ]
    given += [normal(directions, 2 * gates * hidden) if bias else None, None]
    given += [normal(directions, batch, hidden) if initial else None for _ in range(2 if kind == "LSTM" else 1)]
    if peepholes:
        given.append(normal(directions, 3 * hidden))
    while given[-1] is None:
        given.pop()
    return given


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("steps", [1, 4])
def test_recurrent(kind: str, direction: str, steps: int) -> None:
    """Every direction, with and without bias and initial state, over one time step and over several."""
    directions = 2 if direction == "bidirectional" else 1
    for bias in (False, True):
        for initial in (False, True):
            given = layer_inputs(kind, steps, directions, bias, initial)
            against_ort(kind, given, 3 if kind == "LSTM" else 2, hidden_size=5, direction=direction)


ACTIVATIONS = [
    ("Affine", [0.5], [0.1]),
    ("Relu", [], []),
    ("LeakyRelu", [0.2], []),
    ("ThresholdedRelu", [0.3], []),
    ("ScaledTanh", [0.8], [0.6]),
    ("HardSigmoid", [0.25], [0.4]),
    ("Elu", [0.9], []),
    ("Softsign", [], []),
    ("Softplus", [], []),
    ("HardSigmoid", [], []),
    ("LeakyRelu", [], []),
    ("Elu", [], []),
]


@pytest.mark.parametrize(("name", "alpha", "beta"), ACTIVATIONS)
def test_recurrent_activations(name: str, alpha: list[float], beta: list[float]) -> None:
    """Each activation as the first and as the last of a layer's, with its alpha and beta or their defaults."""
    more: dict[str, Any] = ({"activation_alpha": alpha} if alpha else {}) | ({"activation_beta": beta} if beta else {})
    for kind, names in [
        ("LSTM", [name, "Tanh", "Sigmoid"]),
        ("LSTM", ["Sigmoid", "Tanh", name]),
        ("GRU", [name, "Tanh"]),
        ("GRU", ["Sigmoid", name]),
        ("RNN", [name]),
    ]:
        given = layer_inputs(kind, 2, 1, True, True)
        against_ort(kind, given, 3 if kind == "LSTM" else 2, hidden_size=5, activations=names, **more)


def test_recurrent_attributes() -> None:
    """clip, input_forget, peepholes, linear_before_reset, and different activations of the two directions."""
    for kind in GATES:
        against_ort(kind, layer_inputs(kind, 3, 1, True, True), 2, hidden_size=5, clip=0.4)
    against_ort("LSTM", layer_inputs("LSTM", 3, 2, True, True, True), 3, hidden_size=5, direction="bidirectional")
    against_ort("LSTM", layer_inputs("LSTM", 3, 1, False, True, True), 3, hidden_size=5, clip=0.7)
    against_ort("LSTM", layer_inputs("LSTM", 3, 1, True, True), 3, hidden_size=5, input_forget=1)
    for bias in (False, True):
        against_ort("GRU", layer_inputs("GRU", 3, 1, bias, True), 2, hidden_size=5, linear_before_reset=1)
    given = layer_inputs("GRU", 3, 2, True, True)
    names = ["HardSigmoid", "LeakyRelu", "Sigmoid", "LeakyRelu"]
    more = {"activations": names, "activation_alpha": [0.3, 0.1, 0.4], "activation_beta": [0.45]}
    against_ort("GRU", given, 2, hidden_size=5, direction="bidirectional", **more)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layout(kind: str) -> None:
    """layout=1 (which ONNX Runtime lacks) is layout=0 with the batch axis moved to the front of X, Y and the states."""
    given = [None if a is None else a.astype(np.float64) for a in layer_inputs(kind, 3, 2, True, True)]
    attributes: dict[str, Any] = {"hidden_size": 5, "direction": "bidirectional"}
    plain = run_node(helper.make_node(kind, [], [], **attributes), given)
    moved = [given[0].swapaxes(0, 1), *given[1:5], *(s.swapaxes(0, 1) for s in given[5:])]
    batch_first = run_node(helper.make_node(kind, [], [], layout=1, **attributes), moved)
    np.testing.assert_array_equal(batch_first[0], plain[0].transpose(2, 0, 1, 3))
    for ours, theirs in zip(batch_first[1:], plain[1:], strict=True):
        np.testing.assert_array_equal(ours, theirs.swapaxes(0, 1))


def test_constant() -> None:
    """A Constant's value may be a tensor, a number or a list."""
    tensor = numpy_helper.from_array(normal(2, 2))
    for attributes in ({"value": tensor}, {"value_float": 0.5}, {"value_ints": [1, 2]}, {"value_int": 3}):
        against_ort("Constant", [], **attributes)


def test_lookahead_is_exact_at_both_ends() -> None:
    """The oracle's delay and flush: every frame has its row, first and last included, however few frames there are."""
    for k in (1, 2, 3):
        naive = NaiveEngine(lookahead_step(delay=2, size=1, frames_per_step=k))
        for n in range(8):
            x = R.normal(size=(n, 1)).astype(F)
            expected = [x[t] + 10 * (x[t + 1 : t + 3].mean(axis=0) if t + 1 < n else 0) for t in range(n)]
            got = naive.run(x)
            assert got.shape == (n, 1)
            np.testing.assert_allclose(got, np.array(expected).reshape(n, 1), rtol=1e-5, atol=1e-6)


def test_cutting_does_not_matter() -> None:
    """The oracle itself keeps the promise that it judges: chunks of any size give what the whole sequence gives."""
    naive = NaiveEngine(lstm_step(3, 4))
    x = normal(9, 3)
    whole = naive.run(x)
    parts = [naive.push("a", x[:2]), naive.push("a", x[2:2]), naive.push("a", x[2:]), naive.close("a")]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@given(step_graphs(), st.integers(1, 3))
def test_drawn_graphs(artifact: Artifact, batch: int) -> None:
    """Whole random step graphs over three steps of a batch: node by node in NumPy gives what ONNX Runtime gives."""
    three_steps(artifact, batch)


@pytest.mark.parametrize("seed", range(100))
def test_seeded_graphs(seed: int) -> None:
    """The same, of the graphs that the engine's tests use: these differ more from each other."""
    three_steps(random_graph(seed), 2)


def three_steps(artifact: Artifact, batch: int) -> None:
    spec = artifact.spec
    session = ort.InferenceSession(artifact.model.SerializeToString(), providers=["CPUExecutionProvider"])
    states = {s.name: np.stack([s.initial_value()] * batch) for s in spec.states}
    for step in range(3):
        lead = (batch, spec.frames_per_step) if spec.frames_per_step > 1 else (batch,)
        flat = frames(spec, math.prod(lead), seed=step)
        feeds = {name: a.reshape(*lead, *a.shape[1:]) for name, a in flat.items()} | states
        names = [v.name for v in artifact.model.graph.output]
        theirs = dict(zip(names, session.run(names, feeds), strict=True))
        for name, value in run_graph(artifact.model, feeds).items():
            np.testing.assert_allclose(value, theirs[name], rtol=2e-4, atol=2e-5, err_msg=name)
        states = {s.name: theirs[s.next] for s in spec.states}
