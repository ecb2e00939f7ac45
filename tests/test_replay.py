"""`undertow replay` of a pipeline from files: the lines of a run again, for one stream."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import undertow as ut
from undertow.cli_replay import replay_command
from undertow.connectors.differences import Payload, alike, compared, distance
from undertow.engine import Engine
from undertow.engine.artifact import write_artifact
from undertow.engine.errors import ConfigError, ConnectorError, SnapshotError, StreamError

from .step_graph import gru_step, lookahead_step

PIPELINE = """
name = "again"
model = { path = "model.onnx", backend = "numba" }
source = { type = "files", path = "in.jsonl", key_column = "key" }
sink = { type = "files", path = "out.jsonl" }
"""
POLICY = """
[policy]
gap = "hold"
late = "drop"
bad_record = "dead-letter"
idle_timeout_s = 6
[dead_letters]
path = "dead.jsonl"
"""


def command(file: Path, *options: Any, code: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Outputs and report."""
    out = file.parent / "again.jsonl"
    arguments = [str(file), "--out", str(out), "--json", *map(str, options)]
    done = CliRunner().invoke(replay_command, arguments, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return [json.loads(line) for line in out.read_text().splitlines()], json.loads(done.stdout)


def records(keys: list[Any], seed: int) -> list[dict[str, Any]]:
    """Numbered frames with gaps, late ones, bad ones and ends; now and then one key is silent for longer than the others allow."""
    choose, noise, made = random.Random(seed), np.random.default_rng(seed), []
    seqs = dict.fromkeys(keys, 0)
    for at in range(250):
        key = choose.choice(keys if at % 50 < 35 else keys[1:])
        seq = max(0, seqs[key] + choose.choice((0, 0, 0, 0, 0, 0, 2, -1)))
        value: Any = noise.normal(size=(choose.choice((1, 2)), 3)).round(3).tolist()
        made.append({"key": key, "time": at, "seq": seq, "value": value})
        seqs[key] = max(seqs[key], seq + len(value))
        if choose.random() < 0.03:
            made[-1]["value"] = [1.0]
        if choose.random() < 0.03:
            made[-1]["end"], seqs[key] = True, 0
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline with its input, not run yet."""
    artifact = lookahead_step(2)
    write_artifact(tmp_path / "model.onnx", artifact.model, artifact.spec)
    lines = records(["a", "b", 7], 5)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "pipeline.toml").write_text(PIPELINE + POLICY)
    return tmp_path / "pipeline.toml"


def test_a_stream_is_as_in_the_run(file: Path) -> None:
    """Each stream's lines are those of the run, with gaps, late and bad frames, ends, and ends by other streams' times."""
    summary = ut.run(file)
    lines = [json.loads(line) for line in (file.parent / "out.jsonl").read_text().splitlines()]
    assert 0 < summary.dead_letters < summary.late_frames
    dead = [json.loads(line)["stream"] for line in (file.parent / "dead.jsonl").read_text().splitlines()]
    for key in ("a", "b", 7):
        again, report = command(file, "--stream", key)
        assert again == [line for line in lines if line["stream"] == key]
        assert len(report["refused"]) == sum(name == key for name in dead)
    own = sources(file, "a")
    ended_by_others = [line["source"] for line in lines if line["stream"] == "a" and line["source"] not in own]
    assert len(set(ended_by_others)) > 1


def sources(file: Path, key: str) -> set[str]:
    """Where the records of a key begin."""
    found, offset = set(), 0
    for line in (file.parent / "in.jsonl").read_text().splitlines(keepends=True):
        if json.loads(line)["key"] == key:
            found.add(f"in.jsonl/{offset}")
        offset += len(line)
    return found


def test_a_shadow_run(tmp_path: Path) -> None:
    """The differences are those of the two models' outputs; a model beside itself has none."""
    models = [gru_step(3, 4, outputs=2, seed=seed) for seed in (1, 2)]
    for name, artifact in zip(("model", "other"), models, strict=True):
        write_artifact(tmp_path / f"{name}.onnx", artifact.model, artifact.spec)
    frames = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows = [{"key": key, "value": row.tolist()} for row in frames for key in ("a", "b")]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pipeline.toml").write_text(PIPELINE)
    file = tmp_path / "pipeline.toml"
    a, b = (np.asarray(Engine(m, backend="numba", max_streams=1).push("a", frames)) for m in models)
    gaps = np.abs(a.astype(np.float64) - b).max(1)

    lines, report = command(file, "--stream", "a", "--model", tmp_path / "other.onnx", "--tolerance", 0.1)
    y = report["shadow"]["outputs"]["y"]
    assert (y["compared"], y["over"]) == (40, int((gaps > 0.1).sum()))
    assert y["worst"] == pytest.approx(gaps.max(), rel=1e-12)
    assert y["worst_at"].startswith(f"step {gaps.argmax()}, ")
    assert y["first_at"].startswith(f"step {(gaps > 0.1).argmax()}, ")
    assert [line["other"]["y"] for line in lines] == b.tolist()
    _, report = command(file, "--stream", "a", "--model", tmp_path / "model.onnx")
    assert (report["shadow"]["outputs"]["y"]["worst"], report["shadow"]["outputs"]["y"]["over"]) == (0, 0)


def test_a_shadow_run_of_texts(tmp_path: Path) -> None:
    """Texts and lists of words are compared as they are, numbers in them to the tolerance, two events of one step one by one."""
    for name, seed in (("model", 1), ("other", 2)):
        artifact = gru_step(3, 4, outputs=3, seed=seed)
        write_artifact(tmp_path / f"{name}.onnx", artifact.model, artifact.spec)
    file, decode = tmp_path / "pipeline.toml", {"type": "ctc", "labels": ["-", "a", " "], "beam": 4}
    text = ", ".join(f"{key} = {json.dumps(value)}" for key, value in decode.items())
    file.write_text(f"{PIPELINE}decode = {{ {text} }}\n")
    frames = 4 * np.random.default_rng(3).normal(size=(60, 3))  # of which the last one adds to the text
    rows = [{"key": "a", "value": row.tolist(), "end": i == 59} for i, row in enumerate(frames)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines, report = command(file, "--stream", "a", "--model", tmp_path / "model.onnx")
    assert len(lines) > len({line["step"] for line in lines})
    assert all(line["other"]["words"] == line["words"] for line in lines)
    outputs = report["shadow"]["outputs"]
    assert {name: (found["compared"], found["over"]) for name, found in outputs.items()} == dict.fromkeys(
        outputs, (len(lines), 0)
    )
    assert {name for name, found in outputs.items() if found["worst"] is None} == {"text", "words"}
    _, report = command(file, "--stream", "a", "--model", tmp_path / "other.onnx")
    text, words = (report["shadow"]["outputs"][name] for name in ("text", "words"))
    assert text["over"] > 0
    assert words["over"] > 0
    assert text["first"][0] != text["first"][1]


def test_what_is_alike() -> None:
    """Numbers within lists are alike to the tolerance, not beyond, and what is no number is alike or not."""
    words = [{"word": "x", "begin": 1, "confidence": 0.5}]
    assert alike(words, [{"word": "x", "begin": 1, "confidence": 0.5001}], 1e-3)
    assert not alike(words, [{"word": "x", "begin": 1, "confidence": 0.51}], 1e-3)
    assert not alike(words, [{"word": "y", "begin": 1, "confidence": 0.5}], 1.0)
    assert not alike(words, [{"word": "x", "begin": 2, "confidence": 0.5}], 0.1)
    assert not alike(words, [{"word": "x", "begin": 1}], 1.0)
    assert not alike(words, [*words, *words], 1.0)
    assert alike([float("nan")], [float("nan")], 0.0)


def test_on_from_a_snapshot(file: Path) -> None:
    """With a state that was exported and the offset of the next record the outputs go on as if all had been stepped."""
    file.write_text(PIPELINE)
    rows = [{"key": "a", "value": [float(i), 0.0, 1.0]} for i in range(20)]
    text = [json.dumps(row) + "\n" for row in rows]
    (file.parent / "in.jsonl").write_text("".join(text))
    whole, _ = command(file, "--stream", "a")
    engine = Engine(file.parent / "model.onnx", backend="numba", max_streams=1)
    engine.push("x", np.array([row["value"] for row in rows[:9]], np.float32))
    blob, offset = file.parent / "blob", sum(map(len, text[:9]))
    blob.write_bytes(engine.snapshot("x"))
    again, _ = command(file, "--stream", "a", "--snapshot", blob, "--from", offset, "--partition", "in.jsonl")
    assert [(line["step"], line["y"]) for line in again] == [(line["step"], line["y"]) for line in whole[7:]]
    few, report = command(file, "--stream", "a", "--to", offset, "--partition", "in.jsonl")
    assert few == whole[:7]
    assert report["records"] == 9
    with pytest.raises(SnapshotError, match="--from"):
        command(file, "--stream", "a", "--snapshot", blob)


def test_what_is_refused(file: Path) -> None:
    """No such stream; an offset of no file; a comparison without topics; a model with other inputs; a bad record where that stops the run."""
    with pytest.raises(ConnectorError, match="no record in"):
        command(file, "--stream", "nobody")
    with pytest.raises(ConfigError, match="--partition"):
        command(file, "--stream", "a", "--from", 3)
    with pytest.raises(ConfigError, match="--compare is with"):
        command(file, "--stream", "a", "--compare")
    with pytest.raises(ConfigError, match="state export"):
        command(file, "--stream", "a", "--from", "changelog")
    other = gru_step(5, 4)
    write_artifact(file.parent / "other.onnx", other.model, other.spec)
    with pytest.raises(ConfigError, match="the same frames"):
        command(file, "--stream", "a", "--model", file.parent / "other.onnx")
    file.write_text(PIPELINE)
    with pytest.raises(StreamError, match="late or a duplicate"):
        command(file, "--stream", "a")


def test_what_was_written_is_told_from_what_was_not() -> None:
    """Equal, other, missing, repeated and foreign records of an output topic are counted apart."""
    again = [Payload("t/0/1", 0, False, b"a"), Payload("t/0/2", 1, False, b"b"), Payload("t/0/3", 2, False, b"c")]
    found = compared(again, {("t/0/1", 0): [b"a", b"a"], ("t/0/2", 1): [b"x"], ("t/0/9", 8): [b"z"]})
    assert (found.equal, found.differ, found.missing, found.repeated, found.foreign) == (1, 1, 1, 1, 1)
    assert found.first == ["step 1, t/0/2", "b", "x"]
    assert not found.alike
    assert distance(np.array([1.0, np.nan]), np.array([1.5, np.nan])) == 0.5
    assert distance(np.array([1.0, np.nan]), np.array([1.5, 0.0])) == np.inf
    assert distance(np.array([2**62 + 1]), np.array([2**62])) == 1
