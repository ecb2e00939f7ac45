"""Quantile forecasts against an oracle: units, sorting, and the steps ahead that a copy of the stream takes by itself."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.decoders import About, Outputs, Quantiles
from undertow.engine.errors import ConfigError

from .decoded import assert_same, assert_told, in_pieces
from .naive_forecast import fed_back, sorted_values
from .step_graph import StepGraph, gru_step, lookahead_step

LEVELS = (0.1, 0.5, 0.9)


@cache
def many_ahead() -> Artifact:
    """Four steps of three quantiles, any old numbers."""
    g = StepGraph(seed=5)
    x = g.input("x", (2,))
    g.output("y", g.op("Reshape", g.linear(x, 2, 12), g.ints(-1, 4, 3)), (4, 3))
    return g.artifact()


@cache
def one_ahead() -> Artifact:
    """Three quantiles of the next value of one."""
    return gru_step(1, 5, outputs=3)


@cache
def two_voices() -> Artifact:
    """Two inputs, an output that is like both together, and quantiles."""
    g = StepGraph(seed=6)
    a, b = g.input("a", (2,)), g.input("b", (1,))
    state = g.state("s", (3,))
    new = g.op("Tanh", g.op("Add", g.linear(g.op("Concat", a, b, axis=1), 3, 3), state))
    g.next("s", new)
    g.output("next_a", g.linear(new, 3, 2), (2,))
    g.output("y", g.linear(new, 3, 3), (3,))
    return g.artifact()


def walk(seed: int, count: int = 40, size: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32).cumsum(0) * np.float32(0.3)


def test_each_level_has_its_values_in_the_users_unit() -> None:
    """p10, p50, p90 of each output are its values times scale plus offset, sorted over the levels, for each step ahead."""
    x = walk(1, size=2)
    said = Engine(many_ahead(), backend="numba").push("a", x)
    assert (np.diff(said, axis=-1) < 0).any()
    decode = Quantiles(levels=LEVELS, scale=2.5, offset=-10)
    events = Engine(many_ahead(), backend="numba", decode=decode).push("a", x)
    expected = sorted_values(said, 2.5, -10)
    assert list(events.values) == ["p10", "p50", "p90"]
    for i, name in enumerate(events.values):
        assert events.values[name].shape == (40, 4)
        np.testing.assert_allclose(events.values[name], expected[..., i], rtol=1e-6, atol=1e-5)
    assert events.at.tolist() == list(range(40))


@given(arrays(np.float32, (3, 5), elements=st.floats(-100, 100, width=32)), st.floats(-100, 100))
@settings(max_examples=100)
def test_sorting_takes_quantiles_that_cross_no_farther_from_the_truth(said: np.ndarray, truth: float) -> None:
    """The pinball loss over levels at equal steps, in all, is never higher after sorting, whatever the truth."""
    levels = (0.1, 0.3, 0.5, 0.7, 0.9)
    decoder = Quantiles(levels=levels).decoder(About(gru_step(1, 2, outputs=5).spec))
    (y,) = gru_step(1, 2, outputs=5).spec.outputs
    three: Any = (np.zeros(1, np.int64), np.array([3]), {y.name: said}, np.arange(3), {}, None)
    events = decoder.events({}, Outputs(*three))
    after = np.stack(list(events.values.values()), 1)
    assert (np.diff(after, axis=1) >= 0).all()

    def loss(q: np.ndarray) -> np.ndarray:
        error = truth - q.astype(float)
        return np.maximum(np.array(levels) * error, (np.array(levels) - 1) * error).sum(1)

    assert (loss(after) <= loss(said) + 1e-4).all()


def test_names_of_levels() -> None:
    """Levels become p2.5, p50 and p99.9: no digits of binary fractions."""
    x = walk(2)
    events = Engine(one_ahead(), backend="numba", decode=Quantiles(levels=(0.025, 0.5, 0.999))).push("a", x)
    assert list(events.values) == ["p2.5", "p50", "p99.9"]


FEEDS: list[tuple[dict[str, Any] | None, Callable[[dict[str, np.ndarray]], np.ndarray]]] = [
    (None, lambda said: np.sort(said["y"])[1]),
    ({"x": 0.9}, lambda said: np.sort(said["y"])[2]),
]


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize(("feed", "fed"), FEEDS)
def test_steps_ahead_are_those_of_a_copy_that_is_fed_what_it_says(
    backend: str, feed: dict[str, Any] | None, fed: Callable[[dict[str, np.ndarray]], np.ndarray]
) -> None:
    """After each frame the forecast is what the oracle's copy of the stream gives, and the stream itself goes on as without a decoder."""
    artifact, x = one_ahead(), walk(3)
    expected = np.sort(fed_back(artifact, x, 6, "y", fed), axis=-1)
    engine = Engine(artifact, backend=backend, decode=Quantiles(levels=LEVELS, ahead=6, feed=feed))
    plain = Engine(artifact, backend=backend)
    events = engine.push("a", x)
    plain.push("a", x)
    for i, name in enumerate(events.values):
        np.testing.assert_allclose(events.values[name], expected[..., i], rtol=1e-4, atol=1e-5)
    for name, state in plain.state("a").items():
        assert np.array_equal(engine.state("a")[name], state)


def test_each_input_may_be_fed_another_output() -> None:
    """feed by name: an output as it is, and a quantile, each to its input; the forecast of a step is that of stepping by hand."""
    artifact = two_voices()
    feed = {"a": "next_a", "b": 0.1}
    engine = Engine(artifact, backend="numba", decode=Quantiles(output="y", levels=LEVELS, ahead=3, feed=feed))
    frames = {"a": walk(4, size=2), "b": walk(5)}
    events = engine.push("s", frames)
    by_hand = Engine(artifact, backend="numba")
    for t in range(40):
        said = by_hand.push("s", {k: v[t : t + 1] for k, v in frames.items()})
        by_hand.fork("s", "copy")
        for step in range(3):
            assert events.values["p50"][t, step] == np.sort(said["y"][0])[1]
            said = by_hand.push("copy", {"a": said["next_a"], "b": np.sort(said["y"])[:, :1]})
        by_hand.drop("copy")


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("keys", [{"ahead": 4}, {"ahead": 3, "every": 7}, {"every": 4}])
def test_chunks_and_batches_change_nothing(backend: str, keys: dict[str, Any]) -> None:
    """Streams cut in any way, together, snapshotted in between, give the forecasts of each alone in one piece: bit for bit on the
    compiled backend, to rounding on ONNX Runtime."""
    decode = Quantiles(levels=LEVELS, **keys)
    streams = {f"s{i}": walk(i) for i in range(3)}
    alone = Engine(one_ahead(), backend=backend, decode=decode)
    expected = {key: list(alone.push(key, x)) for key, x in streams.items()}
    for seed in range(3):
        got = in_pieces(Engine(one_ahead(), backend=backend, decode=decode), streams, seed)
        if backend == "numba":
            assert_same(got, expected)
        else:
            assert_told(got, expected)
    assert [e["at"] for e in expected["s0"]][:2] == [keys.get("every", 1) * (i + 1) - 1 for i in range(2)]


def test_more_streams_than_are_copied_at_once() -> None:
    """A batch larger than the spare slots is copied part by part, and nothing is mixed up."""
    decode = Quantiles(levels=LEVELS, ahead=3)
    engine = Engine(one_ahead(), backend="numba", decode=decode, max_streams=700)
    x = np.random.default_rng(6).normal(size=(600, 1)).astype(np.float32)
    events, ready = engine.step(list(range(600)), x)
    assert ready.all()
    alone = Engine(one_ahead(), backend="numba", decode=decode)
    for i in (0, 255, 256, 511, 512, 599):
        assert np.array_equal(alone.push(i, x[i : i + 1]).values["p90"], events.values["p90"][i : i + 1])


def test_what_the_model_has_not_is_refused() -> None:
    """Each refusal names the key, what the model has, and what is expected."""
    cases: list[tuple[Artifact, dict[str, Any], str]] = [
        (one_ahead(), {"levels": [0.5, 0.1, 0.9]}, "expected each higher than the one before"),
        (
            one_ahead(),
            {"levels": [0.1, 0.9]},
            r"there are 2, output 'y' has shape \(3,\), expected \(2,\) or \(steps, 2\)",
        ),
        (one_ahead(), {"levels": LEVELS, "feed": {"x": 0.5}}, "give ahead, or leave feed out"),
        (
            one_ahead(),
            {"levels": LEVELS, "ahead": 2, "feed": {"x": 0.25}},
            r"feed.x = 0.25: expected one of levels = \[0.1, 0.5, 0.9\]",
        ),
        (one_ahead(), {"levels": LEVELS, "ahead": 2, "feed": {"x": "z"}}, r"'z' is neither a level nor an output"),
        (
            one_ahead(),
            {"levels": LEVELS, "ahead": 2, "feed": {"x": "y"}},
            r"is 3 of float32, input 'x' is float32 \(1,\)",
        ),
        (one_ahead(), {"levels": LEVELS, "ahead": 2, "feed": {}}, r"is of \[\], the model has inputs \['x'\]"),
        (many_ahead(), {"levels": LEVELS, "ahead": 2}, r"has shape \(4, 3\), expected \(3,\)"),
        (
            two_voices(),
            {"output": "y", "levels": LEVELS, "ahead": 2},
            r"the model has inputs \['a', 'b'\]; say with feed",
        ),
        (lookahead_step(2, size=1), {"levels": [0.5], "ahead": 2}, "does not answer each frame at once"),
        (one_ahead(), {"levels": LEVELS, "scale": 0}, r"Expected `float` > 0.0 - at `\$.scale`"),
    ]
    for artifact, keys, said in cases:
        with pytest.raises(ConfigError, match=r"\[decode\].*" + said):
            Engine(artifact, decode={"type": "quantiles"} | keys)
