"""Step graphs that compute blocks of several frames: layers over a block, buffers, masks, windows. Against the oracle and ONNX Runtime."""

from typing import Any

import numpy as np
import pytest

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.compiler import missing

from .checks import assert_close, assert_same_bits, first, joined
from .graphs import frames
from .naive import NaiveEngine
from .step_graph import StepGraph

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer_block(kind: str, direction: str, hidden: int, n: int, layout: int = 0, **attributes: Any) -> Artifact:
    """A layer over the n frames of a step, forward or backward through them; its last states are the next states."""
    size, d = 5, 2 if direction == "bidirectional" else 1
    g = StepGraph(frames_per_step=n, outputs_per_step=n, opset=17)
    x = g.input("x", (size,))
    states = [g.state(s, (d, hidden), initial=np.linspace(-0.5, 0.5, d * hidden).reshape(d, hidden)) for s in "hc"]
    states = states[: 2 if kind == "LSTM" else 1]
    w, r = (g.noise(d, GATES[kind] * hidden, k, scale=hidden**-0.5) for k in (size, hidden))
    b = g.noise(d, 2 * GATES[kind] * hidden, scale=0.1)
    turn = (lambda s: s) if layout else (lambda s: g.op("Transpose", s, perm=[1, 0, 2]))
    names = [g.fresh() for _ in range(1 + len(states))]
    given = [turn(x), w, r, b, "", *map(turn, states)]
    y, *after = g.op_many(
        kind, *given, names=names, hidden_size=hidden, direction=direction, layout=layout, **attributes
    )
    for state, value in zip(states, after, strict=True):
        g.next(state, turn(value))
    y = y if layout else g.op("Transpose", y, perm=[2, 0, 1, 3])
    g.output("y", g.op("Reshape", y, g.ints(0, n, d * hidden)), (d * hidden,))
    g.output("last", g.op("Expand", g.op("Reshape", turn(after[-1]), g.ints(0, 1, -1)), g.ints(1, n, 1)), (d * hidden,))
    return g.artifact()


def compared(artifact: Artifact, length: int = 23, on_ort: bool = True) -> None:
    """Ragged streams in pieces, on the compiled backend: near the oracle and ONNX Runtime, and the same bits in one piece."""
    assert missing(artifact) == []
    engine, naive = Engine(artifact, backend="numba", max_streams=16), NaiveEngine(artifact)
    whole = {f"s{i}": frames(artifact.spec, length - 2 * i, i) for i in range(7)}
    expected = {key: naive.push(key, chunk) for key, chunk in whole.items()}
    cut = {key: [first(chunk, 4), {n: a[4:] for n, a in chunk.items()}] for key, chunk in whole.items()}
    parts = [engine.push_many({key: pieces[i] for key, pieces in cut.items()}) for i in (0, 1)]
    got = {key: joined([p[key] for p in parts]) for key in whole}
    for key in whole:
        assert_close(got[key], expected[key], key)
        assert_close(engine.state(key), naive.state(key), key)
        assert_same_bits(engine.push(f"{key} alone", whole[key]), got[key], key)
    if on_ort:
        by_ort = Engine(artifact, backend="ort", max_streams=16).push_many(whole)
        for key in whole:
            assert_close(by_ort[key], expected[key], f"ort {key}")


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_layers_over_a_block(kind: str, direction: str) -> None:
    """Every layer goes through a block in its direction, with hidden sizes that fill vectors and that do not."""
    compared(layer_block(kind, direction, 16 if kind == "LSTM" else 5, 4))


def test_attributes_of_layers_over_a_block() -> None:
    """The batch in front (which ONNX Runtime has not), a reset gate before or after the product, clipped activations."""
    compared(layer_block("GRU", "bidirectional", 17, 3, layout=1, linear_before_reset=1), on_ort=False)
    compared(layer_block("GRU", "reverse", 7, 3, linear_before_reset=1, clip=0.5))
    compared(layer_block("LSTM", "reverse", 7, 2, layout=1, input_forget=1), on_ort=False)


def windows_block() -> Artifact:
    """Convolutions over a buffer and a block: groups, depthwise, several maps a channel, dilation, strides, two and three axes."""
    n, c = 4, 18
    g = StepGraph(frames_per_step=n, outputs_per_step=n, opset=20)
    x = g.op("Transpose", g.input("x", (c,)), perm=[0, 2, 1])
    past = g.state("past", (c, 8), initial=np.round(g.random.normal(size=(c, 8)) * 8) / 8)
    full = g.op("Concat", past, x, axis=2)
    g.next("past", g.op("Slice", full, g.ints(n), g.ints(n + 8), g.ints(2)))

    def put(name: str, y: str, size: int) -> None:
        g.output(name, g.op("Transpose", y, perm=[0, 2, 1]), (size,))

    put("dilated", g.op("Conv", full, g.noise(5, c, 3), g.noise(5), dilations=[4]), 5)
    put("grouped", g.op("Conv", full, g.noise(12, 3, 5), g.noise(12), group=6, dilations=[2]), 12)
    put("depthwise", g.op("Conv", full, g.noise(c, 1, 3), g.noise(c), group=c, dilations=[4]), c)
    put("several", g.op("Conv", full, g.noise(2 * c, 1, 3), group=c, dilations=[4]), 2 * c)
    put("strided", g.op("Conv", full, g.noise(3, c, 3), strides=[3]), 3)
    put("padded", g.op("Conv", x, g.noise(c, 1, 3), g.noise(c), group=c, pads=[1, 1]), c)
    flat = g.op("Unsqueeze", g.op("Slice", full, g.ints(4), g.ints(12), g.ints(2)), g.ints(1))
    two = g.op("Conv", flat, g.noise(6, 1, 3, 5), g.noise(6), strides=[4, 1], dilations=[2, 1])  # (B, 6, 4, 4)
    put("pooled", g.op("Reshape", g.op("MaxPool", two, kernel_shape=[2, 1]), g.ints(0, -1, n)), 18)
    block = g.op("Reshape", full, g.ints(0, 2, 3, 3, 12))
    three = g.op("Conv", block, g.noise(4, 1, 2, 2, 9), g.noise(4), group=2)  # (B, 4, 2, 2, 4)
    put("three", g.op("Reshape", three, g.ints(0, -1, n)), 16)
    for kind in ("MaxPool", "AveragePool"):
        small = g.op(kind, block, kernel_shape=[2, 3, 9])
        put(kind, g.op("Reshape", small, g.ints(0, -1, n)), 4)
    return g.artifact()


def test_windows_over_a_buffer_and_a_block() -> None:
    """What a step pass makes of convolutions and pools over time: without padding, over what came before and the block."""
    compared(windows_block())


def wider_block() -> Artifact:
    """Transposed convolutions, resizing, norms of groups."""
    n, c = 3, 6
    g = StepGraph(frames_per_step=n, outputs_per_step=n, opset=21)
    x, h = g.input("x", (c,)), g.state("h", (c,), initial=0.25)
    g.next("h", g.op("ReduceMean", x, g.ints(1), keepdims=0))
    line = g.op("Transpose", x, perm=[0, 2, 1])

    def put(name: str, y: str, size: int) -> None:
        g.output(name, g.op("Reshape", y, g.ints(0, n, size)), (size,))

    put("up", g.op("ConvTranspose", line, g.noise(c, 5, 4), g.noise(5), strides=[2], pads=[1, 1]), 10)
    put("up_grouped", g.op("ConvTranspose", line, g.noise(c, 18, 3), group=2, dilations=[2]), 84)
    plane = g.op("Reshape", x, g.ints(0, 2, 3, 3))
    more = g.op("ConvTranspose", plane, g.noise(2, 3, 2, 3), g.noise(3), strides=[2, 3], output_padding=[1, 0])
    put("up_plane", more, 63)
    scales, none = g.weight([1, 1, 2]), ""
    for mode in ("half_pixel", "asymmetric", "align_corners"):
        put(f"line_{mode}", g.op("Resize", line, none, scales, mode="linear", coordinate_transformation_mode=mode), 12)
        put(f"near_{mode}", g.op("Resize", line, none, scales, mode="nearest", coordinate_transformation_mode=mode), 12)
    fewer = g.weight([1, 1, 2 / 3])
    put("down", g.op("Resize", line, none, fewer, mode="linear"), 4)
    put("floor", g.op("Resize", plane, none, g.weight([1, 1, 2, 3]), mode="nearest", nearest_mode="floor"), 36)
    put("both", g.op("Resize", plane, none, none, g.ints(6, 4), mode="linear", axes=[2, 3]), 16)
    put("groups", g.op("GroupNormalization", plane, g.noise(2), g.noise(2), num_groups=2), 6)
    put("instances", g.op("InstanceNormalization", line, g.noise(c), g.noise(c)), 6)
    put("held", g.op("Add", x, g.op("Unsqueeze", h, g.ints(1))), 6)
    return g.artifact()


def masks_block() -> Artifact:
    """Counters of rank 0 and what they decide: masks over blocks, places in tables."""
    n, c = 4, 18
    g = StepGraph(frames_per_step=n, outputs_per_step=n, opset=17)
    x, steps = g.input("x", (c,)), g.state("steps", (), "int64")
    h = g.state("h", (c,), initial=0.5)
    after = g.op("Add", steps, g.weight(1, "int64"))
    g.next("steps", after)
    first = g.op("Sub", g.op("Mul", steps, g.weight(n, "int64")), g.weight(6, "int64"))
    index = g.op("Add", g.op("Unsqueeze", first, g.ints(1)), g.weight(np.arange(n), "int64"))  # (B, n)
    end = g.op("Div", g.op("Add", g.op("Mul", after, g.weight(7, "int64")), g.weight(1, "int64")), g.weight(2, "int64"))
    real = g.op("GreaterOrEqual", index, g.weight(0, "int64"))
    real = g.op("And", real, g.op("Less", index, g.op("Unsqueeze", end, g.ints(1))))
    wide = g.op("Unsqueeze", real, g.ints(2))
    filled = g.op("Where", wide, x, g.weight(-3.5))
    turned = g.op("Transpose", x, perm=[0, 2, 1])
    g.output("filled", filled, (c,))
    g.output("kept", g.op("Where", wide, x, g.op("Unsqueeze", h, g.ints(1))), (c,))
    late = g.op("Where", g.op("Unsqueeze", real, g.ints(1)), g.weight(2.0), turned)
    g.output("late", g.op("Transpose", late, perm=[0, 2, 1]), (c,))
    started = g.op("Unsqueeze", g.op("GreaterOrEqual", first, g.weight(0, "int64")), g.ints(1))
    g.next("h", g.op("Where", started, g.op("ReduceMean", filled, axes=[1], keepdims=0), h))
    table = g.noise(9, 5)
    g.output("clipped", g.op("Gather", table, g.op("Clip", index, g.weight(0, "int64"), g.weight(8, "int64"))), (5,))
    g.output("turns", g.op("Gather", table, g.op("Mod", index, g.weight(9, "int64"))), (5,))
    place = g.op("Mod", g.op("Max", first, g.weight(0, "int64")), g.weight(c, "int64"))
    own = g.op("GatherElements", x, g.op("Expand", g.op("Reshape", place, g.ints(-1, 1, 1)), g.ints(1, n, 1)), axis=2)
    g.output("own", own, (1,))
    g.output("index", index, (), "int64")
    return g.artifact()


@pytest.mark.parametrize("make", [wider_block, masks_block])
def test_more_of_a_block(make: Any) -> None:
    """Every operator of these graphs compiles, and gives what the oracle and ONNX Runtime give."""
    compared(make())


def buffers() -> Artifact:
    """Buffers that are read in every way: two with one next value, one that takes another's old entries, joined values and slices as outputs."""
    c, h = 5, 6
    g = StepGraph(opset=17)
    x = g.op("Unsqueeze", g.input("x", (c,)), g.ints(2))
    first, twin, other = (
        g.state(s, (c, h), initial=np.arange(c * h).reshape(c, h) / 8 + i) for i, s in enumerate("abd")
    )
    full = g.op("Concat", first, x, axis=2)
    after = g.op("Slice", full, g.ints(1), g.ints(h + 1), g.ints(2))
    g.next(first, after)
    g.next(twin, after)
    mixed = g.op("Concat", other, g.op("Slice", first, g.ints(2), g.ints(4), g.ints(2)), axis=2)
    g.next(other, g.op("Slice", mixed, g.ints(2), g.ints(h + 2), g.ints(2)))
    g.output("full", full, (c, h + 1))
    g.output("after", after, (c, h))
    g.output("some", g.op("Slice", full, g.ints(h - 1), g.ints(h + 1), g.ints(2)), (c, 2))
    g.output("oldest", g.op("Slice", full, g.ints(0), g.ints(2), g.ints(2)), (c, 2))
    g.output("channels", g.op("Slice", full, g.ints(1), g.ints(3), g.ints(1)), (2, h + 1))
    g.output("sum", g.op("ReduceSum", g.op("Add", full, g.op("Concat", twin, x, axis=2)), g.ints(2), keepdims=0), (c,))
    g.output("conv", g.op("Conv", full, g.noise(3, c, 3), dilations=[3]), (3, 1))
    return g.artifact()


def test_buffers_are_moved_in_place() -> None:
    """A state that is moved within its row is read by everything else as it was before the step."""
    compared(buffers(), 15)
