"""Generation against the oracle, and what must not change a stream's tokens: company, calls, threads, snapshots."""

import gc
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.errors import ArenaFullError, BackendError, BatchError, FrameError
from undertow.engine.generation_call import Generation

from .language_models import choir, language_model, unsteady
from .naive_generation import Call, NaiveGenerator, beam_search, same_until_a_tie
from .step_graph import lstm_step

SIZE = 24
PLAIN: dict[str, Any] = {}
FILTERED: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 9,
    "top_p": 0.9,
    "repetition_penalty": 1.3,
    "min_steps": 4,
    "stop": (3,),
}


@cache
def model() -> Artifact:
    return language_model(size=SIZE)


@cache
def shared(backend: str = "numba", threads: int = 1) -> Engine:
    return Engine(model(), backend=backend, max_streams=300, threads=threads)


def engine(backend: str = "numba", threads: int = 1) -> Engine:
    """Without streams; loaded once."""
    found = shared(backend, threads)
    for key in list(found.keys()):
        found.drop(key)
    return found


def prompts(count: int, seed: int = 0) -> list[np.ndarray]:
    """Ragged ones of one to nine tokens."""
    random = np.random.default_rng(seed)
    return [random.integers(0, SIZE, int(random.integers(1, 10))) for _ in range(count)]


def same(got: dict[Any, Generation], expected: dict[Any, Generation]) -> None:
    """The same streams, tokens, ends and, but for the last bit of a sum, log-probabilities."""
    assert list(got) == list(expected)
    for key, g in got.items():
        assert g.tokens.tolist() == expected[key].tokens.tolist(), key
        assert g.finished == expected[key].finished
        assert g.log_probability == pytest.approx(expected[key].log_probability, rel=1e-12)


def agrees(got: Generation, made: Any) -> bool:
    """With the oracle; false where a tie parted them."""
    whole = same_until_a_tie(got.tokens, made)
    if whole:
        assert got.finished == made.finished
        assert got.log_probability == pytest.approx(made.log_probability, abs=2e-3)
    return whole


def joined(parts: list[Generation]) -> list[int]:
    return np.concatenate([p.tokens for p in parts]).tolist()


# ---------------------------------------------------------------------------------------------- the oracle


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
        {"temperature": 0.0},
        {"temperature": 0.0, "repetition_penalty": 1.5, "stop": (5, 11), "min_steps": 7},
        {"temperature": 1.7, "top_k": 5},
        {"top_p": 0.6},
        {"temperature": 0.3, "top_p": 0.99, "top_k": 23},
        {"top_k": 1},
        {"repetition_penalty": 2.0},
        FILTERED,
    ],
    ids=str,
)
def test_the_oracles_tokens(backend: str, options: dict[str, Any]) -> None:
    """Every filter, alone and together, on both backends: the tokens, ends and log-probabilities of the slow reference."""
    given = prompts(12)
    keys = [f"s{i}" for i in range(len(given))]
    got = engine(backend).generate(keys, given, 30, seed=7, **options)
    call = Call(30, **options)
    whole = [agrees(got[k], NaiveGenerator(model(), k).generate(p, call, 7)) for k, p in zip(keys, given, strict=True)]
    assert sum(whole) >= len(whole) - 1


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_gru_and_small_integers(dtype: str) -> None:
    """A GRU whose tokens are int64 or int32 gives the oracle's tokens for keys of every type, seeded one by one."""
    artifact = language_model("GRU", seed=4, dtype=dtype)
    keys: list[Any] = ["a", b"a", 97, -5, "è"]
    got = Engine(artifact, backend="numba").generate(keys, prompts(5, 2), 20, seed=3)
    for key, prompt in zip(keys, prompts(5, 2), strict=True):
        agrees(got[key], NaiveGenerator(artifact, key).generate(list(prompt), Call(20), 3))
    assert len({tuple(g.tokens) for g in got.values()}) == len(keys)


def test_what_the_penalty_remembers_is_bounded() -> None:
    """Over 200 tokens the penalty looks back at the last 64, of the prompt too, as the oracle does."""
    prompt = np.random.default_rng(0).integers(0, SIZE, 90)
    options = {"repetition_penalty": 1.4, "temperature": 0.9}
    got = engine().generate(["long"], [prompt], 110, seed=1, **options)["long"]
    agrees(got, NaiveGenerator(model(), "long").generate(list(prompt), Call(110, **options), 1))


@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_voices(backend: str) -> None:
    """Three voices of other sizes, whose outputs are found by name, are the oracle's, each sampled on its own and by its own numbers."""
    artifact = choir()
    oracle = choir()
    names = [t.name for t in artifact.spec.outputs]
    oracle_outputs = list(reversed(names))
    given = np.random.default_rng(5).integers(0, 9, (4, 6, 3))
    options = {"top_p": 0.9, "temperature": 0.8, "repetition_penalty": 1.2}
    got = Engine(artifact, backend=backend).generate(list(range(4)), list(given), 25, seed=2, **options)
    for key, prompt in enumerate(given):
        naive = NaiveGenerator(oracle, key)
        naive.outputs = oracle_outputs
        assert got[key].tokens.shape == (25, 3)
        agrees(got[key], naive.generate(list(prompt), Call(25, **options), 2))


def test_voices_stop_and_prompts_by_name() -> None:
    """A stop token of one voice, given by its input's name, ends the stream; a prompt may be an array by input."""
    e = Engine(choir(), backend="numba")
    names = [t.name for t in e.spec.inputs]
    prompt = {name: [1, 2] for name in names}
    free = e.generate(["a"], [prompt], 30, seed=1)["a"]
    token = int(free.tokens[9, 1])
    first = int(np.flatnonzero(free.tokens[:, 1] == token)[0])
    e.drop("a")
    got = e.generate(["a"], {"a": np.array([[1, 1, 1], [2, 2, 2]])}, 30, seed=1, stop={"alto": [token]})["a"]
    assert got.finished == "stop"
    assert got.tokens.tolist() == free.tokens[: first + 1].tolist()


# ---------------------------------------------------------------------------------------------- what changes nothing


@given(st.data())
def test_company_and_calls_change_nothing(data: st.DataObject) -> None:
    """Streams in any order and company, and each's tokens drawn in any number of calls: the tokens of one call alone."""
    count = data.draw(st.integers(1, 9))
    given, keys = prompts(count, 3), [f"s{i}" for i in range(count)]
    alone = {}
    for key, prompt in zip(keys, given, strict=True):
        alone[key] = engine().generate([key], [prompt], 24, seed=11, **(FILTERED | {"stop": ()}))[key].tokens.tolist()
    cuts = [*sorted(data.draw(st.sets(st.integers(1, 23), max_size=4))), 24]
    together, made, done = engine(), {key: [] for key in keys}, 0
    for cut in cuts:
        order = data.draw(st.permutations(keys))
        some = dict(zip(keys, given, strict=True)) if not done else None
        options = FILTERED | {"stop": (), "min_steps": max(0, FILTERED["min_steps"] - done)}
        got = together.generate(order, some, cut - done, seed=11, **options)
        for key in keys:
            made[key] += got[key].tokens.tolist()
        done = cut
    assert made == alone


@pytest.mark.parametrize("count", [1, 3, 63, 64, 65, 130])
def test_blocks_are_refilled(count: int) -> None:
    """More streams than a block's lanes, which end at very different times: each as alone."""
    given, keys = prompts(count, 8), list(range(count))
    got = engine().generate(keys, given, 40, seed=5, stop=(1, 2, 3))
    assert count < 3 or len({len(g.tokens) for g in got.values()}) > 1
    for key in keys[:: max(1, count // 7)]:
        same({key: got[key]}, engine().generate([key], [given[key]], 40, seed=5, stop=(1, 2, 3)))


def test_threads_change_nothing() -> None:
    """Three threads give the tokens of one."""
    given, keys = prompts(100, 4), list(range(100))
    one = engine().generate(keys, given, 30, seed=9, **FILTERED)
    same(engine(threads=3).generate(keys, given, 30, seed=9, **FILTERED), one)


@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_a_snapshot_in_the_middle(backend: str) -> None:
    """Generated 17, snapshotted, restored in another engine under the same key, 33 more: the 50 of one call; with the seed or without."""
    whole = engine(backend).generate(["x"], [[1, 2, 3]], 50, seed=21, **FILTERED | {"stop": ()})["x"]
    first = engine(backend)
    begun = first.generate(["x"], [[1, 2, 3]], 17, seed=21, **FILTERED | {"stop": ()})["x"]
    blob = first.snapshot("x")
    for seed in (21, None):
        other = Engine(model(), backend=backend)
        other.restore("x", blob)
        rest = other.generate(["x"], None, 33, seed=seed, **FILTERED | {"stop": (), "min_steps": 0})["x"]
        assert joined([begun, rest]) == whole.tokens.tolist()


def test_forks_save_and_rows(tmp_path: Any) -> None:
    """A fork goes on as its original would have; `save`, `load`, `read_rows` and `write_rows` carry generation too."""
    e = engine()
    e.generate(["x"], [[4]], 10, seed=2)
    e.fork("x", "y")
    e.save(tmp_path / "all.ckpt")
    rows = e.read_rows(["x"])
    after = e.generate(["x"], None, 15)["x"].tokens.tolist()
    assert e.generate(["y"], None, 15)["y"].tokens.tolist() == after
    other = Engine(model(), backend="numba")
    other.load(tmp_path / "all.ckpt")
    assert other.generate(["x"], None, 15)["x"].tokens.tolist() == after
    other.write_rows(["z"], rows)
    assert other.generate(["z"], None, 15)["z"].tokens.tolist() == after


def test_the_backends_agree() -> None:
    """ONNX Runtime's loop gives the compiled loop's tokens where logits agree: over these streams, everywhere."""
    given, keys = prompts(40, 6), list(range(40))
    got = engine("ort").generate(keys, given, 25, seed=3, **FILTERED)
    expected = engine().generate(keys, given, 25, seed=3, **FILTERED)
    parted = [key for key in keys if got[key].tokens.tolist() != expected[key].tokens.tolist()]
    assert len(parted) <= 1


def test_auto_is_the_compiled_loop_at_any_size() -> None:
    """Where a compiled program is there, `auto` uses it for every batch, so that tokens do not depend on the batch's size."""
    e, given, keys = Engine(model(), backend="auto"), prompts(70, 1), list(range(70))
    same(e.generate(keys, given, 12, seed=4), engine().generate(keys, given, 12, seed=4))


# ---------------------------------------------------------------------------------------------- going on


def test_a_prompt_follows_what_was_generated() -> None:
    """A later prompt comes after the last token, which is stepped first: as if the whole text had been the prompt."""
    e = engine()
    made = e.generate(["x"], [[1, 2]], 8, seed=6, temperature=0.0)["x"].tokens.tolist()
    later = e.generate(["x"], [[7, 8]], 8, temperature=0.0)["x"].tokens.tolist()
    fresh = engine().generate(["y"], [[1, 2, *made, 7, 8]], 8, temperature=0.0)["y"].tokens.tolist()
    assert later == fresh


def test_frames_that_are_pushed_take_the_tokens_place() -> None:
    """After a push of the caller's own tokens the one that was sampled last is not stepped any more, and a prompt is asked for."""
    e = engine()
    made = e.generate(["x"], [[1, 2]], 5, temperature=0.0)["x"].tokens.tolist()
    e.push("x", np.array([9]))
    with pytest.raises(BatchError, match="stream 'x': has no prompt and no generated token"):
        e.generate(["x"], None, 3)
    got = e.generate(["x"], [[4]], 6, temperature=0.0)["x"].tokens.tolist()
    assert got == engine().generate(["y"], [[1, 2, *made[:-1], 9, 4]], 6, temperature=0.0)["y"].tokens.tolist()


def test_seeds() -> None:
    """One seed gives each key its own tokens; seeds by key are taken as they are; another seed gives others; none is 0 at first."""
    e = engine()
    plain = e.generate(["a", "b"], [[1], [1]], 20, seed=1)
    assert plain["a"].tokens.tolist() != plain["b"].tokens.tolist()
    by_key = engine().generate(["a", "b"], [[1], [1]], 20, seed={"a": 5, "b": 5})
    assert by_key["a"].tokens.tolist() == by_key["b"].tokens.tolist()
    assert engine().generate(["a"], [[1]], 20, seed=2)["a"].tokens.tolist() != plain["a"].tokens.tolist()
    assert (
        engine().generate(["a"], [[1]], 20)["a"].tokens.tolist()
        == engine().generate(["a"], [[1]], 20, seed=0)["a"].tokens.tolist()
    )
    with pytest.raises(ValueError, match="seed has none for stream 'b'"):
        engine().generate(["a", "b"], [[1], [1]], 2, seed={"a": 1})


def test_sampling_follows_the_distribution() -> None:
    """4,000 streams' first tokens come as often as the model says: a chi-squared statistic within its 99.99 % quantile."""
    e = Engine(language_model(size=SIZE, sharp=1.0), backend="numba", max_streams=4001)
    got = e.generate(list(range(4000)), [[3]] * 4000, 1, seed=1)
    logits = e.push("p", np.array([3]))[0].astype(np.float64)
    expected = np.exp(logits - logits.max())
    expected *= 4000 / expected.sum()
    counts = np.bincount([int(g.tokens[0]) for g in got.values()], minlength=SIZE)
    often = expected >= 5
    assert often.sum() > 10
    assert ((counts - expected) ** 2 / expected)[often].sum() < 56.0


# ---------------------------------------------------------------------------------------------- as they come


def test_generating_gives_the_same_in_pieces() -> None:
    """The pieces end to end are what generate gives; streams leave when they end; no piece is longer than asked for."""
    given, keys = prompts(20, 9), list(range(20))
    whole = engine().generate(keys, given, 31, seed=8, **FILTERED)
    made: dict[int, list[int]] = {key: [] for key in keys}
    for piece in engine().generating(keys, given, 31, every=4, seed=8, **FILTERED):
        for key, tokens in piece.items():
            assert 1 <= len(tokens) <= 4
            assert FILTERED["stop"][0] not in made[key]
            made[key] += tokens.tolist()
    assert made == {key: g.tokens.tolist() for key, g in whole.items()}


def test_a_closed_iterator_leaves_streams_whole() -> None:
    """Closed after two pieces, streams stand after their last tokens and go on from there; a dropped stream leaves the others."""
    whole = engine().generate(["a", "b"], [[1], [2]], 20, seed=3)
    e = engine()
    pieces = e.generating(["a", "b"], [[1], [2]], 20, every=3, seed=3)
    begun = [next(pieces), next(pieces)]
    pieces.close()  # type: ignore[attr-defined]
    rest = e.generate(["a", "b"], None, 14, seed=3)
    for key in "ab":
        assert np.concatenate([*(p[key] for p in begun), rest[key].tokens]).tolist() == whole[key].tokens.tolist()
    e = engine()
    pieces = e.generating(["a", "b"], [[1], [2]], 20, every=3, seed=3)
    next(pieces)
    e.drop("a")
    assert [list(p) for p in pieces] == [["b"]] * 6


def test_generating_tells_of_errors_at_the_end() -> None:
    """A bad prompt takes its stream out; the others come whole, then the error."""
    pieces, seen = engine().generating(["a", "bad"], [[1], [SIZE]], 6, every=2), []
    with pytest.raises(BatchError, match="stream 'bad'"):
        seen.extend(map(list, pieces))
    assert seen == [["a"]] * 3


# ---------------------------------------------------------------------------------------------- beams


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize(
    ("width", "alpha", "stop", "least"),
    [(2, 0.6, (), 0), (4, 0.0, (3, 5), 0), (5, 1.3, (2, 7, 9), 4), (30, 0.6, (1,), 0)],
)
def test_the_oracles_beams(backend: str, width: int, alpha: float, stop: tuple[int, ...], least: int) -> None:
    """Hypotheses, their order, ends and log-probabilities: those of a search that never stops early."""
    keys, given = list(range(4)), prompts(4, 12)
    options: dict[str, Any] = {"stop": stop, "min_steps": least}
    got = engine(backend).generate(keys, given, 9, beam=width, length_penalty=alpha, n_best=min(width, 5), **options)
    for key, prompt in zip(keys, given, strict=True):
        expected = beam_search(NaiveGenerator(model(), key), list(prompt), Call(9, **options), width, alpha)
        assert [g.tokens.tolist() for g in got[key].n_best] == [m.tokens for m in expected[: min(width, 5)]]
        for g, m in zip(got[key].n_best, expected, strict=False):
            assert (g.finished, g.log_probability) == (m.finished, pytest.approx(m.log_probability, abs=1e-3))
        assert got[key].tokens.tolist() == got[key].n_best[0].tokens.tolist()


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 9), st.floats(0, 2))
def test_beams_on_random_models(seed: int, width: int, steps: int, alpha: float) -> None:
    """On the same graph with any prompt, width, length and penalty: the oracle's best hypothesis."""
    random = np.random.default_rng(seed)
    prompt, stop = random.integers(0, SIZE, 3), tuple(random.choice(SIZE, 4, replace=False).tolist())
    got = engine().generate(["x"], [prompt], steps, beam=width, length_penalty=alpha, stop=stop)["x"]
    best = beam_search(NaiveGenerator(model(), "x"), list(prompt), Call(steps, stop=stop), width, alpha)[0]
    assert got.tokens.tolist() == best.tokens


def test_a_stream_goes_on_from_its_best_hypothesis() -> None:
    """After a beam search the row is that of the best: greedy tokens after it are those after the same text as a prompt."""
    e = engine()
    best = e.generate(["x", "y"], [[1, 2], [5]], 7, beam=3, stop=(3,))
    later = e.generate(["x", "y"], None, 9, temperature=0.0)
    for key, prompt in (("x", [1, 2]), ("y", [5])):
        fresh = engine().generate([key], [[*prompt, *best[key].tokens.tolist()]], 9, temperature=0.0)
        assert later[key].tokens.tolist() == fresh[key].tokens.tolist()


def test_more_beams_than_spare_slots() -> None:
    """200 streams of 32 beams do not fit the spare slots at once: they are searched in turn, each as alone."""
    given, keys = prompts(200, 1), list(range(200))
    got = engine().generate(keys, given, 4, beam=32)
    for key in (0, 77, 199):
        same({key: got[key]}, engine().generate([key], [given[key]], 4, beam=32))


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([1, SIZE], f"has token {SIZE} for input 'x', expected 0 to {SIZE - 1}"),
        ([-1], "has token -1"),
        ([0.5], "is float64"),
        ([[1, 2]], r"expected whole numbers \(T,\)"),
        ([], "has no prompt and no generated token"),
        (None, "has no prompt and no generated token"),
    ],
)
def test_a_bad_prompt_is_its_streams_error_alone(prompt: Any, said: str) -> None:
    """The other stream generates; the bad one is not opened, or stays as it was."""
    expected = engine().generate(["good"], [[1]], 5, seed=1)["good"].tokens.tolist()
    e = engine()
    with pytest.raises(BatchError, match=said) as caught:
        e.generate(["bad", "good"], [prompt, [1]], 5, seed=1)
    assert list(caught.value.errors) == ["bad"]
    assert isinstance(caught.value.errors["bad"], FrameError)
    assert caught.value.result["good"].tokens.tolist() == expected
    assert "bad" not in e


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("beam", [1, 2])
def test_logits_that_are_not_finite(backend: str, beam: int) -> None:
    """A stream whose logits break is as it was before the call, its row bit for bit; the others go on."""
    e = Engine(unsteady(), backend=backend)
    e.push("x", np.array([7]))
    before = e.read_rows(["x"]).tobytes()
    with pytest.raises(
        BatchError, match="stream 'x': the model's logits are not finite after 0 generated tokens"
    ) as caught:
        e.generate(["x", "y", "new"], [[7], [1], [7, 7]], 3, stop=(7,), min_steps=3, beam=beam)
    assert set(caught.value.errors) == {"x", "new"}
    assert len(caught.value.result["y"].tokens) == 3
    assert e.read_rows(["x"]).tobytes() == before
    assert e.keys() == ["x", "y"]


def test_a_full_arena() -> None:
    """Streams that find no slot fail alone."""
    e = Engine(model(), backend="numba", max_streams=2)
    with pytest.raises(BatchError) as caught:
        e.generate(["a", "b", "c"], [[1], [2], [3]], 4)
    assert list(caught.value.result) == ["a", "b"]
    assert isinstance(caught.value.errors["c"], ArenaFullError)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_steps": 0}, "max_steps is 0, expected a whole number of at least 1"),
        ({"temperature": -1.0}, "temperature is -1.0, expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0, expected a share above 0, at most 1"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"stop": (SIZE,)}, f"stop has {SIZE}, expected some of the tokens 0 to {SIZE - 1}"),
        ({"stop": ("a",)}, "expected whole numbers: token ids"),
        ({"stop": {"y": (1,)}}, r"stop has 'y', the model's inputs are \['x'\]"),
        ({"beam": 2, "top_k": 3}, "top_k is 3 with beam=2: a beam search does not sample"),
        ({"beam": 2, "n_best": 3}, "expected n_best <= beam <= 32"),
        ({"n_best": 2}, "n_best is 2, expected 1 without a beam"),
        ({"length_penalty": -1.0}, "length_penalty is -1.0"),
    ],
)
def test_keywords_out_of_range(options: dict[str, Any], said: str) -> None:
    """Each is refused with its name, what was given and what is expected, before any stream is touched."""
    e = engine()
    with pytest.raises(ValueError, match=said):
        e.generate(["a"], [[1]], **({"max_steps": 3} | options))
    assert len(e) == 0


def test_models_that_cannot_feed_themselves() -> None:
    """They are refused with their inputs, outputs and shapes."""
    e = Engine(lstm_step(3, 4), backend="numba")
    with pytest.raises(
        BackendError,
        match=r"generation needs integer inputs .* inputs 'x' float32 \(3,\) and outputs 'y' float32 \(4,\)",
    ):
        e.generate(["a"], [[1]], 3)
    with pytest.raises(ValueError, match="beam is 2, a model with 3 inputs is sampled only"):
        Engine(choir(), backend="numba").generate(["a"], [[1, 1, 1]], 3, beam=2)


def test_prompts_must_be_as_many_as_streams() -> None:
    """Two prompts for one stream are refused as a whole."""
    with pytest.raises(FrameError, match="2 prompts for 1 streams"):
        engine().generate(["a"], [[1], [2]], 3)


def test_memory_does_not_grow_with_the_steps_of_pieces() -> None:
    """A thousand pieces leave nothing behind but the stream's row."""
    e, before = engine(), 0
    for n, _ in enumerate(e.generating(["a"], [[1]], 1000)):
        if n == 100:
            gc.collect()
            before = len(gc.get_objects())
    gc.collect()
    assert len(gc.get_objects()) < before + 500


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("beam", [1, 3])
def test_outputs_behind_the_logits_change_no_token(backend: str, beam: int) -> None:
    """A model that gives more than logits, attention for a picture, says what it says without it."""
    keys, prompts = ["a", "b", "c"], [[1, 2], [3], [5, 6, 7]]
    plain, more = (Engine(language_model(beside=b), backend=backend) for b in (False, True))
    one, two = (e.generate(keys, prompts, 12, beam=beam, seed=3) for e in (plain, more))
    assert [one[k].tokens.tolist() for k in keys] == [two[k].tokens.tolist() for k in keys]
