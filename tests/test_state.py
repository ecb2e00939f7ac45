"""`undertow state` on the local store of a pipeline that is not from Kafka."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import undertow as ut
from undertow.cli_state import state_command
from undertow.connectors.records import Record
from undertow.connectors.store import Store
from undertow.engine import Engine
from undertow.engine.errors import CheckpointError, ConfigError

from .pipelines import SIZE, Crash, Cuts, pipeline

KEYS: list[Any] = ["pump 1", "pump 2", 7, b"\xff"]


def command(*arguments: Any) -> str:
    done = CliRunner().invoke(state_command, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def records(frames: int, begin: int = 0) -> list[Record]:
    """In turn a frame of each stream, all of one partition; they do not end."""
    noise, made = np.random.default_rng(3), []
    for i in range(frames):
        for key in KEYS:
            value = noise.normal(size=(1, SIZE)).astype(np.float32)
            made.append(Record("part-0", len(made), len(made) + 1, key, value, (1 + i) * 10**9))
    return made[begin:]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A pipeline that has taken five frames of each stream."""
    placed = pipeline(tmp_path)
    ut.run(placed, source=ut.MemorySource(records(5)), sink=ut.MemorySink())
    return tmp_path / "pipeline.toml"


def test_what_is_listed_and_shown(file: Path) -> None:
    """Every stream with its offset, frames and time; its states are those of an engine that has stepped the same frames."""
    listed = json.loads(command("list", file, "--json"))
    assert [s["stream"] for s in listed["streams"]] == [7, {"base64": "/w=="}, "pump 1", "pump 2"]
    assert {(s["partition"], s["offset"], s["frames"], s["event_time"]) for s in listed["streams"]} == {
        ("part-0", 20, 5, "1970-01-01T00:00:05Z")
    }
    assert command("list", file, "--prefix", "pump ").splitlines()[0].split() == [
        "stream", "partition", "offset", "frames", "event_time", "bytes",
    ]  # fmt: skip
    engine = Engine(file.parent / "model.onnx", backend="numba", max_streams=2)
    for r in records(5):
        if r.key == 7:
            engine.push("x", r.value)
    shown = json.loads(command("show", file, "--stream", "7", "--full", "--json"))
    assert shown["states"].keys() == engine.state("x").keys()
    for name, value in engine.state("x").items():
        assert np.array_equal(np.array(shown["states"][name]["values"], value.dtype), value), name
    assert "pump 1" in command("show", file, "--stream", "pump 1")


def test_an_export_is_a_snapshot(file: Path) -> None:
    """Byte for byte what the engine would give, so that any engine of the model goes on from it."""
    engine = Engine(file.parent / "model.onnx", backend="numba", max_streams=2)
    for r in records(5):
        if r.key == b"\xff":
            engine.push("x", r.value)
    command("export", file, file.parent / "blob", "--stream", "base64:/w==")
    other = Engine(file.parent / "model.onnx", backend="numba", max_streams=2)
    other.restore("y", (file.parent / "blob").read_bytes())
    assert {k: v.tobytes() for k, v in other.state("y").items()} == {
        k: v.tobytes() for k, v in engine.state("x").items()
    }
    frame = records(6)[-1].value
    assert np.array_equal(other.push("y", frame), engine.push("x", frame))


def test_a_deleted_stream_begins_anew(file: Path) -> None:
    """Its next answers count from 0; the others go on."""
    command("delete", file, "--stream", "pump 2")
    assert "pump 2" not in command("list", file)
    with pytest.raises(CheckpointError, match="nothing is stored of it"):
        command("delete", file, "--stream", "pump 2")
    sink = ut.MemorySink()
    ut.run(file, source=ut.MemorySource(records(8)), sink=sink)
    steps = {key: [a.step for a in sink.answers if a.key == key and len(a.values["y"])] for key in KEYS}
    assert steps == {"pump 1": [3, 4, 5], "pump 2": [0], 7: [3, 4, 5], b"\xff": [3, 4, 5]}


def test_what_is_refused(file: Path) -> None:
    """A store that a run has open, one that there is not, and an import."""
    engine = Engine(file.parent / "model.onnx", backend="ort", max_streams=2)
    store = Store(file.parent / "test.state", "test", engine.fingerprint)
    try:
        with pytest.raises(CheckpointError, match="runs this store"):
            command("list", file)
    finally:
        store.close()
    with pytest.raises(ConfigError, match="states are imported into changelogs"):
        command("import", file, file, "--stream", "x")
    (file.parent / "test.state" / "data.mdb").unlink()
    with pytest.raises(CheckpointError, match="there is no store"):
        command("list", file)


def test_a_delete_that_a_replay_would_undo_is_refused(tmp_path: Path) -> None:
    """Where records were committed after the last checkpoint; list says so of the partition."""
    placed = pipeline(tmp_path, tables="[delivery]\ncommit_interval_s = 1e-9\ncheckpoint_interval_s = 1000.0")
    ut.run(placed, source=ut.MemorySource(records(5)), sink=(sink := ut.MemorySink()))
    with pytest.raises(Crash):
        ut.run(placed, source=Cuts(records(9), crash_after=10), sink=sink)
    file = tmp_path / "pipeline.toml"
    (place,) = json.loads(command("list", file, "--json"))["partitions"]
    assert place["replay_from"] == 20 < place["committed"]
    with pytest.raises(CheckpointError, match="end it with a signal first"):
        command("delete", file, "--stream", "7")
