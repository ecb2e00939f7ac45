"""A builder of small step graphs, and the plain ones that tests and benchmarks share.

g = StepGraph(seed=1)
x = g.input("x", (16,))
h = g.state("h", (32,))
g.next("h", g.op("Tanh", g.op("Add", g.linear(x, 16, 32), h)))
g.output("y", h, (32,))
artifact = g.artifact()
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from undertow.engine.artifact import Artifact, StateSpec, StepSpec, TensorSpec, make_artifact

BATCH = "B"


class StepGraph:
    """Collects nodes, weights, inputs, states and outputs; `artifact()` makes one step artifact of them."""

    def __init__(
        self, seed: int = 0, opset: int = 17, frames_per_step: int = 1, outputs_per_step: int = 1, delay: int = 0
    ):
        self.random = np.random.default_rng(seed)
        self.opset, self.frames_per_step, self.outputs_per_step, self.delay = (
            opset,
            frames_per_step,
            outputs_per_step,
            delay,
        )
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
        self.states: dict[str, StateSpec] = {}
        self.valid_input: str | None = None
        self.count = 0

    def fresh(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> str:
        self.inputs.append(TensorSpec(name, shape, dtype))
        return name

    def valid(self, name: str = "valid") -> str:
        self.valid_input = name
        return name

    def state(
        self, name: str, shape: tuple[int, ...], dtype: str = "float32", initial: float | np.ndarray = 0.0
    ) -> str:
        """initial: a number, or an array of `shape`."""
        given = initial.astype(dtype).tobytes() if isinstance(initial, np.ndarray) else float(initial)
        self.states[name] = StateSpec(name, name, shape, dtype, given)
        return name

    def next(self, state: str, value: str) -> None:
        """The graph's tensor `value` is the next value of `state`: the tensor itself, with no node between."""
        old = self.states[state]
        self.states[state] = StateSpec(old.name, value, old.shape, old.dtype, old.initial)

    def output(
        self, name: str, value: str, shape: tuple[int, ...], dtype: str = "float32", direct: bool = False
    ) -> str:
        """direct: `value` itself is the output and gives it its name."""
        if not direct:
            self.op("Identity", value, name=name)
        self.outputs.append(TensorSpec(value if direct else name, shape, dtype))
        return self.outputs[-1].name

    def weight(self, array: Any, dtype: str = "float32") -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values), "int64")

    def noise(self, *shape: int, scale: float = 1.0) -> str:
        return self.weight(self.random.normal(0, scale, shape))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output and gives its name."""
        return self.op_many(kind, *inputs, names=[name or self.fresh()], **attributes)[0]

    def op_many(self, kind: str, *inputs: str, names: list[str], **attributes: Any) -> list[str]:
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{len(self.nodes)}", **attributes))
        return names

    def linear(self, x: str, size: int, out: int) -> str:
        """x (B, size) -> (B, out)."""
        return self.op("Gemm", x, self.noise(out, size, scale=size**-0.5), self.noise(out, scale=0.1), transB=1)

    def recurrent(self, kind: str, x: str, size: int, hidden: int, states: list[str], **attributes: Any) -> list[str]:
        """One layer over x (B, size) from states (B, hidden), and the next values of those: (B, hidden)."""
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
        scale = hidden**-0.5
        w, r = self.noise(1, gates * hidden, size, scale=scale), self.noise(1, gates * hidden, hidden, scale=scale)
        b = self.noise(1, 2 * gates * hidden, scale=0.1)
        zero = self.ints(0)
        before = [self.op("Unsqueeze", s, zero) for s in states]
        names = ["", *(self.fresh() for _ in states)]
        after = self.op_many(
            kind, self.op("Unsqueeze", x, zero), w, r, b, "", *before, names=names, hidden_size=hidden, **attributes
        )[1:]
        return [self.op("Squeeze", s, zero) for s in after]

    def model(self) -> onnx.ModelProto:
        k, m = self.frames_per_step, self.outputs_per_step
        given = [(t.name, t.dtype, (k, *t.shape) if k > 1 else t.shape) for t in self.inputs]
        given += [(s.name, s.dtype, s.shape) for s in self.states.values()]
        given += [(self.valid_input, "int64", ())] if self.valid_input else []
        results = {t.name: (t.dtype, (m, *t.shape) if m > 1 else t.shape) for t in self.outputs}
        results |= {s.next: (s.dtype, s.shape) for s in self.states.values()}
        graph = helper.make_graph(
            self.nodes,
            "step",
            [value_info(name, dtype, shape) for name, dtype, shape in given],
            [value_info(name, dtype, shape) for name, (dtype, shape) in results.items()],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def spec(self) -> StepSpec:
        return StepSpec(
            tuple(self.inputs),
            tuple(self.outputs),
            tuple(self.states.values()),
            delay=self.delay,
            frames_per_step=self.frames_per_step,
            outputs_per_step=self.outputs_per_step,
            valid_input=self.valid_input,
        )

    def artifact(self) -> Artifact:
        model = self.model()
        onnx.checker.check_model(model)
        return make_artifact(model, self.spec())


def value_info(name: str, dtype: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [BATCH, *shape])


def lstm_step(inputs: int, hidden: int, layers: int = 1, outputs: int | None = None, seed: int = 0) -> Artifact:
    """x (inputs,) -> y (outputs,), by default the last layer's hidden state itself; states h0, c0, h1, c1, ..."""
    return stacked("LSTM", "hc", inputs, hidden, layers, outputs, seed)


def gru_step(
    inputs: int, hidden: int, layers: int = 1, outputs: int | None = None, seed: int = 0, **attributes: Any
) -> Artifact:
    """As `lstm_step`; attributes are those of ONNX's GRU (linear_before_reset=1 is torch's)."""
    return stacked("GRU", "h", inputs, hidden, layers, outputs, seed, **({"linear_before_reset": 1} | attributes))


def rnn_step(inputs: int, hidden: int, layers: int = 1, outputs: int | None = None, seed: int = 0) -> Artifact:
    """As `lstm_step`, of plain tanh layers."""
    return stacked("RNN", "h", inputs, hidden, layers, outputs, seed)


def stacked(
    kind: str, letters: str, inputs: int, hidden: int, layers: int, outputs: int | None, seed: int, **attributes: Any
) -> Artifact:
    g = StepGraph(seed)
    x, size = g.input("x", (inputs,)), inputs
    for i in range(layers):
        states = [g.state(f"{letter}{i}", (hidden,)) for letter in letters]
        after = g.recurrent(kind, x, size, hidden, states, **attributes)
        for state, value in zip(states, after, strict=True):
            g.next(state, value)
        x, size = after[0], hidden
    if outputs is None:
        g.output("y", x, (hidden,))
    else:
        g.output("y", g.linear(x, hidden, outputs), (outputs,))
    return g.artifact()


def lookahead_step(delay: int, size: int = 3, frames_per_step: int = 1) -> Artifact:
    """y[t] = x[t] + 10 * mean of x[t + 1 .. t + delay] within the stream, from a buffer of the last frames.

    A row of the buffer is a frame and a one, or zeros where no frame is: so the graph knows where its stream ends.
    """
    g = StepGraph(frames_per_step=frames_per_step, outputs_per_step=frames_per_step, delay=delay)
    k, row = frames_per_step, size + 1
    x, valid = g.input("x", (size,)), g.valid()
    buffer = g.state("buffer", (delay, row))
    frames = x if k > 1 else g.op("Unsqueeze", x, g.ints(1))
    real = g.op("Cast", g.op("Less", g.ints(*range(k)), g.op("Unsqueeze", valid, g.ints(1))), to=TensorProto.FLOAT)
    real = g.op("Unsqueeze", real, g.ints(2))
    rows = g.op("Concat", g.op("Mul", frames, real), real, axis=2)
    window = g.op("Concat", buffer, rows, axis=1)
    g.next("buffer", g.op("Slice", window, g.ints(k), g.ints(k + delay), g.ints(1)))
    answers = []
    for i in range(k):
        own = g.op("Slice", window, g.ints(i, 0), g.ints(i + 1, size), g.ints(1, 2))
        ahead = g.op("Slice", window, g.ints(i + 1), g.ints(i + 1 + delay), g.ints(1))
        total = g.op("ReduceSum", ahead, g.ints(1), keepdims=1)
        sums = g.op("Slice", total, g.ints(0), g.ints(size), g.ints(2))
        count = g.op("Max", g.op("Slice", total, g.ints(size), g.ints(row), g.ints(2)), g.weight([1.0]))
        answers.append(g.op("Add", own, g.op("Mul", g.op("Div", sums, count), g.weight([10.0]))))
    y = g.op("Concat", *answers, axis=1) if k > 1 else g.op("Squeeze", answers[0], g.ints(1))
    g.output("y", y, (size,))
    return g.artifact()
