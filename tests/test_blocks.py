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
@pytest.mark.parametrize("hidden", [5, 16])
def test_layers_over_a_block(kind: str, direction: str, hidden: int) -> None:
    """Every layer goes through a block in its direction, with hidden sizes that fill vectors and that do not."""
    compared(layer_block(kind, direction, hidden, 4))


def test_attributes_of_layers_over_a_block() -> None:
    """The batch in front (which ONNX Runtime has not), a reset gate before or after the product, clipped activations."""
    compared(layer_block("GRU", "bidirectional", 17, 3, layout=1, linear_before_reset=1), on_ort=False)
    compared(layer_block("GRU", "reverse", 7, 3, linear_before_reset=1, clip=0.5))
    compared(layer_block("LSTM", "reverse", 7, 2, layout=1, input_forget=1), on_ort=False)
