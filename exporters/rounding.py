"""How far rounding alone moves a model's outputs: what two correct programs for it may differ by.

Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 3: a sum of n products, in any order, is the exact sum
for one factor changed by relative errors of at most gamma_n = n u / (1 - n u), u the unit roundoff (2**-24 in float32).
So the step graph is run with exactly such errors put in, drawn at random: each sum of n terms has a factor changed by
gamma_n, each other result that rounds is changed by gamma of its operation, at every step anew, and what that does to the
outputs is measured. It is Monte Carlo arithmetic (Parker, 1997) with Higham's bounds. Nothing is guessed about the model:
how many terms it sums, how it amplifies errors and for how long its states remember them is in what is measured.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..engine.artifact import Artifact
from .sequences import Sequence
from .stepping import Begins, Outputs, stepped_together
from .worlds import plain_session, value_free

DRAWS = 3
_FUNCTION_TERMS = 8  # exp, tanh and their like are not correctly rounded: 4 ulp, 8 u, in the libraries in use
_BASIC_TERMS = 2  # one operation of two operands, perhaps fused with the next
_FLOATS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}
_EXACT = frozenset(
    [
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Slice",
        "Split",
        "Concat",
        "Gather",
        "GatherElements",
        "GatherND",
        "Where",
        "Relu",
        "Abs",
        "Neg",
        "Max",
        "Min",
        "Clip",
        "Expand",
        "Pad",
        "Tile",
        "Constant",
        "ConstantOfShape",
        "MaxPool",
        "GlobalMaxPool",
        "ReduceMax",
        "ReduceMin",
        "Ceil",
        "Floor",
        "Round",
        "Sign",
        "Range",
        "TopK",
        "ScatterElements",
        "ScatterND",
        "Scatter",
        "OneHot",
        "Trilu",
        "DepthToSpace",
        "SpaceToDepth",
        "DequantizeLinear",
        "Dropout",
        "EyeLike",
    ]
)
_SUMS = frozenset(["AveragePool", "GlobalAveragePool", "LpPool", "GlobalLpPool"])
_SUMS_OF_ALL = frozenset(["CumSum", "DFT", "InstanceNormalization", "GroupNormalization", "LpNormalization"])
_BASIC = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Sqrt",
        "Reciprocal",
        "LeakyRelu",
        "PRelu",
        "HardSigmoid",
        "HardSwish",
        "Sum",
        "Mean",
        "BatchNormalization",
    ]
)


def unit_roundoff(dtype: Any) -> float:
    """u: half the distance from 1 to the next number."""
    return float(np.finfo(dtype).eps) / 2


def gamma(terms: int, u: float) -> float:
    """Higham's gamma_n; 1 where n u is so large that nothing is known."""
    return min(1.0, terms * u / (1 - terms * u)) if terms * u < 1 else 1.0


def movements(artifact: Artifact, sequences: list[Sequence], steady: Outputs) -> dict[str, float]:
    """For each output the furthest that it moved when the step graph was run with rounding errors put in.

    steady: what the step graph gives without them. A draw that makes a sequence's output infinite, or finite, says nothing of how
    far, and is left out: errors are independent here, so that x - x may be below 0 under a root, as in real rounding it never is.
    """
    noise = Noise(artifact, sequences)
    return furthest_moves((noise.outputs(draw, sequences) for draw in range(DRAWS)), steady)


def furthest_moves(draws: Iterable[Outputs], steady: Outputs) -> dict[str, float]:
    """For each output the furthest that any draw is from the steady one, where that is finite."""
    worst = dict.fromkeys(steady[0], 0.0)
    for moved in draws:
        for one, other in zip(moved, steady, strict=True):
            for name, value in one.items():
                far = furthest(value, other[name]) if value.dtype.kind == "f" else 0.0
                worst[name] = max(worst[name], far if math.isfinite(far) else 0.0)
    return worst


def furthest(given: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference; infinite where shapes or non-finite values differ."""
    if given.shape != expected.shape:
        return math.inf
    g, e = given.astype(np.float64), expected.astype(np.float64)
    differs = ~((g == e) | (np.isnan(g) & np.isnan(e)))
    worst = np.abs(g[differs] - e[differs]).max(initial=0.0)
    return float(worst) if np.isfinite(worst) else math.inf


def _whole_feed(artifact: Artifact, sequences: list[Sequence]) -> dict[str, np.ndarray]:
    spec, longest = artifact.spec, max(sequences, key=lambda s: len(next(iter(s.values()))))
    feed = {name: array[None] for name, array in longest.items()}
    if spec.lengths_input:
        feed[spec.lengths_input] = np.array([len(next(iter(longest.values())))], np.int64)
    return feed


class Noise:
    """Makes the step graph with errors put in. begins: states that sequences begin with, see `stepping`."""

    def __init__(self, artifact: Artifact, sequences: list[Sequence], begins: Begins | None = None):
        self.artifact, self.whole, graph = artifact, artifact.model, artifact.model.graph
        self.free = value_free(graph)
        self.arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.kinds: dict[str, int] = {}
        self.shapes = {name: array.shape for name, array in self.arrays.items()} | self._measure(
            artifact, sequences, begins
        )

    def outputs(self, draw: int, sequences: list[Sequence], begins: Begins | None = None) -> Outputs:
        """What the graph of one draw gives for the sequences."""
        return stepped_together(dataclasses.replace(self.artifact, model=self.model(draw)), sequences, begins)

    def _measure(
        self, artifact: Artifact, sequences: list[Sequence], begins: Begins | None
    ) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape in a batch of one, as it is on the first step, or for the longest sequence of a graph of whole ones."""
        watched = onnx.ModelProto()
        watched.CopyFrom(self.whole)
        names = [name for node in self.whole.graph.node for name in node.output if name]
        del watched.graph.output[:]
        watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        feed = (
            _whole_feed(artifact, sequences)
            if artifact.spec.sequence
            else self._first_feed(artifact, sequences, begins)
        )
        values = [np.asarray(v) for v in plain_session(watched).run(names, feed)]
        known = {**feed, **self.arrays, **dict(zip(names, values, strict=True))}
        numbers = {np.dtype(dtype): int(number) for number, dtype in _FLOATS.items()}
        self.kinds = {name: numbers[a.dtype] for name, a in known.items() if a.dtype in numbers}
        return {name: a.shape for name, a in known.items()}

    @staticmethod
    def _first_feed(artifact: Artifact, sequences: list[Sequence], begins: Begins | None) -> dict[str, np.ndarray]:
        spec, steps, first = artifact.spec, artifact.spec.frames_per_step, next(iter(begins or [{}]))
        feed = {s.name: first.get(s.name, s.initial_value())[None] for s in spec.states}
        for tensor in spec.inputs:
            frames = np.zeros((1, steps, *tensor.shape), tensor.dtype)
            given = next((s[tensor.name] for s in sequences if len(s[tensor.name])), frames[0])[:steps]
            frames[0, : len(given)] = given
            feed[tensor.name] = frames if steps > 1 else frames[:, 0]
        if spec.valid_input:
            feed[spec.valid_input] = np.array([steps], np.int64)
        return feed

    def model(self, draw: int) -> onnx.ModelProto:
        """The step graph with the errors of one draw; the same ones every time."""
        rng = np.random.default_rng(draw)
        made = onnx.ModelProto()
        made.CopyFrom(self.whole)
        del made.graph.node[:]
        changes = _Changes(self, draw, rng)
        for node in self.whole.graph.node:
            made.graph.node.extend(changes.around(node))
        made.graph.initializer.extend(changes.arrays)
        return made

    def terms(self, node: onnx.NodeProto) -> dict[int, int]:
        """Inputs of a node that sums, each with how many terms go into one result."""
        given = [self.shapes.get(name, ()) for name in node.input]
        size = [math.prod(shape) for shape in given]
        if node.op_type == "MatMul":
            return {1: given[0][-1]}
        if node.op_type == "Gemm":
            return {1: size[0] // max(1, math.prod(self.shapes[node.output[0]][:1]))}
        if node.op_type == "Conv":
            return {1: math.prod(given[1][1:])}
        if node.op_type == "ConvTranspose":
            return {1: size[1] // max(1, given[1][1])}
        if node.op_type in ("LSTM", "GRU", "RNN"):
            return dict.fromkeys((1, 2), given[1][2] + given[2][2])
        if node.op_type == "Einsum":
            return {len(given) - 1: max(size)}
        if node.op_type in ("Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization"):
            axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
            return {0: math.prod(given[0][axis:][: 1 if "Softmax" in node.op_type else None])}
        if node.op_type in _SUMS or (node.op_type.startswith("Reduce") and node.op_type not in _EXACT):
            return {0: size[0] // max(1, math.prod(self.shapes[node.output[0]])) or 1}
        return {0: size[0]} if node.op_type in _SUMS_OF_ALL else {}


class _Changes:
    """The nodes of one draw."""

    def __init__(self, noise: Noise, draw: int, rng: np.random.Generator):
        self.noise, self.draw, self.rng = noise, draw, rng
        self.arrays: list[onnx.TensorProto] = []
        self.count = 0

    def around(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node with errors in what it sums, and in its results where they round."""
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        if not any(name in self.noise.kinds and name not in self.noise.free for name in node.output):
            yield changed
            return
        for place, terms in self.noise.terms(node).items():
            if node.input[place] in self.noise.kinds:
                changed.input[place] = yield from self._factor(node.input[place], terms)
        after: list[onnx.NodeProto] = []
        for place, name in enumerate(node.output):
            if name in self.noise.kinds and node.op_type not in _EXACT:
                before = self._name(name)
                changed.output[place] = before
                after += self._times(before, name, self.noise.kinds[name], self._result_terms(node))
        yield changed
        yield from after

    def _result_terms(self, node: onnx.NodeProto) -> int:
        if any(a.HasField("g") for a in node.attribute):  # an If or a Loop: as if it summed all that it has
            return max((math.prod(self.noise.shapes.get(name, ())) for name in node.input), default=1) * _FUNCTION_TERMS
        return _BASIC_TERMS if node.op_type in _BASIC else _FUNCTION_TERMS

    def _factor(self, name: str, terms: int) -> Any:
        """The name of a factor with its errors: a constant is changed here, what is computed in the graph."""
        made, array = self._name(name), self.noise.arrays.get(name)
        if array is None:
            yield from self._times(name, made, self.noise.kinds[name], terms)
            return made
        u = unit_roundoff(array.dtype)
        errors = 1 + gamma(terms, u) * self.rng.uniform(-1, 1, array.shape)
        self.arrays.append(numpy_helper.from_array((array * errors).astype(array.dtype), made))
        return made

    def _times(self, given: str, made: str, kind: int, terms: int) -> list[onnx.NodeProto]:
        """made = given * (1 + gamma * uniform(-1, 1)), anew at every step; what is infinite stays so."""
        dtype = next(d for k, d in _FLOATS.items() if k == kind)
        one, bound = self._scalar(1.0, dtype), self._scalar(gamma(terms, unit_roundoff(dtype)), dtype)
        draw, cast, small, factor = (self._name(given) for _ in range(4))
        return [
            helper.make_node(
                "RandomUniformLike",
                [given],
                [draw],
                low=-1.0,
                high=1.0,
                dtype=TensorProto.FLOAT,
                seed=float(self.count + 1e6 * self.draw),
            ),
            helper.make_node("Cast", [draw], [cast], to=kind),
            helper.make_node("Mul", [cast, bound], [small]),
            helper.make_node("Add", [small, one], [factor]),
            helper.make_node("Mul", [given, factor], [made]),
        ]

    def _scalar(self, value: float, dtype: Any) -> str:
        name = self._name("number")
        self.arrays.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def _name(self, name: str) -> str:
        self.count += 1
        return f"{name}~{self.count}"
