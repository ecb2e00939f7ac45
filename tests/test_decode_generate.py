"""`decode = generate`: what a stream is told from its frames is what `Engine.generate` gives from the same prompts, however they come."""

from typing import Any

import numpy as np
import pytest

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.errors import ConfigError, FrameError
from undertow.engine.generation_call import stream_seed

from .decoded import in_pieces
from .language_models import choir, language_model, unsteady

LONGEST = 25


def prompts(model: Artifact, seed: int, count: int = 6) -> dict[str, np.ndarray]:
    random, size = np.random.default_rng(seed), min(t.shape[0] for t in model.spec.outputs)
    return {f"s{i}": random.integers(0, size, int(random.integers(1, LONGEST))) for i in range(count)}


def split(tokens: np.ndarray, after: int) -> list[np.ndarray]:
    """Behind each `after`."""
    cuts = (np.flatnonzero(tokens == after) + 1).tolist()
    return [part for part in np.split(tokens, cuts) if len(part)]


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize(
    "how", [{"temperature": 0.9, "top_k": 9, "repetition_penalty": 1.2}, {"beam": 3}, {"temperature": 0.0}]
)
def test_texts_are_those_of_generate(how: dict[str, Any], backend: str) -> None:
    """After each token `after` and at the end, in any pieces, with snapshots between: the tokens of `generate`, call by call."""
    model, stop, after, most = language_model(), [3, 5], 7, 9
    config = {"type": "generate", "max_steps": most, "stop": stop, "after": [after], "seed": 11, **how}
    engine = Engine(model, backend=backend, decode=config, max_streams=16)
    alone = Engine(model, backend=backend, max_streams=8)
    for seed in range(4):
        streams = prompts(model, seed)
        got = in_pieces(engine, streams, seed)
        for key, tokens in streams.items():
            expected, end = [], 0
            for part in split(tokens, after):
                end += len(part)
                made = alone.generate([key], [part], most, stop=stop, seed={key: stream_seed(11, key)}, **how)[key]
                expected.append((end - 1, made.tokens.tolist(), made.finished))
            alone.drop(key)
            assert [(e["at"], e["tokens"], e["finished"]) for e in got[key]] == expected, (seed, key)


def test_the_text_is_labels_up_to_the_stop_token() -> None:
    """Labels end to end, the separator as a space, without the stop token; log_probability is that of the tokens."""
    model = language_model(size=6)
    labels = ["a", "_b", "c", "_d", "e", "."]
    config = {"type": "generate", "max_steps": 30, "stop": ["."], "labels": labels, "word_separator": "_", "seed": 2}
    engine = Engine(model, decode=config, backend="numba")
    engine.push("s", np.array([0, 1, 2]))
    (event,) = engine.close("s")
    assert event["finished"] == "stop"
    assert event["tokens"][-1] == 5
    assert event["text"] == "".join(labels[t] for t in event["tokens"][:-1]).replace("_", " ")
    assert event["at"] == 2
    assert event["log_probability"] < 0


def test_several_voices_are_told_as_rows() -> None:
    """A model with several inputs: each token of the text has one of each."""
    model = choir()
    engine = Engine(model, decode={"type": "generate", "max_steps": 4, "seed": 1}, backend="numba")
    frames = {t.name: np.array([1, 2, 3], t.dtype) for t in model.spec.inputs}
    engine.push("s", frames)
    (event,) = engine.close("s")
    made = Engine(model, backend="numba").generate(["s"], [np.array([[1] * 3, [2] * 3, [3] * 3])], 4, seed=1)["s"]
    assert event["tokens"] == made.tokens.tolist()
    assert "text" not in event


def test_a_stream_whose_logits_break_says_so_and_harms_no_other() -> None:
    """Its event is "broken", and the others' are what they are without it."""
    config = {"type": "generate", "max_steps": 5, "temperature": 0.0, "after": [7]}
    engine, alone = (Engine(unsteady(), decode=config, backend="numba") for _ in range(2))
    both = engine.push_many({"bad": np.array([7, 1, 7]), "good": np.array([1, 2, 7])})
    assert [e["finished"] for e in both["bad"]][-1] == "broken"
    assert [e["tokens"] for e in both["good"]] == [e["tokens"] for e in alone.push("good", np.array([1, 2, 7]))]


def test_an_end_without_frames_since_the_last_text_says_nothing() -> None:
    """What was answered is not answered again."""
    engine = Engine(language_model(), decode={"type": "generate", "max_steps": 3, "after": [7]}, backend="numba")
    assert len(engine.push("s", np.array([1, 7]))) == 1
    assert engine.frames("s") == 2
    assert len(engine.close("s")) == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"max_steps": 3, "stop": ["."]}, "stop: '.' is not among the model's labels"),
        ({"max_steps": 3, "after": [99]}, "after: 99 is no token of the model"),
        ({"max_steps": 0}, "`int` >= 1"),
        ({"max_steps": 3, "beam": 4, "top_k": 3}, "a beam search does not sample"),
        ({"max_steps": 3, "labels": ["a"]}, "labels: there are 1, the model has 24 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, Any], message: str) -> None:
    """A ConfigError that names [decode] and the key."""
    with pytest.raises(ConfigError, match=r"^\[decode\].*" + message):
        Engine(language_model(), decode={"type": "generate", **keys}, backend="numba")


def test_a_frame_that_is_no_token_is_refused() -> None:
    """As by a model without a decoder; the stream goes on."""
    engine = Engine(language_model(), decode={"type": "generate", "max_steps": 3}, backend="numba")
    engine.push("s", np.array([1, 2]))
    with pytest.raises(FrameError, match="expected an index"):
        engine.push("s", np.array([24]))
    assert engine.frames("s") == 2
