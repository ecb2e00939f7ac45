"""The anomaly decoder against an oracle that keeps every error, and whatever the chunks, the batch and the backend."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.decoders import Anomaly
from undertow.engine.decoders.anomaly import ACCURACY, BINS, compiled
from undertow.engine.errors import ConfigError

from .decoded import assert_same, echo, in_pieces
from .naive_anomaly import NaiveHysteresis, score_range
from .step_graph import gru_step, lookahead_step

SHORT: dict[str, Any] = {"warm_up": 5, "half_life": 20.0, "quantile": 0.8, "min_off": 2, "on": 1.1, "off": 0.8}


@cache
def predictor() -> Artifact:
    return gru_step(3, 4, outputs=3)


def errors(seed: int, count: int) -> np.ndarray:
    """Of every size, with zeros, jumps of scale and outliers."""
    generator = np.random.default_rng(seed)
    scale = 10.0 ** np.repeat(generator.uniform(-6, 6, count // 40 + 1), 40)[:count]
    found = np.abs(generator.standard_cauchy(count)) * scale
    found[generator.random(count) < 0.1] = 0
    return found.astype(np.float32)


def scores(values: np.ndarray, **keys: Any) -> np.ndarray:
    engine = Engine(echo(1), backend="numba", decode=Anomaly(**keys))
    return engine.push("a", values[:, None]).values["score"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("quantile", "half_life"), [(0.99, 1000.0), (0.5, 50.0), (0.9, 5.0)])
def test_scores_are_those_of_the_sorted_past(seed: int, quantile: float, half_life: float) -> None:
    """A score is the error over the exact weighted quantile of all errors before it, to within the stated 5 %, of errors of one
    scale that spread over four orders of magnitude."""
    generator = np.random.default_rng(seed)
    values = (10.0 ** generator.uniform(-2, 2, 200) * (generator.random(200) > 0.1)).astype(np.float32)
    got = scores(values, quantile=quantile, half_life=half_life)
    for i, score in list(enumerate(got))[seed::4]:
        low, high = score_range(values[:i].astype(float).tolist(), float(values[i]), quantile, half_life, ACCURACY)
        assert low * (1 - 1e-5) <= score <= high * (1 + 1e-5), i


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_it_follows_a_stream_whose_scale_changes_by_twelve_orders(factor: float) -> None:
    """Bins move with the errors: a few half-lives after a change of scale beyond their range, scores are right again."""
    generator = np.random.default_rng(1)
    values = generator.exponential(1.0, 2000).astype(np.float32)
    values[500:] *= np.float32(factor)
    got = scores(values, quantile=0.9, half_life=30)
    for i in range(1500, 2000, 7):
        low, high = score_range(values[500:i].astype(float).tolist(), float(values[i]), 0.9, 30, ACCURACY)
        assert low * 0.999 <= got[i] <= high * 1.001, i


def test_a_very_long_stream_stays_right() -> None:
    """Weights that grow for ever are made light again: after 400,000 errors the quantile is that of the last ones."""
    values = np.random.default_rng(2).uniform(0, 1, 400_000).astype(np.float32)
    values[200_000:] += 3
    got = scores(values, quantile=0.5, half_life=1000)
    assert np.median(values[-1000:] / got[-1000:]) == pytest.approx(3.5, rel=0.06)
    assert np.isfinite(got).all()


@given(st.data())
@settings(max_examples=15)
def test_hysteresis_is_that_of_the_oracle(data: st.DataObject) -> None:
    """From the same scores the oracle says the same: when it becomes anomalous, since when, and how high it went."""
    keys = {
        "on": data.draw(st.sampled_from([1.0, 1.5, 3.0])), "off": data.draw(st.sampled_from([0.5, 1.0])),
        "min_on": data.draw(st.integers(1, 4)), "min_off": data.draw(st.integers(1, 4)), "warm_up": data.draw(st.integers(1, 30)),
    }  # fmt: skip
    values = errors(data.draw(st.integers(0, 1000)), 200)
    every = Engine(echo(1), backend="numba", decode=Anomaly(**keys)).push("a", values[:, None])
    engine = Engine(echo(1), backend="numba", decode=Anomaly(**keys, emit="changes"))
    changes = engine.push("a", values[:, None])
    oracle, expected = NaiveHysteresis(**keys), []
    for at, score in enumerate(every.values["score"].tolist()):
        change = oracle.take(at, score)
        if change is not None:
            expected.append((at, *change))
        assert every.values["anomalous"][at] == oracle.anomalous
    assert [(e["at"], e["anomalous"], e["begin"], e["peak"]) for e in changes] == expected
    last = list(engine.close("a"))
    assert [(e["anomalous"], e["begin"]) for e in last] == ([(False, 200)] if oracle.anomalous else [])


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("emit", ["every", "changes"])
def test_chunks_and_batches_change_no_bit(backend: str, emit: str) -> None:
    """Streams cut in any way, pushed together in any order, snapshotted and restored in between, give the events, bit for bit, of
    each alone in one piece."""
    keys = {"type": "anomaly", "of": "prediction", "emit": emit, **SHORT}
    streams = {f"s{i}": np.random.default_rng(i).normal(size=(60, 3)).astype(np.float32) * 2 for i in range(3)}
    alone = Engine(predictor(), backend=backend, decode=keys)
    expected = {key: [*alone.push(key, frames), *alone.close(key)] for key, frames in streams.items()}
    assert all(expected.values())
    for seed in range(6):
        assert_same(in_pieces(Engine(predictor(), backend=backend, decode=keys), streams, seed), expected)


def test_errors_are_between_a_frame_and_the_output_before_it() -> None:
    """With of = "prediction" the first frame has no event, and the others' scores are those of the mean absolute differences."""
    frames = np.random.default_rng(3).normal(size=(80, 3)).astype(np.float32)
    said = Engine(predictor(), backend="numba").push("a", frames)
    off = np.abs(frames[1:].astype(float) - said[:-1]).mean(1).astype(np.float32)
    events = Engine(predictor(), backend="numba", decode=Anomaly(of="prediction", warm_up=7)).push("a", frames)
    assert events.at.tolist() == list(range(1, 80))
    assert np.array_equal(events.values["score"], scores(off))
    first = next(i for i, s in enumerate(scores(off, warm_up=7, on=0.001)) if i >= 7 and s >= 0.001)
    low = Engine(predictor(), backend="numba", decode=Anomaly(of="prediction", warm_up=7, on=0.001)).push("a", frames)
    assert low.values["anomalous"].tolist().index(True) == first


def test_errors_that_are_no_numbers_are_anomalous_and_not_learned_from() -> None:
    """NaN and infinity score a million, and the scores after them are those of a stream that never had them; less than 0 is 0."""
    values = np.abs(np.random.default_rng(4).normal(size=50)).astype(np.float32)
    odd = np.insert(values, [10, 20, 30], [np.nan, np.inf, -np.inf])
    states = decoded_alone(odd)
    assert states[[10, 21]].tolist() == [1e6, 1e6]
    without = np.delete(states, [10, 21, 32])
    assert np.array_equal(without[:30], scores(values)[:30])
    assert states[32] == 0


def decoded_alone(values: np.ndarray) -> np.ndarray:
    """Scores without an engine, which refuses frames that are not finite."""
    from undertow.engine.decoders import About, Outputs

    decoder = Anomaly().decoder(About(echo(1).spec))
    columns = {s.name: np.stack([s.initial_value()]) for s in decoder.states}
    one: Any = (
        np.zeros(1, np.int64),
        np.array([len(values)]),
        {"y": values[:, None]},
        np.arange(len(values)),
        {},
        None,
    )
    return decoder.events(columns, Outputs(*one)).values["score"]


def test_what_the_model_has_not_is_refused() -> None:
    """Each refusal names the key, what the model has, and what to do."""
    cases: list[tuple[Artifact, dict[str, Any], str]] = [
        (echo(2), {}, r"output 'y' has shape \(2,\), expected one value.*of = 'prediction'"),
        (echo(1), {"output": "loss"}, r"output = 'loss' is not an output of the model, which has \['y'\]"),
        (echo(1), {"input": "x"}, "only of = 'prediction' compares with an input"),
        (echo(1), {"of": "prediction", "input": "y"}, r"input = 'y' is not an input of the model, which has \['x'\]"),
        (echo(1), {"on": 1.0, "off": 2.0}, "expected off at or below on"),
        (gru_step(3, 4, outputs=2), {"of": "prediction"}, "expected the same number of float32 values"),
        (
            lookahead_step(2),
            {"of": "prediction"},
            "with 1 frames a step and delay 2; each frame has to have its output at once",
        ),
        (echo(1), {"half_life": 0.5}, r"Expected `float` >= 1.0 - at `\$.half_life`"),
    ]
    for artifact, keys, said in cases:
        with pytest.raises(ConfigError, match=r"\[decode\].*" + said):
            Engine(artifact, decode={"type": "anomaly"} | keys)


def test_its_state_is_small() -> None:
    """A stream's row holds the bins and little else."""
    from undertow.engine.decoders import About

    decoder = Anomaly(of="prediction").decoder(About(predictor().spec))
    assert sum(s.initial_value().nbytes for s in decoder.states) <= 4 * BINS + 100
    assert compiled() is compiled()
