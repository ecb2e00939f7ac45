"""The threshold decoder against an oracle that keeps every value, and whatever the chunks, the batch and the backend."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.decoders import Threshold
from undertow.engine.errors import ConfigError

from .decoded import assert_same, assert_told, described, echo, in_pieces, outputs_of
from .naive_decoders import NaiveThreshold, run
from .step_graph import StepGraph, lookahead_step
from .whole_graphs import bidirectional_whole

RATE_HZ = 50.0
LIMITS = [-0.5, 0.0, 0.5, 1.0]


def walk(seed: int, count: int) -> np.ndarray:
    """(count, 1), in eighths, so that many values are limits themselves."""
    values, noise = np.zeros(count + 1), np.random.default_rng(seed).normal(0, 0.5, count)
    for i in range(count):
        values[i + 1] = 0.8 * values[i] + noise[i]
    return (np.round(8 * values[1:]) / 8).astype(np.float32)[:, None]


@st.composite
def keys(draw: st.DrawFn) -> dict[str, Any]:
    below = draw(st.booleans())
    low, high = sorted((draw(st.sampled_from(LIMITS)), draw(st.sampled_from(LIMITS))))
    on, off = (low, high) if below else (high, low)
    return {
        "on": on, "off": draw(st.sampled_from([off, None])), "below": below,
        "min_on": draw(st.integers(1, 5)), "min_off": draw(st.integers(1, 5)),
        "names": draw(st.sampled_from([("start", "end"), ("a", "b" * 40)])),
    }  # fmt: skip


@given(keys=keys(), rate=st.sampled_from([None, RATE_HZ]), seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_events_are_the_oracles(keys: dict[str, Any], rate: float | None, seed: int) -> None:
    """Of random values, pushed and stepped in any pieces and company, moved to another engine and forked meanwhile, every event is
    the oracle's: which, since when, how long, the mean; and so is that of a stream that ends while it is on."""
    streams = {f"s{i}": walk(seed + i, 80 * i) for i in range(4)}
    first, second = (
        Engine(described(echo(1), None, rate), backend="numba", decode=Threshold(**keys)) for _ in range(2)
    )
    oracles = {key: NaiveThreshold(**keys, place_s=None if rate is None else 1 / rate) for key in streams}
    expected = {key: run(oracles[key], x[:, 0]) for key, x in streams.items()}
    assert_told(in_pieces(first, streams, seed, second), expected)


def test_there_is_something_to_tell() -> None:
    """The property above sees what it is about: starts and ends by turns, and streams that end while they are on, in a dip too."""
    walks = [walk(seed, 80)[:, 0] for seed in range(40)]
    told = [run(NaiveThreshold(0.5, 0.0, min_on=2, min_off=3), x) for x in walks]
    for events in told:
        assert [event["event"] for event in events] == ["start", "end"] * (len(events) // 2)
    assert sum(len(events) > 2 for events in told) > 20
    last = [x[-1] for x, events in zip(walks, told, strict=True) if events and events[-1]["begin"] == 80]
    assert min(last) < 0 < 0.5 < max(last)


LATE: list[tuple[str, Artifact]] = [
    ("numba", lookahead_step(2)), ("ort", lookahead_step(2)), ("numba", lookahead_step(5, frames_per_step=2)), ("ort", bidirectional_whole()),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "model"), LATE, ids=["delay", "delay-ort", "blocks", "sequence"])
def test_places_are_outputs_however_late_they_come(backend: str, model: Artifact) -> None:
    """Of models with a delay, with several frames a step, and of whole sequences, the events of a stream, those of its tail and its
    end included, are the oracle's over the outputs from first to last."""
    streams = {f"s{i}": np.random.default_rng(i).normal(size=(41 + i, 3)).astype(np.float32) for i in range(3)}
    outputs = {key: outputs_of(model, x, backend)[:, 1] for key, x in streams.items()}
    on = float(np.median(np.concatenate(list(outputs.values()))))
    expected = {key: run(NaiveThreshold(on, min_off=2, place_s=1 / RATE_HZ), y) for key, y in outputs.items()}
    assert min(map(len, expected.values())) > 2
    config = Threshold(on=on, min_off=2, value=1)
    engines = [Engine(described(model, None, RATE_HZ), backend=backend, decode=config) for _ in range(2)]
    for seed in range(3):
        assert_told(in_pieces(engines[0], streams, seed, engines[1]), expected)


def test_chunks_and_batches_change_no_bit() -> None:
    """Streams in any pieces and company give the events, bit for bit, of each alone in one piece."""
    streams = {f"s{i}": np.random.default_rng(i).normal(size=(70, 1)).astype(np.float32) for i in range(4)}
    config = Threshold(on=0.3, off=-0.7, min_off=2)
    alone = Engine(echo(1), backend="numba", decode=config)
    expected = {key: [*alone.push(key, x), *alone.close(key)] for key, x in streams.items()}
    assert min(map(len, expected.values())) > 4
    for seed in range(5):
        assert_same(in_pieces(Engine(echo(1), backend="numba", decode=config), streams, seed), expected)


def test_the_value_is_named_by_its_label_or_its_place() -> None:
    """Of an output with several values one is looked at: by index in C order, or by the model's label."""
    x = np.random.default_rng(0).normal(size=(60, 2, 3)).astype(np.float32)
    flat = described(echo(3), ("low", "middle", "high"))
    by_place = list(Engine(echo(2, 3), backend="numba", decode=Threshold(on=0, value=4)).push("a", x))
    by_label = list(Engine(flat, backend="numba", decode=Threshold(on=0, value="middle")).push("a", x[:, 1]))
    oracle = NaiveThreshold(0)
    assert by_place == by_label
    assert [e["begin"] for e in by_place] == [e["begin"] for at in range(60) for e in oracle.take(at, x[at, 1, 1])]


@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_one_of_several_outputs(backend: str) -> None:
    """With `output` the others do not matter, and without it a model with several is refused."""
    g = StepGraph()
    x = g.input("x", (2,))
    g.output("sum", g.op("ReduceSum", x, g.ints(1), keepdims=0), ())
    g.output("y", x, (2,))
    frames = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    events = Engine(g.artifact(), backend=backend, decode=Threshold(on=0.5, output="sum")).push("a", frames)
    oracle = NaiveThreshold(0.5)
    expected = [{"at": at} | e for at in range(60) for e in oracle.take(at, frames[at].sum())]
    assert_told({"a": list(events)}, {"a": expected})
    with pytest.raises(
        ConfigError, match=r"\[decode\] type = 'threshold': the model has outputs \['sum', 'y'\]; say which with output"
    ):
        Engine(g.artifact(), decode=Threshold(on=0.5))


def test_what_the_model_has_not_is_refused() -> None:
    """Each refusal names the key, what there is, and what to do."""
    named = described(echo(3), ("a", "b", "c"))
    cases: list[tuple[Artifact, dict[str, Any], str]] = [
        (echo(1), {}, "Object missing required field `on`"),
        (echo(1), {"on": 0.5, "off": 0.6}, "off = 0.6 and on = 0.5: expected off at or below on"),
        (echo(1), {"on": 0.5, "off": 0.4, "below": True}, "off = 0.4 and on = 0.5: expected off at or above on"),
        (echo(1), {"on": float("nan")}, "off = nan and on = nan: expected numbers that a value can be compared with"),
        (echo(1), {"on": 0.5, "min_on": 0}, r"Expected `int` >= 1 - at `\$.min_on`"),
        (echo(1), {"on": 0.5, "names": ["a"]}, r"Expected `array` of length 2, got 1 - at `\$.names`"),
        (echo(3), {"on": 0.5}, r"the output has shape \(3,\); say which of its values with value = an index, or a label"),
        (echo(3), {"on": 0.5, "value": 3}, "value = 3: the output has 3 values, expected an index from 0 to 2"),
        (echo(3), {"on": 0.5, "value": "a"}, r"value = 'a' is no label of the model, which has \[\]"),
        (named, {"on": 0.5, "value": "d"}, r"value = 'd' is no label of the model, which has \['a', 'b', 'c'\]"),
        (echo(1), {"on": 0.5, "output": "z"}, r"output = 'z' is not an output of the model, which has \['y'\]"),
    ]  # fmt: skip
    for artifact, keys, reason in cases:
        with pytest.raises(ConfigError, match=r"\[decode\].*" + reason):
            Engine(artifact, decode={"type": "threshold"} | keys)
