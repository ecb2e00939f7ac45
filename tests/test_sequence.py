"""Models of whole sequences: frames are collected until a stream ends; ragged streams end together and each gives what it gives alone."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import undertow as ut
from undertow.connectors.memory import MemorySink, MemorySource
from undertow.connectors.records import Record
from undertow.connectors.running import run
from undertow.engine import Engine
from undertow.engine.artifact import Artifact, make_artifact, read_artifact, write_artifact
from undertow.engine.collected import PAGE, Collected
from undertow.engine.compiler import missing
from undertow.engine.whole import Whole

from .checks import assert_close
from .pipelines import SECOND, Crash, Cuts, by_stream, cut, pipeline, rows, streams
from .whole_graphs import SIZE, attention_whole, bidirectional_whole, by_oracle, failing_whole, window_whole

MODELS = {"lengths": bidirectional_whole, "equal": attention_whole, "fewer": window_whole}


def chunks(seed: int, lengths: list[int]) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {f"s{i}": noise.normal(size=(n, SIZE)).astype(np.float32) for i, n in enumerate(lengths)}


class Runs:
    """Counts the calls of ONNX Runtime of an engine."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch):
        assert isinstance(engine._executor, Whole)
        self.batches: list[tuple[int, ...]] = []
        session = engine._executor._sequences.backend.session

        class Watched:
            def run(_, names: Any, given: Any) -> Any:
                self.batches.append(given["x"].shape[:2])
                return session.run(names, given)

        monkeypatch.setattr(engine._executor._sequences.backend, "session", Watched())


@pytest.mark.parametrize("name", MODELS)
def test_each_gives_what_it_gives_alone(name: str) -> None:
    """Steps, pushes, forks, snapshots and drops in any order: nothing is ready before the end, and then everything that the
    oracle gives of the frames that the stream had."""
    artifact = MODELS[name]()
    for seed in range(6):
        noise, engine, kept = np.random.default_rng(seed), Engine(artifact, max_streams=40), {}
        for turn in range(60):
            key, action = int(noise.integers(12)), noise.integers(9)
            if action < 4:
                some = {
                    int(k): noise.normal(size=(int(n), SIZE)).astype(np.float32)
                    for k, n in zip(noise.choice(12, 5, False), noise.integers(0, 80, 5), strict=True)
                }
                for k, out in engine.push_many(some).items():
                    assert len(out) == 0
                    kept[k] = np.concatenate([kept.get(k, np.zeros((0, SIZE), np.float32)), some[k]])
            elif action < 7:
                keys = [int(k) for k in noise.choice(12, 4, False)]
                frames = noise.normal(size=(4, SIZE)).astype(np.float32)
                _, ready = engine.step(keys, frames)
                assert not ready.any()
                for k, frame in zip(keys, frames, strict=True):
                    kept[k] = np.concatenate([kept.get(k, np.zeros((0, SIZE), np.float32)), frame[None]])
            elif key in kept and action == 7:
                engine.fork(key, 100 + turn)
                kept[100 + turn] = kept[key]
                if len(kept) > 20:
                    engine.drop(key)
                    del kept[key]
            elif key in kept:
                blob = engine.snapshot(key)
                assert_close(engine.close(key), by_oracle(artifact, kept[key]), f"{seed} {key}")
                engine.restore(key, blob)
        assert {k: engine.frames(k) for k in list(engine.keys())} == {k: len(v) for k, v in kept.items()}
        for k, out in engine.close_many(list(kept)).items():
            assert_close(out, by_oracle(artifact, kept[k]), f"{seed} {k}")
        assert len(engine) == 0


def test_ragged_streams_are_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the graph takes lengths, those within a factor of two go together; without, those of one length."""
    lengths = [*range(20, 40), 7, 5, 5, 20, 0]
    engine = Engine(bidirectional_whole())
    runs = Runs(engine, monkeypatch)
    engine.push_many(chunks(0, lengths))
    engine.close_many(engine.keys())
    assert runs.batches == [(21, 39), (3, 7)]
    engine = Engine(attention_whole(), max_batch=2)
    runs = Runs(engine, monkeypatch)
    engine.push_many(chunks(0, [4, 9, 4, 9, 4, 2]))
    engine.close_many(engine.keys())
    assert runs.batches == [(2, 9), (2, 4), (1, 4), (1, 2)]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 90)), max_size=40))
def test_pages_are_given_back(actions: list[tuple[int, int]]) -> None:
    """Frames added and streams forgotten in any order: each stream reads back its own, and pages that were given back are
    used again before new ones."""
    spec = attention_whole().spec
    collected, kept = Collected(spec, 5, 2000), {i: np.zeros((0, SIZE), np.float32) for i in range(5)}
    most = 0
    for turn, (slot, count) in enumerate(actions):
        if count > 80 or len(kept[slot]) + count > 2000:
            collected.free(slot)
            kept[slot] = kept[slot][:0]
            continue
        new = np.full((count, SIZE), turn, np.float32)
        collected.add(np.array([slot]), np.array([count]), [new])
        kept[slot] = np.concatenate([kept[slot], new])
        most = max(most, sum(-(-len(v) // PAGE) for v in kept.values()))
        for i, expected in kept.items():
            np.testing.assert_array_equal(collected.of(i)[0], expected)
    assert collected._fresh <= most


def test_max_frames_is_the_streams_own_error() -> None:
    """A stream that would be too long stays as it was, or does not open, and the others go on."""
    engine = Engine(bidirectional_whole(), max_frames=10)
    engine.push("a", chunks(0, [8])["s0"])
    with pytest.raises(
        ut.BatchError, match=r"stream 'a': 8 frames are collected and 3 come, at most 10 .* raise max_frames"
    ) as caught:
        engine.push_many(
            {
                "a": np.ones((3, SIZE), np.float32),
                "b": np.ones((10, SIZE), np.float32),
                "c": np.ones((11, SIZE), np.float32),
            }
        )
    assert set(caught.value.errors) == {"a", "c"}
    assert (engine.frames("a"), engine.frames("b"), "c" in engine) == (8, 10, False)
    engine.push("a", np.ones((1, SIZE), np.float32))
    with pytest.raises(ut.BatchError) as caught:
        engine.step(["a", "b"], np.ones((2, SIZE), np.float32))
    assert set(caught.value.errors) == {"b"}
    assert (engine.frames("a"), engine.frames("b")) == (10, 10)
    smaller = Engine(bidirectional_whole(), max_frames=9)
    with pytest.raises(ut.SnapshotError, match="at most 9 are kept"):
        smaller.restore("a", engine.snapshot("a"))
    assert len(smaller) == 0


def test_all_streams_in_a_file(tmp_path: Path) -> None:
    """A file holds every stream's frames; a damaged one, or one with streams that are too long, changes nothing."""
    artifact, whole = bidirectional_whole(), chunks(3, [0, 1, 33, 70])
    engine, other = Engine(artifact), Engine(artifact)
    engine.push_many(whole)
    engine.save(tmp_path / "all")
    other.load(tmp_path / "all")
    for key, out in other.close_many(whole).items():
        assert_close(out, by_oracle(artifact, whole[key]), key)
    with pytest.raises(ut.CheckpointError, match="'s3': 0 frames are collected and 70 come, at most 69"):
        Engine(artifact, max_frames=69).load(tmp_path / "all")
    data = bytearray((tmp_path / "all").read_bytes())
    data[-5] ^= 1
    (tmp_path / "all").write_bytes(data)
    with pytest.raises(ut.CheckpointError, match="damaged"):
        other.load(tmp_path / "all")
    assert len(other) == 0
    empty = Engine(artifact)
    empty.save(tmp_path / "none")
    other.load(tmp_path / "none")
    assert len(other) == 0


def test_a_sequence_that_fails_is_its_own_error() -> None:
    """Of streams that go through the graph together those that it fails on are unchanged, and the others have ended."""
    engine = Engine(failing_whole())
    engine.push_many(chunks(0, [3, 9, 2, 3, 9]))
    with pytest.raises(ut.BatchError) as caught:
        engine.close_many([*engine.keys(), "who"])
    assert set(caught.value.errors) == {"s0", "s2", "s3", "who"}
    assert isinstance(caught.value.errors["s0"], ut.BackendError)
    assert isinstance(caught.value.errors["who"], ut.UnknownStreamError)
    assert {k: v.shape for k, v in caught.value.result.items()} == {"s1": (9, SIZE), "s4": (9, SIZE)}
    assert engine.keys() == ["s0", "s2", "s3"]
    engine.push("s0", np.ones((1, SIZE), np.float32))
    assert engine.close("s0").shape == (4, SIZE)


def test_idle_streams_end_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expiry is one batch; `on_expire` has each stream's outputs, also where another one fails, which is told once."""
    now, told = [0], {}
    engine = Engine(bidirectional_whole(), idle_timeout_s=1, clock=lambda: now[0], on_expire=told.__setitem__)
    runs, whole = Runs(engine, monkeypatch), chunks(1, [6, 9, 8])
    engine.push_many(whole)
    now[0] = 2 * SECOND
    engine.push("late", whole["s0"])
    assert runs.batches == [(3, 9)]
    assert engine.keys() == ["late"]
    for key, tail in told.items():
        assert_close(tail, by_oracle(engine.artifact, whole[key]), key)
    told.clear()
    engine = Engine(failing_whole(), idle_timeout_s=1, clock=lambda: now[0], on_expire=told.__setitem__)
    engine.push_many(chunks(1, [2, 9]))
    now[0] = 4 * SECOND
    with pytest.raises(ut.BatchError, match=r"ONNX Runtime failed on 1 sequences of 2 \.\. 2 frames"):
        engine.expire()
    assert set(told) == {"s1"}
    assert engine.expire() == engine.keys() == []


def test_which_backends() -> None:
    """ONNX Runtime alone runs it, and says so where the compiled backend was asked for."""
    artifact = bidirectional_whole()
    assert missing(artifact) == ["a graph of whole sequences, which is not stepped"]
    with pytest.raises(
        ut.BackendError, match="maps whole sequences, which ONNX Runtime alone runs; backend is 'numba'"
    ):
        Engine(artifact, backend="numba")
    assert Engine(artifact).backend == Engine(artifact, backend="ort").backend == "ort"


def test_a_handle_and_the_artifact(tmp_path: Path) -> None:
    """A handle collects too; the artifact says that it takes whole sequences, and one that also has a delay or states is refused."""
    artifact = window_whole()
    write_artifact(tmp_path / "m.onnx", artifact.model, artifact.spec)
    found = read_artifact(tmp_path / "m.onnx")
    assert found.spec == artifact.spec
    stream = Engine(found).stream("a")
    frames = chunks(0, [6])["s0"]
    assert [stream.step(frame) for frame in frames] == [None] * 6
    assert_close(stream.close(), by_oracle(artifact, frames))
    for change, reason in (
        ({"delay": 1}, "takes whole sequences; it has no states, delay"),
        ({"frames_per_step": 2}, "takes whole sequences"),
        ({"sequence": False}, r"expected \['B', 3\]"),
        ({"lengths_input": "none"}, "the graph has no 'none'"),
    ):
        with pytest.raises(ut.ArtifactError, match=reason):
            make_artifact(artifact.model, msgspec.structs.replace(artifact.spec, **change))


def test_pipelines(tmp_path: Path) -> None:
    """However records are cut and polled, and killed in between: every stream's outputs come once, at its end, numbered from 0,
    at the times of their frames."""
    for name, make in MODELS.items():
        artifact, frames = make(), streams(5, ["a", "b", b"c", 4])
        records = cut(frames, 2)
        for seed in range(3):
            folder = tmp_path / f"{name}{seed}"
            folder.mkdir()
            tables = "[delivery]\ncommit_interval_s = 1e-6\ncheckpoint_interval_s = 1e-6\n" if seed else ""
            placed, sink = pipeline(folder, artifact, tables, backend="auto"), MemorySink()
            for turn in range(3):
                crash_or_not(placed, Cuts(records, seed + turn, 6 * turn + 4), sink)
            run(placed, source=Cuts(records, seed), sink=sink)
            for key, whole in frames.items():
                mine = [a for a in sink.answers if a.key == key]
                if not len(whole):
                    continue
                assert [(a.step, a.end) for a in mine] == [(0, True)]
                start = next(r for r in records if r.key == key).event_time_ns
                assert mine[0].event_time_ns == (start if rows(mine[0]) else None)
                assert_close(mine[0].values["y"], by_oracle(artifact, whole), f"{name} {key}")


def crash_or_not(placed: Any, source: Cuts, sink: MemorySink) -> None:
    try:
        run(placed, source=source, sink=sink)
    except Crash:
        return


def test_a_pipeline_bounds_its_streams(tmp_path: Path) -> None:
    """A record that makes a stream longer than max_frames is a dead letter; the stream goes on and ends, as in an undisturbed run."""
    tables = '[policy]\nbad_record = "dead-letter"\n[dead_letters]\npath = "dead.jsonl"\n'
    ones = np.ones((4, SIZE), np.float32)
    records = [Record("p", i, i + 1, "k", ones[: 4 - i % 2], end=i == 3) for i in range(4)]
    sink = MemorySink()
    run(
        pipeline(tmp_path, attention_whole(), tables, backend="auto", max_frames=11),
        source=MemorySource(records),
        sink=sink,
    )
    assert by_stream(sink.answers)["k"][-1] == ("end", "p/3")
    assert len(sink.outputs("k")["y"]) == 11
    assert "stream 'k': has 11 frames and 3 come, at most 11 are kept" in (tmp_path / "dead.jsonl").read_text()


def exported(module: Any, path: Path, shape: tuple[int, ...] = (2, 20, 6), **options: Any) -> tuple[Artifact, Any]:
    import torch

    report = ut.export(module, torch.randn(shape), path, lookahead="all", **options)
    assert report.parity
    return read_artifact(path), report


def bidirectional(kind: str, **options: Any) -> Any:
    """A stack of two bidirectional layers from states of its own, a norm and a linear layer."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = getattr(nn, kind)(6, 5, 2, batch_first=True, bidirectional=True, **options)
            self.h = nn.Parameter(torch.randn(4, 1, 5))
            self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 3)

        def forward(self, x: Any) -> Any:
            h = self.h.expand(-1, x.shape[0], -1).contiguous()
            y, _ = self.layers(x, (h, 2 * h) if kind == "LSTM" else h)
            return self.head(torch.relu(self.norm(y)))

    return Model()


@pytest.mark.parametrize(
    ("kind", "options"), [("LSTM", {}), ("GRU", {"bias": False}), ("RNN", {"nonlinearity": "relu"})]
)
def test_bidirectional_modules(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """One bidirectional node a layer, told the lengths: ragged sequences in one batch give what torch gives of each alone."""
    import torch

    torch.manual_seed(0)
    module = bidirectional(kind, **options)
    artifact, report = exported(module, tmp_path / "m.onnx")
    assert (artifact.spec.sequence, artifact.spec.lengths, artifact.spec.lengths_input) == (True, (), "lengths")
    assert [n.op_type for n in artifact.model.graph.node].count(kind) == 2
    assert max(report.parity[0].max_abs_error.values()) < 1e-5
    engine, noise = Engine(artifact), np.random.default_rng(0)
    whole = {i: noise.normal(size=(n, 6)).astype(np.float32) for i, n in enumerate([1, 2, 17, 18, 30, 31, 33])}
    engine.push_many(whole)
    for key, out in engine.close_many(whole).items():
        with torch.no_grad():
            assert_close(out, module(torch.from_numpy(whole[key])[None])[0].numpy(), str(key), atol=1e-5)
    assert ut.verify(tmp_path / "m.onnx").ok


def test_modules_that_mix_time_otherwise(tmp_path: Path) -> None:
    """Attention, strides, means, time in front or behind: equal lengths go together, and the artifact knows how many outputs there are."""
    import torch
    from torch import nn

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.conv = nn.GRU(6, 4, bidirectional=True), nn.Conv1d(8, 3, 5, stride=2)

        def forward(self, x: Any) -> Any:  # (T, B, 6) -> (T', B, 3)
            y = self.gru(x)[0]
            y = torch.softmax(torch.einsum("tbf,sbf->bts", y, y), -1) @ y.transpose(0, 1)
            return self.conv(y.transpose(1, 2)).permute(2, 0, 1)

    class Verdict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(6, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:  # (B, 6, T) -> (B, 3)
            return self.head(self.gru(x.transpose(1, 2))[0].mean(1))

    artifact, _ = exported(Mixing(), tmp_path / "mixing.onnx", (20, 2, 6), time_axis=0)
    assert (artifact.spec.lengths_input, artifact.spec.outputs[0].shape) == (None, (3,))
    assert [artifact.spec.outputs_of(n) for n in (1, 4, 5, 6, 7, 50)] == [0, 0, 1, 1, 2, 23]
    artifact, _ = exported(Verdict(), tmp_path / "verdict.onnx", (2, 6, 20), time_axis=2)
    assert [artifact.spec.outputs_of(n) for n in (1, 5, 60_000)] == [1, 1, 1]
    engine = Engine(artifact)
    engine.push("a", np.ones((5, 6), np.float32))
    assert engine.close("a").shape == (1, 3)


def test_outputs_of_another_kind_are_left_out(tmp_path: Path) -> None:
    """A state after the last frame beside an output for each frame is left out, and the report says so."""
    from torch import nn

    artifact, report = exported(nn.LSTM(6, 4, batch_first=True, bidirectional=True), tmp_path / "m.onnx")
    assert [o.name for o in artifact.spec.outputs] == ["output"]
    assert artifact.spec.lengths_input == "lengths"
    assert "one row a stream, where the other outputs have one a frame" in report.notes[0]


def test_the_state_after_the_last_frame(tmp_path: Path) -> None:
    """A verdict from the last state of a layer comes once, at a stream's end; the raw state, batch second, is refused."""
    import torch
    from torch import nn

    class Verdict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(6, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

        def forward(self, x: Any) -> Any:
            return self.head(torch.cat(list(self.gru(x)[1]), -1))

    class Raw(Verdict):
        def forward(self, x: Any) -> Any:
            return self.gru(x)[1]

    module = Verdict()
    artifact, _ = exported(module, tmp_path / "m.onnx")
    engine, whole = (
        Engine(artifact),
        {i: np.random.default_rng(i).normal(size=(i, 6)).astype(np.float32) for i in (1, 4, 9)},
    )
    engine.push_many(whole)
    for key, out in engine.close_many(whole).items():
        with torch.no_grad():
            assert_close(out, module(torch.from_numpy(whole[key])[None]).numpy(), str(key), atol=1e-5)
    with pytest.raises(ut.ExportError, match="one row a stream and the batch at axis 1"):
        exported(Raw(), tmp_path / "m.onnx")


def test_from_the_command_line_and_from_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`undertow export --lookahead all`; and what it wrote, a graph of whole sequences, goes through `convert` likewise."""
    from click.testing import CliRunner

    from undertow.cli_export import export_command

    (tmp_path / "made_whole.py").write_text(
        "from torch import nn\nmake = lambda: nn.RNN(6, 4, batch_first=True, bidirectional=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    call = ["made_whole:make", "-o", "m.onnx", "--example-shape", "2,9,6", "--lookahead"]
    result = CliRunner().invoke(export_command, [*call, "all"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "all outputs of a stream come at its end" in result.stdout
    assert CliRunner().invoke(export_command, [*call, "some"]).exit_code == 2
    artifact = read_artifact(tmp_path / "m.onnx")
    assert artifact.spec.lengths_input == "lengths"
    plain = attention_whole()
    (tmp_path / "whole.onnx").write_bytes(plain.model.SerializeToString())
    report = ut.convert("whole.onnx", "converted.onnx", lookahead="all")
    assert (report.spec.sequence, report.spec.lengths, report.spec.lengths_input) == (True, (), None)
    with pytest.raises(ut.ExportError, match="every frame is seen, so leave them out"):
        ut.convert("whole.onnx", "other.onnx", lookahead="all", window=3)


def test_a_bidirectional_module_is_refused_without_lookahead(tmp_path: Path) -> None:
    """The message names both remedies; nothing is written."""
    import torch

    with pytest.raises(ut.ExportError, match=r"is bidirectional: .*lookahead=R .*lookahead='all'"):
        ut.export(bidirectional("LSTM"), torch.zeros(2, 9, 6), tmp_path / "m.onnx")
    with pytest.raises(ut.ExportError, match="frames_per_step is 2, and with lookahead='all' there are no steps"):
        ut.export(bidirectional("LSTM"), torch.zeros(2, 9, 6), tmp_path / "m.onnx", lookahead="all", frames_per_step=2)
    assert not (tmp_path / "m.onnx").exists()
