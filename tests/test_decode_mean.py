"""The mean decoder against an oracle that keeps every value, and whatever the chunks, the batch and the backend."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.decoders import Mean
from undertow.engine.errors import ConfigError, SnapshotError

from .decoded import assert_same, assert_told, described, echo, in_pieces, outputs_of
from .naive_decoders import NaiveMean, run
from .step_graph import StepGraph, lookahead_step
from .whole_graphs import bidirectional_whole


@given(
    half_life=st.sampled_from([None, 0.3, 4.0, 100.0]),
    shape=st.sampled_from([(), (3,), (2, 2)]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=12)
def test_means_are_the_oracles(half_life: float | None, shape: tuple[int, ...], seed: int) -> None:
    """Of random values of any shape, pushed and stepped in any pieces and company, moved to another engine and forked meanwhile,
    mean and deviation at each output are those of all values so far with their weights."""
    generator = np.random.default_rng(seed)
    streams = {f"s{i}": generator.normal(i, 1 + i, (30 * i, *shape)).astype(np.float32) for i in range(4)}
    first, second = (Engine(echo(*shape), backend="numba", decode=Mean(half_life=half_life)) for _ in range(2))
    expected = {key: run(NaiveMean(half_life), x) for key, x in streams.items()}
    assert_told(in_pieces(first, streams, seed, second), expected)


LATE: list[tuple[str, Artifact]] = [
    ("numba", lookahead_step(2)), ("ort", lookahead_step(2)), ("numba", lookahead_step(5, frames_per_step=2)), ("ort", bidirectional_whole()),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "model"), LATE, ids=["delay", "delay-ort", "blocks", "sequence"])
def test_there_is_one_for_each_output_however_late(backend: str, model: Artifact) -> None:
    """Of models with a delay, with several frames a step, and of whole sequences, there are as many events as outputs, the tail's included,
    numbered as these."""
    streams = {f"s{i}": np.random.default_rng(i).normal(size=(31 + i, 3)).astype(np.float32) for i in range(3)}
    expected = {key: run(NaiveMean(7.0), outputs_of(model, x, backend)) for key, x in streams.items()}
    assert [len(events) for events in expected.values()] == [31, 32, 33]
    engines = [Engine(model, backend=backend, decode=Mean(half_life=7.0)) for _ in range(2)]
    for seed in range(2):
        assert_told(in_pieces(engines[0], streams, seed, engines[1]), expected)


def test_chunks_and_batches_change_no_bit() -> None:
    """Streams in any pieces and company give the events, bit for bit, of each alone in one piece."""
    streams = {f"s{i}": np.random.default_rng(i).normal(size=(60, 3)).astype(np.float32) for i in range(4)}
    alone = Engine(echo(3), backend="numba", decode=Mean(half_life=9.0))
    expected = {key: list(alone.push(key, x)) for key, x in streams.items()}
    for seed in range(5):
        assert_same(in_pieces(Engine(echo(3), backend="numba", decode=Mean(half_life=9.0)), streams, seed), expected)


def test_a_long_stream_far_from_zero_stays_exact() -> None:
    """After 300,000 values near 10,000 the deviation is still right, where a sum of squares in float32 would have nothing left of it."""
    values = np.random.default_rng(0).normal(10_000, 0.5, (300_000, 1)).astype(np.float32)
    events = Engine(echo(1), backend="numba", decode=Mean()).push("a", values)
    assert events.values["mean"][-1, 0] == pytest.approx(values.astype(np.float64).mean(), rel=1e-7)
    assert events.values["deviation"][-1, 0] == pytest.approx(values.astype(np.float64).std(), rel=1e-6)
    assert events.values["deviation"][0, 0] == 0


def test_what_the_model_has_not_is_refused() -> None:
    """Each refusal names the key, what there is, and what to do."""
    g = StepGraph()
    x = g.input("x", (2,))
    g.output("y", x, (2,))
    g.output("place", g.op("ArgMax", x, axis=1, keepdims=0), (), "int64")
    cases: list[tuple[Artifact, dict[str, Any], str]] = [
        (g.artifact(), {}, r"type = 'mean': the model has outputs \['y', 'place'\]; say which with output = \"...\""),
        (g.artifact(), {"output": "place"}, "type = 'mean': output 'place' is int64, expected float32"),
        (g.artifact(), {"output": "z"}, r"output = 'z' is not an output of the model, which has \['y', 'place'\]"),
        (described(echo(1)), {"half_life": 0}, r"Expected `float` > 0.0 - at `\$.half_life`"),
    ]
    for artifact, keys, reason in cases:
        with pytest.raises(ConfigError, match=r"\[decode\].*" + reason):
            Engine(artifact, decode={"type": "mean"} | keys)


@pytest.mark.parametrize(
    ("wrote", "reads", "message"),
    [
        ({"type": "mean"}, None, "'decode.mean' is not in this model.*another decoder"),
        (None, {"type": "mean"}, r"has no state 'decode.mean'.*another decoder \(\[decode\]\)"),
        ({"type": "mean"}, {"type": "threshold", "on": 1}, "'decode.mean' is not in this model"),
    ],
)
def test_a_snapshot_of_another_decoder_is_refused(wrote: Any, reads: Any, message: str) -> None:
    """States of a decoder are not read by another one, nor by none: the message names the state and what to look at."""
    one, other = (Engine(echo(1), backend="ort", max_streams=2, decode=d) for d in (wrote, reads))
    one.push("s", np.ones((3, 1), np.float32))
    with pytest.raises(SnapshotError, match=message):
        other.restore("s", one.snapshot("s"))
