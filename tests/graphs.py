"""Random step graphs, and random ways of feeding them.

A graph grows from a pool of `(B, n)` tensors: frame inputs first, then what states give, then what operators make of
those. Values stay near one, so that rounding stays small. A tensor is `exact` if float32 holds it without rounding
(frames are eighths): only those go through steps and comparisons, where one rounding error would change the answer.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from undertow.engine.artifact import Artifact, StepSpec

from .step_graph import StepGraph

SIZES = [1, 2, 3, 5, 7, 8, 16, 17, 32, 33]
VOCABULARY = 11
T = TypeVar("T")


class Choices(Protocol):
    """Where the choices of a random graph come from."""

    def whole(self, low: int, high: int) -> int: ...

    def pick(self, options: Sequence[T]) -> T: ...

    def flag(self) -> bool: ...


class Seeded:
    """Choices of a seed: graphs that have little in common, for tests where each costs seconds to compile."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def whole(self, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def flag(self) -> bool:
        return self.random.random() < 0.5


class Drawn:
    """Choices of hypothesis: a graph that fails is made smaller."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]):
        self.draw = draw

    def whole(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def flag(self) -> bool:
        return self.draw(st.booleans())


class Tensor(NamedTuple):
    name: str
    size: int
    exact: bool = False


class Growing:
    """A step graph and the tensors that it has so far."""

    def __init__(self, choose: Choices, seed: int, frames_per_step: int, outputs_per_step: int):
        self.choose = choose
        self.g = StepGraph(seed, frames_per_step=frames_per_step, outputs_per_step=outputs_per_step)
        self.pool: list[Tensor] = []

    def any(self, exact: bool = False) -> Tensor:
        """A tensor of the pool; the younger ones are likelier, so that graphs grow deep."""
        candidates = [t for t in self.pool if t.exact or not exact]
        return candidates[max(self.choose.whole(0, len(candidates) * 2) - len(candidates) - 1, -1)]

    def add(self, name: str, size: int, exact: bool = False) -> Tensor:
        self.pool.append(Tensor(name, size, exact))
        return self.pool[-1]

    def fitted(self, t: Tensor, size: int) -> str:
        """`t` as a tensor of `size` features: itself, or through a linear layer."""
        return t.name if t.size == size else self.g.linear(t.name, t.size, size)

    def state(self, shape: tuple[int, ...]) -> str:
        """A float state whose initial value is zero, a number, or one number for each element."""
        kind = self.choose.pick(["zero", "number", "array"])
        array = np.round(self.g.random.normal(size=shape) * 8) / 8
        initial = {"zero": 0.0, "number": 0.375, "array": array}[kind]
        return self.g.state(f"s{len(self.g.states)}", shape, initial=initial)


def add_inputs(b: Growing) -> None:
    """One vector; maybe a second, a small matrix, or an index into a table."""
    k = b.g.frames_per_step
    size = b.choose.pick(SIZES)
    x = b.g.input("x", (size,))
    b.add(b.g.op("Flatten", x) if k > 1 else x, k * size, exact=True)
    more = {b.choose.pick(["", "", "vector", "matrix", "index"]) for _ in range(2)}
    if "vector" in more:
        u = b.g.input("u", (3,))
        b.add(b.g.op("Flatten", u) if k > 1 else u, 3 * k, exact=True)
    if "matrix" in more:
        b.add(b.g.op("Flatten", b.g.input("m", (2, 5))), 10 * k, exact=True)
    if "index" in more:
        table = b.g.noise(VOCABULARY, 6)
        b.add(b.g.op("Flatten", b.g.op("Gather", table, b.g.input("index", (), "int64"))), 6 * k)


def add_layer(b: Growing) -> None:
    """An LSTM, GRU or RNN with attributes of its own."""
    kind = b.choose.pick(["LSTM", "GRU", "RNN"])
    x, hidden = b.any(), b.choose.pick(SIZES)
    attributes: dict[str, Any] = {}
    if kind == "GRU":
        attributes["linear_before_reset"] = b.choose.whole(0, 1)
    if b.choose.flag():
        attributes["clip"] = 1.5
    states = [b.state((hidden,)) for _ in range(2 if kind == "LSTM" else 1)]
    after = b.g.recurrent(kind, x.name, x.size, hidden, states, **attributes)
    for state, value in zip(states, after, strict=True):
        b.g.next(state, value)
    out = b.add(after[0], hidden)
    if x.size == hidden:
        b.add(b.g.op("Add", x.name, out.name), hidden)


def add_stack(b: Growing) -> None:
    """Two GRU layers whose states are one tensor (2, hidden), as torch keeps them."""
    g, x, n = b.g, b.any(), b.choose.pick(SIZES)
    state = b.state((2, n))
    both = g.op("Transpose", state, perm=[1, 0, 2])
    lower, upper = (
        g.op("Squeeze", s, g.ints(0)) for s in g.op_many("Split", both, names=[g.fresh(), g.fresh()], axis=0)
    )
    (low,) = g.recurrent("GRU", x.name, x.size, n, [lower], linear_before_reset=1)
    (high,) = g.recurrent("GRU", low, n, n, [upper], linear_before_reset=1)
    rows = [g.op("Unsqueeze", s, g.ints(1)) for s in (low, high)]
    g.next(state, g.op("Concat", *rows, axis=1))
    b.add(high, n)


def add_window(b: Growing) -> None:
    """A convolution over the last frames, which a buffer holds."""
    g, x = b.g, b.any()
    width, dilation, channels = b.choose.whole(2, 4), b.choose.whole(1, 2), b.choose.whole(1, 9)
    depthwise = b.choose.flag()
    past = (width - 1) * dilation
    buffer = b.state((x.size, past))
    window = g.op("Concat", buffer, g.op("Unsqueeze", x.name, g.ints(2)), axis=2)
    g.next(buffer, g.op("Slice", window, g.ints(1), g.ints(past + 1), g.ints(2)))
    out, group = (x.size, x.size) if depthwise else (channels, 1)
    w = g.noise(out, x.size // group, width, scale=(x.size // group * width) ** -0.5)
    y = g.op("Conv", window, w, g.noise(out), group=group, dilations=[dilation], kernel_shape=[width])
    b.add(g.op("Relu", g.op("Flatten", y)), out)


def add_leaky(b: Growing) -> None:
    """A leaky average; what comes after reads its old value."""
    g, x, n = b.g, b.any(), b.choose.pick(SIZES)
    state = b.state((n,))
    new = g.op("Tanh", b.fitted(x, n))
    g.next(state, g.op("Add", g.op("Mul", state, g.weight([0.75])), g.op("Mul", new, g.weight([0.25]))))
    b.add(state, n)


def add_counter(b: Growing) -> None:
    """A whole number that grows, not starting from zero."""
    g = b.g
    state = g.state(f"s{len(g.states)}", (1,), "int64", initial=5)
    g.next(state, g.op("Add", state, g.ints(3)))
    b.add(g.op("Mul", g.op("Cast", state, to=TensorProto.FLOAT), g.weight([1 / 64])), 1, exact=True)


def add_kept(b: Growing) -> None:
    """A state that never changes: its next value is itself, with a node between or without."""
    n = b.choose.pick(SIZES)
    state = b.state((n,))
    if b.choose.flag():
        b.g.next(state, b.g.op("Identity", state))
    b.add(state, n, exact=True)


def add_latch(b: Growing) -> None:
    """The last value of another tensor; its next value is that tensor itself."""
    x = b.any()
    state = b.state((x.size,))
    b.g.next(state, b.g.op("Identity", x.name) if b.choose.flag() else x.name)
    b.add(state, x.size, exact=x.exact)


def add_swap(b: Growing) -> None:
    """Two states that change places at every step, or the second behind the first: in-place writing breaks both."""
    x, n = b.any(), b.choose.pick(SIZES)
    one, two = b.state((n,)), b.state((n,))
    identity = b.choose.flag()
    b.g.next(two, b.g.op("Identity", one) if identity else one)
    if b.choose.flag():
        b.g.next(one, b.g.op("Identity", two) if identity else two)
    else:
        b.g.next(one, b.g.op("Tanh", b.g.op("Add", two, b.fitted(x, n))))
    b.add(one, n)
    b.add(two, n)


def add_running_max(b: Growing) -> None:
    """The largest value so far, which two states hold."""
    x = b.any(exact=True)
    state, twin = b.state((x.size,)), b.state((x.size,))
    highest = b.g.op("Max", state, x.name)
    b.g.next(state, highest)
    b.g.next(twin, highest)
    b.add(highest, x.size, exact=True)
    b.add(twin, x.size, exact=True)


STATES = [
    add_layer,
    add_layer,
    add_stack,
    add_window,
    add_leaky,
    add_counter,
    add_kept,
    add_latch,
    add_swap,
    add_running_max,
]

UNARY = ["Neg", "Abs", "Erf", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish"]
UNARY += ["Softplus", "Softsign", "Softmax", "LogSoftmax"]


def apply_unary(b: Growing) -> None:
    x = b.any()
    kind = b.choose.pick(UNARY)
    b.add(b.g.op(kind, x.name), x.size, x.exact and kind in ("Neg", "Abs", "Relu"))


def apply_positive(b: Growing) -> None:
    """Functions that are smooth on positive numbers only."""
    x = b.any()
    kind = b.choose.pick(["Log", "Sqrt", "Reciprocal", "Pow"])
    above = b.g.op("Add", b.g.op("Abs", x.name), b.g.weight([0.5]))
    b.add(b.g.op(kind, above, b.g.weight([0.5])) if kind == "Pow" else b.g.op(kind, above), x.size)


def apply_binary(b: Growing) -> None:
    x, y = b.any(), b.any()
    kind = b.choose.pick(["Add", "Sub", "Mul", "Max", "Min", "Mean"])
    other = y.name if y.size == 1 else b.fitted(y, x.size)
    b.add(b.g.op(kind, x.name, other), x.size)


def apply_linear(b: Growing) -> None:
    x, n = b.any(), b.choose.pick(SIZES)
    if b.choose.flag():
        b.add(b.g.linear(x.name, x.size, n), n)
    else:
        b.add(b.g.op("MatMul", x.name, b.g.noise(x.size, n, scale=x.size**-0.5)), n)


def apply_norm(b: Growing) -> None:
    x = b.any()
    if x.size > 2:  # of two numbers the norm is a sign: not smooth
        wide = b.g.op("Add", x.name, b.g.weight(np.linspace(-2, 2, x.size)))
        b.add(b.g.op("LayerNormalization", wide, b.g.noise(x.size), b.g.noise(x.size), axis=-1), x.size)


def apply_reduce(b: Growing) -> None:
    g, x = b.g, b.any()
    kind = b.choose.pick(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"])
    near = g.op("Mul", x.name, g.weight([1 / x.size])) if kind == "ReduceSum" else x.name
    b.add(g.op(kind, near, g.ints(1)) if kind == "ReduceSum" else g.op(kind, near, axes=[1]), 1)


def apply_shape(b: Growing) -> None:
    """Cuts, joins and turns."""
    g, x, y = b.g, b.any(), b.any()
    kind = b.choose.pick(["concat", "slice", "backwards", "split", "transpose", "expand", "gather"])
    exact = x.exact
    if kind == "concat":
        b.add(g.op("Concat", x.name, y.name, axis=1), x.size + y.size, exact and y.exact)
    elif kind == "slice":
        b.add(g.op("Slice", x.name, g.ints(x.size // 3), g.ints(2**40), g.ints(1)), x.size - x.size // 3, exact)
    elif kind == "backwards":
        size = -(-x.size // 2)
        b.add(g.op("Slice", x.name, g.ints(-1), g.ints(-(2**40)), g.ints(-1), g.ints(-2)), size, exact)
    elif kind == "split" and x.size > 1:
        head, tail = g.op_many("Split", x.name, g.ints(1, x.size - 1), names=[g.fresh(), g.fresh()], axis=-1)
        b.add(head, 1, exact)
        b.add(tail, x.size - 1, exact)
    elif kind == "transpose" and x.size % 2 == 0:
        turned = g.op("Transpose", g.op("Reshape", x.name, g.ints(0, 2, -1)), perm=[0, 2, 1])
        b.add(g.op("Reshape", turned, g.ints(-1, x.size)), x.size, exact)
    elif kind == "expand":
        rows = g.op("Expand", g.op("Unsqueeze", x.name, g.ints(1)), g.ints(1, 3, 1))
        b.add(g.op("Reshape", rows, g.ints(0, 3 * x.size)), 3 * x.size, exact)
    elif kind == "gather":
        picks = [0, x.size - 1, x.size // 2, 0]
        b.add(g.op("Gather", x.name, g.ints(*picks), axis=1), len(picks), exact)


def apply_step(b: Growing) -> None:
    """Functions with jumps, of exact tensors alone."""
    g, x = b.g, b.any(exact=True)
    kind = b.choose.pick(["Floor", "Ceil", "Round", "Sign", "Where", "Cast", "Clip"])
    if kind == "Where":
        y = b.any()
        over = g.op(b.choose.pick(["Less", "GreaterOrEqual", "Equal"]), x.name, g.weight([0.25]))
        b.add(g.op("Where", g.op("Not", over), x.name, b.fitted(y, x.size)), x.size)
    elif kind == "Cast":
        whole = g.op("Cast", x.name, to=TensorProto.INT32)
        b.add(g.op("Cast", whole, to=TensorProto.FLOAT), x.size, exact=True)
    elif kind == "Clip":
        b.add(g.op("Clip", x.name, g.weight(-0.5), g.weight(1.25)), x.size, exact=True)
    else:
        b.add(g.op(kind, x.name), x.size, exact=True)


OPERATORS = [apply_unary, apply_unary, apply_positive, apply_binary, apply_linear, apply_norm, apply_reduce]
OPERATORS += [apply_shape, apply_shape, apply_step]


def add_outputs(b: Growing) -> None:
    """One or two, the youngest tensor among them; maybe a counter's old value, or a tensor that is a next state too."""
    g, m = b.g, b.g.outputs_per_step
    last = b.pool[-1]
    if m > 1:
        g.output("y", g.op("Reshape", g.linear(last.name, last.size, m * 2), g.ints(0, m, 2)), (2,))
        return
    inputs = {t.name for t in g.inputs} | set(g.states)
    g.output("y", last.name, (last.size,), direct=last.name not in inputs and b.choose.flag())
    other = b.any()
    if other != last and b.choose.flag():
        g.output("z", other.name, (other.size,))
    counters = [s.name for s in g.states.values() if s.dtype == "int64"]
    if counters:
        g.output("count", counters[0], (1,), "int64")


def grow(choose: Choices, seed: int) -> Artifact:
    """A valid step artifact with 1 to 3 groups of states and up to 6 operators between inputs and outputs."""
    k = choose.pick([1, 1, 1, 1, 2, 3])
    b = Growing(choose, seed, k, choose.pick([1, k]))
    add_inputs(b)
    for _ in range(choose.whole(1, 3)):
        choose.pick(STATES)(b)
    for _ in range(choose.whole(0, 6)):
        choose.pick(OPERATORS)(b)
    add_outputs(b)
    return b.g.artifact()


def random_graph(seed: int) -> Artifact:
    """The random step artifact of a number."""
    return grow(Seeded(seed), seed)


@st.composite
def step_graphs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Artifact:
    """Random step artifacts that hypothesis can make smaller."""
    return grow(Drawn(draw), draw(st.integers(0, 2**16)))


def frames(spec: StepSpec, length: int, seed: int) -> dict[str, np.ndarray]:
    """A sequence for every input of the model: eighths, or indices."""
    random = np.random.default_rng(seed)
    made = {}
    for t in spec.inputs:
        shape = (length, *t.shape)
        if np.dtype(t.dtype).kind == "f":
            made[t.name] = (np.round(random.normal(size=shape) * 8) / 8).astype(t.dtype)
        else:
            made[t.name] = random.integers(0, VOCABULARY, shape).astype(t.dtype)
    return made


def bare(spec: StepSpec, chunk: dict[str, np.ndarray]) -> Any:
    """As the engine takes it: the array itself where the model has one input."""
    return chunk if len(spec.inputs) > 1 else chunk[spec.inputs[0].name]


def cut(chunk: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {name: array[start:stop] for name, array in chunk.items()}
