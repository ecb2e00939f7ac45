"""Encoders with their decoders in one artifact: what torch says of a source is what the engine says, whatever else it reads and steps."""

import base64
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import undertow as ut  # noqa: E402
from undertow.engine import artifact as module  # noqa: E402
from undertow.engine.encoder_entry import ENCODER_KEY  # noqa: E402
from undertow.engine.generation_call import stream_seed  # noqa: E402

from .decoded import in_pieces  # noqa: E402
from .naive_seq2seq import Additive, beam, greedy  # noqa: E402
from .nets_seq2seq import ROOM, SAID, START, STOP, TOKENS, ByTorch, pair, sources  # noqa: E402
from .torch_exports import one_operator_library  # noqa: E402, F401

EXAMPLES = {
    kind: torch.from_numpy(np.stack(sources(kind, 2, longest=8)[:1] * 2)) for kind in ("additive", "dot", "coverage")
}
MOST = 15


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """By kind: its modules, the artifact's path and the report, each exported once."""
    made = {}

    def of(kind):
        if kind not in made:
            path, both = tmp_path_factory.mktemp(kind) / f"{kind}.onnx", pair(kind)
            made[kind] = (
                *both,
                path,
                ut.export_seq2seq(*both, EXAMPLES[kind], path, max_memory=ROOM, start=START, stop=STOP),
            )
        return made[kind]

    return of


def scores_of(out):
    return out["scores"] if isinstance(out, dict) else out


def greedy_by_engine(engine, keys):
    """Each stream's greedy tokens, all stepped as one batch until the last has stopped."""
    said, live, tokens = {key: [] for key in keys}, list(keys), [START] * len(keys)
    for _ in range(MOST):
        values, _ = engine.step(live, np.array(tokens))
        best = scores_of(values).argmax(1).tolist()
        on = [(key, token) for key, token in zip(live, best, strict=True) if token != STOP]
        for key, token in on:
            said[key].append(token)
        live, tokens = [key for key, _ in on], [token for _, token in on]
        if not live:
            break
    return said


def beam_by_engine(engine, key, width):
    """The best hypothesis and its log-probability; each is a stream, forked from the one that it goes on from."""

    def step(token, at):
        step.made += 1
        new = f"{key}/{step.made}"
        engine.fork(at, new)
        return scores_of(engine.push(new, np.array([token])))[0], new

    step.made = 0
    found = beam(step, key, START, STOP, MOST, width)
    for made in range(1, step.made + 1):
        engine.drop(f"{key}/{made}")
    return found


@pytest.mark.parametrize("kind", ["additive", "dot", "coverage"])
def test_the_artifact_says_what_fills_what(exported, kind):
    """Memory and first states by the names that `begin` gives them; the certificate covers both backends, and torch's greedy tokens."""
    _, _, path, report = exported(kind)
    spec = ut.read_artifact(path).spec
    assert spec == report.spec
    assert (spec.encoder.max_memory, spec.encoder.start, spec.encoder.stop) == (ROOM, START, STOP)
    filled = {
        "additive": ({"memory.values", "memory.keys"}, {"state"}),
        "dot": ({"memory"}, {"state.cell.0", "state.cell.1", "state.fed"}),
        "coverage": ({"memory.0", "state.1"}, {"state.0"}),
    }[kind]
    assert ({s for _, s in spec.encoder.memory}, {s for _, s in spec.encoder.initial}) == filled
    constant = {s.name for s in spec.states if s.next == s.name}
    assert constant == {s for s in filled[0] if s.startswith("memory")} | {"memory.length"}
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    for line in report.parity:
        assert line.greedy[0] == line.greedy[1] > 0
        assert all(error <= line.tolerance[name] for name, error in line.max_abs_error.items())
    assert (ut.read_artifact(path).encoder.spec.lengths_input is None) == (kind == "coverage")


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("kind", ["additive", "dot", "coverage"])
def test_greedy_is_torchs_own_for_ragged_sources(exported, kind, backend):
    """Sixty sources of 1 to the most positions read together and stepped as one batch: the tokens of torch's loop over each alone."""
    encoder, decoder, path, _ = exported(kind)
    engine, given = ut.Engine(path, backend=backend), dict(enumerate(sources(kind, 60)))
    read = engine.read_many(given)
    assert read == {key: len(s) // (2 if kind == "coverage" else 1) for key, s in given.items()}
    said = greedy_by_engine(engine, list(given))
    for key, source in given.items():
        one = ByTorch(encoder, decoder, source)
        assert said[key] == greedy(one.step, one.first, START, STOP, MOST), key
    assert len({tuple(tokens) for tokens in said.values()}) > 15


def test_torch_and_the_formulas_agree(exported):
    """The oracle, written from the paper's formulas, says the same tokens and nearly the same scores as torch and the engine."""
    encoder, decoder, path, _ = exported("additive")
    weights = [{n: w.numpy() for n, w in part.state_dict().items()} for part in (encoder, decoder)]
    oracle, engine = Additive(*weights), ut.Engine(path, backend="numba")
    for i, source in enumerate(sources("additive", 12, seed=4)):
        engine.read(i, source)
        tokens = np.array([START, *greedy(oracle.step, oracle.begin(source), START, STOP, MOST)])
        scores, state = [], oracle.begin(source)
        for token in tokens:
            row, state = oracle.step(token, state)
            scores.append(row)
        np.testing.assert_allclose(engine.push(i, tokens), np.stack(scores), atol=1e-4)
        assert greedy_by_engine_again(engine, i, source) == tokens[1:].tolist()


def greedy_by_engine_again(engine, key, source):
    engine.read(key, source)
    return greedy_by_engine(engine, [key])[key]


@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_beam_search_on_forks_is_torchs_own(exported, kind):
    """Hypotheses that are forks of a stream share its source: the best of a beam of three is torch's, with its log-probability."""
    encoder, decoder, path, _ = exported(kind)
    engine, given = ut.Engine(path, backend="numba"), dict(enumerate(sources(kind, 8, seed=2)))
    engine.read_many(given)
    for key, source in given.items():
        one = ByTorch(encoder, decoder, source)
        said, total = beam(one.step, one.first, START, STOP, MOST, 3)
        mine, mine_total = beam_by_engine(engine, key, 3)
        assert mine == said
        assert mine_total == pytest.approx(total, abs=1e-3)
    assert engine.keys() == list(given)


@pytest.mark.parametrize("kind", ["additive", "coverage"])
def test_a_stream_is_the_same_in_any_company(exported, kind):
    """Read and stepped alone, or among others in chunks of any length, a stream's scores are equal to the bit; and torch's but for rounding."""
    encoder, decoder, path, _ = exported(kind)
    rng, engine = np.random.default_rng(3), ut.Engine(path, backend="numba")
    given = dict(enumerate(sources(kind, 20, seed=3)))
    engine.read_many(given)
    targets = {key: rng.integers(0, SAID, rng.integers(1, 25)) for key in given}
    parts, done = {key: [] for key in given}, dict.fromkeys(given, 0)
    while any(done[key] < len(t) for key, t in targets.items()):
        chunks = {k: t[done[k] : done[k] + rng.integers(1, 6)] for k, t in targets.items() if done[k] < len(t)}
        for key, out in engine.push_many(chunks).items():
            parts[key].append(scores_of(out))
            done[key] += len(out)
    alone = ut.Engine(path, backend="numba")
    for key, source in given.items():
        together = np.concatenate(parts[key])
        alone.read("only", source)
        if kind == "additive":
            np.testing.assert_array_equal(scores_of(alone.push("only", targets[key])), together)
        np.testing.assert_allclose(together, ByTorch(encoder, decoder, source).forced(targets[key]), atol=1e-4)


def test_snapshots_and_files_carry_memory(exported, tmp_path):
    """A stream that is snapshotted, or saved with all others, after its source and some tokens goes on elsewhere to the same bits."""
    _, _, path, _ = exported("dot")
    engine, other = ut.Engine(path, backend="numba"), ut.Engine(path, backend="numba")
    given, tokens = dict(enumerate(sources("dot", 9, seed=5))), np.random.default_rng(5).integers(0, SAID, 14)
    engine.read_many(given)
    engine.push_many({key: tokens[: key + 1] for key in given})
    other.restore("moved", engine.snapshot(4))
    engine.save(tmp_path / "all")
    other.load(tmp_path / "all")
    for key in given:
        rest = engine.push(key, tokens[key + 1 :])
        again = other.push(key, tokens[key + 1 :])
        np.testing.assert_array_equal(again["scores"], rest["scores"])
        if key == 4:
            np.testing.assert_array_equal(other.push("moved", tokens[5:])["attention"], rest["attention"])


def test_a_stream_begins_anew_with_its_next_source(exported):
    """Nothing of a longer source, nor of what was said, is left when a stream reads another: its row is that of a new stream."""
    _, _, path, _ = exported("additive")
    engine, long, short = ut.Engine(path, backend="ort"), *list(sources("additive", 2))
    engine.read_many({"used": long, "new": short})
    engine.push("used", np.array([START, 5, 7]))
    assert engine.frames("used") == 3
    engine.read("used", short)
    assert engine.frames("used") == 0
    for name, value in engine.state("new").items():
        np.testing.assert_array_equal(engine.state("used")[name], value, name)
    assert engine.state("new")["memory.length"] == 1


def test_sources_fail_alone(exported):
    """A source that is too long, empty, of the wrong shape or of unknown tokens is its own stream's error, which stays as it was or does not open."""
    _, _, path, _ = exported("additive")
    engine = ut.Engine(path, max_streams=3)
    engine.read("kept", np.array([3, 4]))
    engine.push("kept", np.array([START]))
    before = engine.read_rows(["kept"])
    bad = {
        "kept": np.zeros(ROOM + 1, np.int64),
        "empty": np.zeros(0, np.int64),
        "shape": np.zeros((3, 2), np.int64),
        "unknown": np.array([TOKENS]),
    }
    with pytest.raises(ut.BatchError) as caught:
        engine.read_many({**bad, "a": np.array([1]), "b": np.arange(ROOM) % TOKENS, "c": np.array([1])})
    errors = caught.value.errors
    assert set(errors) == {*bad, "c"}
    assert all(isinstance(errors[key], ut.FrameError) for key in bad)
    assert f"has {ROOM + 1} positions, memory has room for {ROOM}" in str(errors["kept"])
    assert "too short" in str(errors["empty"])
    assert len(caught.value.result) == 2
    assert caught.value.result["b"] == ROOM
    assert set(engine.keys()) == {"kept", *caught.value.result}
    np.testing.assert_array_equal(engine.read_rows(["kept"]), before)
    with pytest.raises(ut.FrameError, match="positions"):
        engine.read("kept", bad["kept"])


def test_a_stream_without_a_source_is_not_stepped(exported):
    """A token for a stream that has read nothing is refused, in a batch and alone, and opens no stream; the others go on."""
    _, _, path, _ = exported("additive")
    engine = ut.Engine(path)
    engine.read("read", np.array([3, 4]))
    with pytest.raises(ut.FrameError, match=r"stream 'new': has read no source; .* engine.read"):
        engine.push("new", np.array([START]))
    with pytest.raises(ut.BatchError) as caught:
        engine.step(["read", "new"], np.array([START, START]))
    assert set(caught.value.errors) == {"new"}
    assert caught.value.result[1].tolist() == [True, False]
    assert engine.keys() == ["read"]
    opened = engine.stream("handle")
    with pytest.raises(ut.FrameError, match="has read no source"):
        opened.step(np.array(START))


def test_a_model_without_an_encoder_reads_nothing(exported, tmp_path):
    """`read` of a plain model says that it has no encoder."""
    _, _, path, _ = exported("additive")
    found = ut.read_artifact(path)
    spec = msgspec.structs.replace(found.spec, encoder=None)
    module.write_artifact(tmp_path / "plain.onnx", found.model, spec)
    with pytest.raises(ut.BackendError, match=r"plain.onnx: has no encoder"):
        ut.Engine(tmp_path / "plain.onnx").read("a", np.array([1]))


def entries(path):
    model = onnx.load(path)
    return model, {p.key: p for p in model.metadata_props}


def sealed(model, found, path):
    """Writes an edited file whose checksum is right all the same."""
    text, entry = found[module.SPEC_KEY].value, found[ENCODER_KEY].value if ENCODER_KEY in found else None
    found[module.DIGEST_KEY].value = module._digest(text.encode(), model, entry)
    path.write_bytes(model.SerializeToString())


def test_a_damaged_encoder_is_refused(exported, tmp_path):
    """Bytes of the encoder that changed, or that are gone, are found by the checksum; what is wrong in it under a right checksum is named."""
    path, bad = exported("additive")[2], tmp_path / "bad.onnx"
    model, found = entries(path)
    text = found[ENCODER_KEY].value
    found[ENCODER_KEY].value = text[:5000] + ("A" if text[5000] != "A" else "B") + text[5001:]
    bad.write_bytes(model.SerializeToString())
    with pytest.raises(ut.ArtifactError, match="checksum"):
        ut.read_artifact(bad)
    for wrong, message in (
        (text[: len(text) // 8 * 4], "damaged|not a"),
        ("not base64!", "is damaged"),
        ("", "its encoder: has no 'undertow'"),
    ):
        found[ENCODER_KEY].value = wrong
        sealed(model, found, bad)
        with pytest.raises(ut.ArtifactError, match=message):
            ut.read_artifact(bad)
    model, found = entries(path)
    kept = [p for p in model.metadata_props if p.key != ENCODER_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    sealed(model, {p.key: p for p in model.metadata_props}, bad)
    with pytest.raises(ut.ArtifactError, match=f"no entry '{ENCODER_KEY}'"):
        ut.read_artifact(bad)


def test_an_edited_encoder_is_refused(exported, tmp_path):
    """An encoder of another model, whose weights were changed, whose pairs do not fit or whose own checksum is wrong is refused under a right outer checksum."""
    path, bad = exported("additive")[2], tmp_path / "bad.onnx"
    model, found = entries(path)
    inner = onnx.ModelProto.FromString(base64.b64decode(found[ENCODER_KEY].value))
    inner.graph.initializer[0].name += "?"
    found[ENCODER_KEY].value = base64.b64encode(inner.SerializeToString()).decode()
    sealed(model, found, bad)
    with pytest.raises(ut.ArtifactError, match="its encoder: the checksum"):
        ut.read_artifact(bad)
    artifact = ut.read_artifact(path)
    encoder = artifact.spec.encoder
    (first, second), rest = encoder.memory, encoder.initial
    wrong = {
        "state 'memory.keys' is float32": {"memory": ((first[0], second[1]), (second[0], first[1]))},
        "fills no state": {"memory": (first,)},
        "is filled twice": {"memory": (first, second, first)},
        "does not exist": {"initial": (("nothing", rest[0][1]),)},
        "expected a state int64": {"length": "state"},
        "needs float32": {"max_memory": ROOM + 1},
    }
    for message, changes in wrong.items():
        spec = msgspec.structs.replace(artifact.spec, encoder=msgspec.structs.replace(encoder, **changes))
        with pytest.raises(ut.ArtifactError, match=message):
            module.make_artifact(artifact.model, spec, encoder=artifact.encoder)
    with pytest.raises(ut.ArtifactError, match="in one of metadata and file"):
        module.make_artifact(artifact.model, artifact.spec)
    stranger = ut.read_artifact(exported("dot")[2])
    with pytest.raises(ut.ArtifactError, match="does not exist"):
        module.make_artifact(artifact.model, artifact.spec, encoder=stranger.encoder)


def test_snapshots_are_of_encoder_and_decoder(exported, tmp_path):
    """A snapshot is refused by a model whose decoder is the same and whose encoder is another."""
    path = exported("additive")[2]
    artifact = ut.read_artifact(path)
    other = onnx.ModelProto()
    other.CopyFrom(artifact.encoder.model)
    weight = next(t for t in other.graph.initializer if len(t.raw_data) > 1000)
    weight.raw_data = weight.raw_data[4:] + weight.raw_data[:4]
    changed = module.make_artifact(other, artifact.encoder.spec)
    engine = ut.Engine(path, backend="ort")
    engine.read("a", np.array([1, 2]))
    second = ut.Engine(module.make_artifact(artifact.model, artifact.spec, encoder=changed), backend="ort")
    with pytest.raises(ut.SnapshotError, match="other weights or another graph"):
        second.restore("a", engine.snapshot("a"))


@pytest.mark.parametrize("kind", EXAMPLES)
@pytest.mark.parametrize("how", [{"temperature": 0.0}, {"beam": 4}, {"temperature": 0.8, "seed": 4}])
def test_a_stream_that_ends_is_translated(exported, kind, how):
    """`decode = generate`: frames are collected in any pieces, a stream's end gives what reading its source and generating gives; what memory
    has no room for is refused with the frame that is too much."""
    path, given = exported(kind)[2], {f"s{i}": s for i, s in enumerate(sources(kind, 5))}
    engine = ut.Engine(path, decode={"type": "generate", "max_steps": MOST, **how}, max_streams=32)
    alone = ut.Engine(path, max_streams=32)
    got = in_pieces(engine, given, 3)
    for key, source in given.items():
        alone.read(key, source)
        seed = {"seed": {key: stream_seed(how.get("seed", 0), key)}}
        made = alone.generate([key], [[START]], MOST, stop=[STOP], **how | seed)[key]
        (event,) = got[key]
        assert (event["tokens"], event["finished"]) == (made.tokens.tolist(), made.finished)
        assert event["at"] == len(source) - 1
    longest = max(given.values(), key=len)
    engine.push("long", longest)
    with pytest.raises(ut.FrameError, match="memory has room for"):
        engine.push("long", np.concatenate([longest, longest])[: 2 * len(longest)])
    assert len(engine.close("long")) == 1


def test_a_model_that_names_no_start_needs_one(exported):
    """A ConfigError before anything is read."""
    made = ut.read_artifact(exported("dot")[2])
    spec = msgspec.structs.replace(made.spec, encoder=msgspec.structs.replace(made.spec.encoder, start=None))
    with pytest.raises(ut.ConfigError, match="which token a text begins with"):
        ut.Engine(replace(made, spec=spec), decode={"type": "generate", "max_steps": 3})
