"""The labels decoder against an oracle that keeps every output, and whatever the chunks, the batch and the backend."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.decoders import Labels
from undertow.engine.errors import ConfigError

from .decoded import assert_same, assert_told, described, echo, in_pieces, outputs_of
from .naive_decoders import NaiveLabels, run
from .step_graph import StepGraph, lookahead_step
from .whole_graphs import bidirectional_whole

NAMES = ("rest", "run", "jump")
RATE_HZ = 8.0


@cache
def said() -> Artifact:
    return described(echo(len(NAMES)), NAMES, RATE_HZ)


def spells(seed: int, count: int) -> np.ndarray:
    """Probabilities (count, 3) of which one is the greatest for a while, with short doubts, and ties, in eighths."""
    generator = np.random.default_rng(seed)
    likely = np.repeat(generator.integers(0, 3, count), generator.integers(1, 9, count))[:count]
    likely = np.where(generator.random(count) < 0.2, generator.integers(0, 3, count), likely)
    found = np.full((count, 3), 1 / 8, np.float32)
    found[np.arange(count), likely] = 6 / 8
    found[generator.random(count) < 0.1] = (3 / 8, 3 / 8, 2 / 8)
    return found


def noisy(seed: int, count: int) -> np.ndarray:
    """Logits without ties."""
    return np.log(spells(seed, count)) + np.random.default_rng(seed).normal(0, 0.5, (count, 3)).astype(np.float32)


KEYS = st.fixed_dictionaries(
    {
        "half_life": st.sampled_from([None, 0.5, 3.0, 50.0]), "min_duration": st.integers(1, 5),
        "top": st.integers(1, 3), "emit": st.sampled_from(["every", "changes"]),
    }
)  # fmt: skip


@given(keys=KEYS, scores=st.sampled_from(["logits", "log-probabilities"]), seed=st.integers(0, 10_000))
@settings(max_examples=20)
def test_events_are_the_oracles(keys: dict[str, Any], scores: str, seed: int) -> None:
    """Of random outputs, pushed and stepped in any pieces and company, moved to another engine and forked meanwhile, every event
    is the oracle's: its label, how sure, the runners-up, when it changed and since when."""
    streams = {f"s{i}": noisy(seed + i, 10 + 25 * i) for i in range(3)}
    if scores == "log-probabilities":
        streams = {key: x - np.log(np.exp(x).sum(1, keepdims=True)) for key, x in streams.items()}
    first, second = (Engine(said(), backend="numba", decode=Labels(scores=scores, **keys)) for _ in range(2))  # pyright: ignore[reportArgumentType]
    expected = {k: run(NaiveLabels(NAMES, scores, place_s=1 / RATE_HZ, **keys), x) for k, x in streams.items()}
    assert_told(in_pieces(first, streams, seed, second), expected)


@given(
    least=st.integers(1, 5),
    top=st.integers(1, 3),
    emit=st.sampled_from(["every", "changes"]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=10)
def test_of_equally_likely_labels_the_earlier_one_is_taken(least: int, top: int, emit: str, seed: int) -> None:
    """Of probabilities with many ties the events are the oracle's, which looks for the greatest from the first label on."""
    keys: dict[str, Any] = {"scores": "probabilities", "min_duration": least, "top": top, "emit": emit}
    streams = {f"s{i}": spells(seed + i, 60) for i in range(2)}
    engine = Engine(described(echo(3), NAMES), backend="numba", decode={"type": "labels", **keys})
    assert_told(in_pieces(engine, streams, seed), {k: run(NaiveLabels(NAMES, **keys), x) for k, x in streams.items()})


LATE: list[tuple[str, Artifact]] = [
    ("numba", lookahead_step(2)), ("ort", lookahead_step(2)), ("numba", lookahead_step(5, frames_per_step=2)), ("ort", bidirectional_whole()),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "model"), LATE, ids=["delay", "delay-ort", "blocks", "sequence"])
def test_places_are_outputs_however_late_they_come(backend: str, model: Artifact) -> None:
    """Of models with a delay, with several frames a step, and of whole sequences, the events of a stream, those of its tail included,
    are the oracle's over the outputs from first to last, and `at` counts these."""
    names = tuple("abcde"[: model.spec.outputs[0].shape[0]])
    streams = {f"s{i}": np.random.default_rng(i).normal(0, 0.2, (41 + i, 3)).astype(np.float32) for i in range(3)}
    outputs = {key: outputs_of(model, x, backend) for key, x in streams.items()}
    for seed, emit in enumerate(["every", "changes"]):
        keys: dict[str, Any] = {"half_life": 1.0, "emit": emit}
        engines = [Engine(described(model, names), backend=backend, decode=Labels(**keys)) for _ in range(2)]
        expected = {key: run(NaiveLabels(names, **keys), y) for key, y in outputs.items()}
        assert_told(in_pieces(engines[0], streams, seed, engines[1]), expected)
        assert [len(expected[key]) == len(y) for key, y in outputs.items()] == [emit == "every"] * 3


@pytest.mark.parametrize("keys", [{}, {"top": 2}, {"half_life": 7.0}, {"min_duration": 3, "emit": "changes"}])
def test_chunks_and_batches_change_no_bit(keys: dict[str, Any]) -> None:
    """Streams in any pieces and company give the events, bit for bit, of each alone in one piece."""
    streams = {f"s{i}": noisy(i, 50) for i in range(4)}
    alone = Engine(said(), backend="numba", decode=Labels(**keys))
    expected = {key: [*alone.push(key, x), *alone.close(key)] for key, x in streams.items()}
    for seed in range(5):
        assert_same(in_pieces(Engine(said(), backend="numba", decode=Labels(**keys)), streams, seed), expected)


def test_the_average_is_of_all_outputs_alike_at_first() -> None:
    """With a long half-life the first output weighs no more than those after it: one wrong one is forgotten at the third."""
    outputs = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    engine = Engine(said(), backend="numba", decode=Labels(scores="probabilities", half_life=1e6))
    events = engine.push("a", outputs)
    assert events.values["label"].tolist() == ["run", "rest", "rest"]
    assert events.values["confidence"] == pytest.approx([1, 1 / 2, 2 / 3], abs=1e-4)


def test_an_output_that_is_no_number_does_not_stay() -> None:
    """Without a half-life it leaves nothing behind: the next outputs are as sure as they would have been."""
    squares = np.array([[1, 4, 1], [1, -4, 1], [1, 4, 1], [1, 4, 1]], np.float32) / 64
    engine = Engine(root(), backend="numba", decode=Labels(scores="probabilities", min_duration=2))
    events = engine.push("a", squares)
    assert np.isnan(events.values["confidence"]).tolist() == [False, True, False, False]
    assert events.values["confidence"][2:].tolist() == [0.25, 0.25]


@cache
def root() -> Artifact:
    """The square root of what it gets: no number, of less than 0."""
    g = StepGraph()
    g.output("y", g.op("Sqrt", g.input("x", (3,))), (3,))
    return described(g.artifact(), NAMES)


@pytest.mark.parametrize(
    "keys", [{}, {"top": 2}, {"half_life": 3.0}, {"scores": "log-probabilities", "emit": "changes"}]
)
def test_outputs_that_are_not_finite_make_no_noise(keys: dict[str, Any]) -> None:
    """Infinite scores, of which nobody can say how likely they are, are decoded without a warning; other streams do not notice."""
    g = StepGraph()
    g.output("y", g.op("Mul", g.input("x", (3,)), g.weight([1e38])), (3,))
    engine = Engine(described(g.artifact(), NAMES), backend="numba", decode={"type": "labels", **keys})
    wild, tame = np.array([[9, 9, 9], [-9, 9, 0]], np.float32), np.array([[1e-38, 0, 0]], np.float32)
    together = engine.push_many({"wild": wild, "tame": tame})
    alone = Engine(described(g.artifact(), NAMES), backend="numba", decode={"type": "labels", **keys})
    assert list(together["tame"]) == list(alone.push("tame", tame))


def test_several_labels_at_once() -> None:
    """An output (2, 3) has two labels; what lasts for a while is refused of it."""
    x = np.random.default_rng(0).normal(size=(20, 2, 3)).astype(np.float32)
    model = described(echo(2, 3), NAMES)
    events = Engine(model, backend="numba", decode=Labels(top=2)).push("a", x)
    odds = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    assert events.values["label"].tolist() == np.array(NAMES)[x.argmax(-1)].tolist()
    assert events.values["labels"].shape == events.values["confidences"].shape == (20, 2, 2)
    np.testing.assert_allclose(events.values["confidence"], odds.max(-1), rtol=1e-5)
    with pytest.raises(
        ConfigError, match=r"\[decode\] half_life, min_duration, emit: output 'y' has shape \(2, 3\), expected \(3,\)"
    ):
        Engine(model, decode=Labels(min_duration=2))


def test_what_the_model_has_not_is_refused() -> None:
    """Each refusal names the key, what there is, and what to do."""
    cases: list[tuple[Artifact, dict[str, Any], str]] = [
        (echo(3), {}, r"the model names no labels; export it with labels=, or give labels = \[...\]"),
        (echo(3), {"labels": ["a", "b"]}, r"there are 2 labels, output 'y' has shape \(3,\); its last axis has to have one value a label"),
        (said(), {"output": "z"}, r"output = 'z' is not an output of the model, which has \['y'\]"),
        (said(), {"top": 4}, "top = 4: there are 3 labels"),
        (said(), {"top": 0}, r"Expected `int` >= 1 - at `\$.top`"),
        (said(), {"half_life": 0.0}, r"Expected `float` > 0.0 - at `\$.half_life`"),
        (said(), {"min_duration": 0}, r"Expected `int` >= 1 - at `\$.min_duration`"),
        (said(), {"scores": "odds"}, r"Invalid enum value 'odds' - at `\$.scores`"),
        (said(), {"halflife": 3.0}, "Object contains unknown field `halflife`"),
    ]  # fmt: skip
    for artifact, keys, reason in cases:
        with pytest.raises(ConfigError, match=r"\[decode\].*" + reason):
            Engine(artifact, decode={"type": "labels"} | keys)
    with pytest.raises(ConfigError, match=r"\[decode\] Invalid value 'label' - at `\$.type`"):
        Engine(said(), decode={"type": "label"})
