"""Snapshots, forks and checkpoints: a stream goes on elsewhere as if nothing had happened; what is damaged is refused."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertow.engine import Engine
from undertow.engine import snapshot as module
from undertow.engine.errors import ArenaFullError, CheckpointError, SnapshotError, StreamError

from .checks import assert_close, assert_same_bits, joined
from .graphs import bare, cut, frames
from .naive import NaiveEngine
from .step_graph import StepGraph, gru_step
from .test_engine_properties import BACKENDS, known

MODELS = ["hazards", "subsampled", "late", "lstm"]


def engine_of(name: str, backend: str, **options: Any) -> Engine:
    return Engine(known(name), backend=backend, **({"max_streams": 8} | options))


def everything(engine: Engine) -> dict[Any, bytes]:
    """What an operation that failed must leave as it was."""
    return {key: engine.snapshot(key) for key in list(engine.keys())}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_resume_anywhere(name: str, backend: str) -> None:
    """Cut after any frame, a snapshot restored in another engine gives the rest: the same bits, and what naive gives."""
    here, there = engine_of(name, backend), engine_of(name, backend, max_streams=1)
    chunk = frames(here.spec, 9, seed=1)
    whole = joined([here.push("a", bare(here.spec, chunk)), here.close("a")])
    assert_close(whole, NaiveEngine(known(name)).run(chunk))
    for t in range(10):
        start = here.push("a", bare(here.spec, cut(chunk, 0, t)))
        blob = here.snapshot("a")
        here.drop("a")
        there.restore("z", blob)
        assert there.frames("z") == t
        assert there.snapshot("z")[-8:] == blob[-8:]
        rest = there.push("z", bare(there.spec, cut(chunk, t, 9)))
        assert_same_bits(joined([start, rest, there.close("z")]), whole, f"{name}, cut at {t}:")


def test_snapshots_move_between_backends() -> None:
    """A snapshot of the compiled backend goes on in ONNX Runtime, and back."""
    for name in MODELS:
        engines = [engine_of(name, backend) for backend in BACKENDS]
        chunk = frames(engines[0].spec, 12, seed=2)
        parts, blob = [], None
        for i in range(4):
            engine = engines[i % 2]
            if blob is not None:
                engine.restore("a", blob)
            parts.append(engine.push("a", bare(engine.spec, cut(chunk, 3 * i, 3 * i + 3))))
            blob = engine.snapshot("a")
        assert_close(joined([*parts, engines[1].close("a")]), NaiveEngine(known(name)).run(chunk), name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_restore_in_place(backend: str) -> None:
    """Restoring onto a resident stream replaces its past; the snapshot can be used again; handles go on."""
    engine = engine_of("hazards", backend)
    chunk = frames(engine.spec, 8, seed=3)["x"]
    stream = engine.stream("a")
    stream.push(chunk[:4])
    blob = engine.snapshot("a")
    expected = stream.push(chunk[4:])
    for _ in range(2):
        engine.restore("a", blob)
        assert_same_bits(stream.push(chunk[4:]), expected)
    for kind in (bytearray, memoryview):
        engine.restore("b", kind(blob))
        assert_same_bits(engine.push("b", chunk[4:]), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["subsampled", "hazards"])
def test_fork(name: str, backend: str) -> None:
    """Two streams with one past and two futures; neither sees the other."""
    engine, naive = engine_of(name, backend), NaiveEngine(known(name))
    past, one, two = (frames(engine.spec, n, seed=n) for n in (5, 4, 6))
    assert_close(engine.push("a", bare(engine.spec, past)), naive.push("a", past))
    engine.fork("a", "b")
    naive.fork("a", "b")
    assert engine.frames("b") == 5
    for key, chunk in (("a", one), ("b", two), ("a", two)):
        assert_close(engine.push(key, bare(engine.spec, chunk)), naive.push(key, chunk))
    assert_close(engine.close("a"), naive.close("a"))
    assert_close(engine.close("b"), naive.close("b"))


def test_fork_onto_a_resident_stream() -> None:
    """A fork never overwrites a stream: neither another nor itself."""
    engine = engine_of("lstm", "ort")
    for key in ("a", "b"):
        engine.push(key, frames(engine.spec, 2, seed=1)["x"])
    before = everything(engine)
    for target in ("a", "b"):
        with pytest.raises(StreamError, match="resident already"):
            engine.fork("a", target)
    with pytest.raises(StreamError, match="str, bytes or int"):
        engine.fork("a", 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(StreamError, match="str, bytes or int"):
        engine.restore(None, before["a"])  # pyright: ignore[reportArgumentType]
    assert everything(engine) == before


def tiny(seed: int = 0) -> Any:
    g = StepGraph(seed)
    x, h = g.input("x", (1,)), g.state("h", (1,))
    g.next("h", g.op("Add", h, g.op("Mul", x, g.noise(1))))
    g.output("y", h, (1,))
    return g.artifact()


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_of_a_snapshot(flip: int) -> None:
    """A snapshot with any byte changed, cut off anywhere, or with something behind it is refused and changes nothing."""
    engine = Engine(tiny(), backend="ort", max_streams=2)
    engine.push("a", np.ones((3, 1), np.float32))
    blob = engine.snapshot("a")
    engine.push("a", np.ones((1, 1), np.float32))
    before = everything(engine)
    damaged = [blob[:i] + bytes([blob[i] ^ flip]) + blob[i + 1 :] for i in range(len(blob))]
    damaged += [blob[:i] for i in range(len(blob))] + [blob + b"\x00", blob + blob]
    for bad in damaged:
        for key in ("a", "new"):
            with pytest.raises(SnapshotError, match=f"'{key}'"):
                engine.restore(key, bad)
    assert everything(engine) == before
    engine.restore("new", blob)


@pytest.mark.parametrize("bad", [None, "text", 5, b"", b"\x00" * 64, [1], np.zeros(3)])
def test_what_is_no_snapshot(bad: Any) -> None:
    """Anything else than bytes of a snapshot is a SnapshotError that names the stream."""
    engine = Engine(tiny(), backend="ort", max_streams=2)
    with pytest.raises(SnapshotError, match="'a'"):
        engine.restore("a", bad)
    assert len(engine) == 0


def forged(row: bytes, **changes: Any) -> bytes:
    """A sealed snapshot of `tiny` with this row."""
    artifact = tiny()
    content = {"fingerprint": artifact.fingerprint, "states": [("h", [1], "float32")], "row": row} | changes
    return module._seal(module._SNAPSHOT, module._Snapshot(**content))


@pytest.mark.parametrize("rows", [0, -1, 1, 8, 1000])
def test_a_sealed_row_of_another_length(rows: int) -> None:
    """A snapshot whose checksum fits but whose row is too long or too short is refused and takes no slot."""
    engine = Engine(tiny(), backend="ort", max_streams=1)
    engine.push("a", np.ones((3, 1), np.float32))
    size = engine._arena.row_bytes
    engine.drop("a")
    row = b"" if rows == 0 else bytes(size + rows)
    with pytest.raises(SnapshotError):
        engine.restore("a", forged(row))
    assert len(engine) == 0
    engine.restore("a", forged(bytes(size)))


@pytest.mark.parametrize("frames_seen", [-1, -(2**63), 2**63 - 1])
def test_a_sealed_row_with_an_impossible_count(frames_seen: int) -> None:
    """A number of frames that no stream can have is refused: it would address buffered frames that are not there."""
    engine = engine_of("subsampled", "ort")
    engine.push("a", frames(engine.spec, 2, seed=0)["x"])
    found = module._open(module._SNAPSHOT, engine.snapshot("a"), module._Snapshot, "it", SnapshotError)
    slot = engine._arena.slot("a")
    engine._arena.frames[slot] = frames_seen
    row = engine._arena.rows[slot].tobytes()
    blob = module._seal(module._SNAPSHOT, module._Snapshot(found.fingerprint, found.states, row))
    with pytest.raises(SnapshotError):
        engine.restore("b", blob)
    assert "b" not in engine


def test_snapshots_of_another_model(tmp_path: Path) -> None:
    """Other weights, other sizes, other initial values or other names: refused by each other, with what differs."""
    one = Engine(gru_step(2, 3, seed=1), backend="ort", max_streams=2)
    one.push("a", np.ones((2, 2), np.float32))
    blob = one.snapshot("a")
    one.save(tmp_path / "one.ckpt")
    others = [(gru_step(2, 3, seed=2), "weights"), (gru_step(2, 4, seed=1), r"\(3,\).*\(4,\)"), (tiny(), "state 'h0'")]
    for artifact, message in others:
        other = Engine(artifact, backend="ort", max_streams=2)
        with pytest.raises(SnapshotError, match=message):
            other.restore("a", blob)
        with pytest.raises(CheckpointError, match=message):
            other.load(tmp_path / "one.ckpt")
        assert len(other) == 0
    with pytest.raises(SnapshotError):
        one.restore("a", (tmp_path / "one.ckpt").read_bytes())
    (tmp_path / "blob.ckpt").write_bytes(blob)
    with pytest.raises(CheckpointError):
        Engine(gru_step(2, 3, seed=1), backend="ort", max_streams=2).load(tmp_path / "blob.ckpt")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", MODELS)
def test_save_and_load(name: str, backend: str, tmp_path: Path) -> None:
    """Every stream, under keys of every type, goes on after a load in another engine as it would have here."""
    here, there = engine_of(name, backend), engine_of(name, backend)
    keys = ["text", "", b"bytes\xff", 0, -5, 2**63 - 1]
    chunks = {key: frames(here.spec, 3 + i, seed=i) for i, key in enumerate(keys)}
    here.push_many({key: bare(here.spec, chunk) for key, chunk in chunks.items()})
    here.save(tmp_path / "all.ckpt")
    assert os.listdir(tmp_path) == ["all.ckpt"]
    there.push("beside", bare(there.spec, chunks["text"]))
    there.load(tmp_path / "all.ckpt")
    assert set(there.keys()) == {*keys, "beside"}
    for key in keys:
        assert type(there.keys()[there.keys().index(key)]) is type(key)
        assert there.frames(key) == here.frames(key)
        more = bare(here.spec, frames(here.spec, 4, seed=50))
        assert_same_bits(
            joined([there.push(key, more), there.close(key)]), joined([here.push(key, more), here.close(key)])
        )


def test_an_empty_engine(tmp_path: Path) -> None:
    """No stream is a checkpoint too."""
    engine = engine_of("lstm", "ort")
    engine.save(tmp_path / "none.ckpt")
    engine.load(tmp_path / "none.ckpt")
    assert len(engine) == 0


def test_every_byte_of_a_checkpoint(tmp_path: Path) -> None:
    """A checkpoint with any byte changed or cut off anywhere is refused with its path, and nothing is loaded."""
    saved = Engine(tiny(), backend="ort", max_streams=4)
    for key in ("a", b"b", 3):
        saved.push(key, np.ones((2, 1), np.float32))
    path = tmp_path / "all.ckpt"
    saved.save(path)
    data = path.read_bytes()
    engine = Engine(tiny(), backend="ort", max_streams=4)
    engine.push("here", np.ones((1, 1), np.float32))
    before = everything(engine)
    damaged = [data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :] for i in range(len(data)) for flip in (1, 0xFF)]
    for bad in [*damaged, *(data[:i] for i in range(len(data))), data + b"\x00"]:
        path.write_bytes(bad)
        with pytest.raises(CheckpointError, match=r"all\.ckpt"):
            engine.load(path)
    assert everything(engine) == before
    path.write_bytes(data)
    engine.load(path)
    assert len(engine) == 4


def test_a_load_that_does_not_fit(tmp_path: Path) -> None:
    """Too many streams, a stream that is resident already, a file that is not there: refused as a whole."""
    saved = engine_of("lstm", "ort")
    for key in ("a", "b", "c"):
        saved.push(key, frames(saved.spec, 2, seed=1)["x"])
    saved.save(tmp_path / "all.ckpt")
    small = engine_of("lstm", "ort", max_streams=2)
    with pytest.raises(CheckpointError, match=r"3 streams.*max_streams"):
        small.load(tmp_path / "all.ckpt")
    full = engine_of("lstm", "ort")
    full.push("b", frames(saved.spec, 5, seed=2)["x"])
    before = everything(full)
    with pytest.raises(CheckpointError, match="'b'"):
        full.load(tmp_path / "all.ckpt")
    with pytest.raises(CheckpointError, match=r"none\.ckpt: cannot be read"):
        full.load(tmp_path / "none.ckpt")
    assert everything(full) == before
    assert len(small) == 0


def test_a_sealed_checkpoint_that_lies(tmp_path: Path) -> None:
    """A checkpoint whose checksum fits but which names a stream twice, or holds too few rows, is refused."""
    engine = Engine(tiny(), backend="ort", max_streams=4)
    engine.push("a", np.ones((1, 1), np.float32))
    row = engine._arena.rows[engine._arena.slot("a")].tobytes()
    engine.drop("a")
    states = [("h", [1], "float32")]
    lies: list[tuple[list[Any], bytes]] = [(["a", "a"], row * 2), (["a", "b"], row), ([], row), (["a"], row[:-1])]
    for keys, rows in lies:
        content = module._Checkpoint(engine.fingerprint, states, keys, rows)  # pyright: ignore[reportArgumentType]
        (tmp_path / "lie.ckpt").write_bytes(module._seal(module._CHECKPOINT, content))
        with pytest.raises(CheckpointError):
            engine.load(tmp_path / "lie.ckpt")
        assert len(engine) == 0


def test_saving_is_one_move(tmp_path: Path) -> None:
    """A save that cannot be written leaves the old file, and nothing beside it."""
    engine = engine_of("lstm", "ort")
    engine.push("a", frames(engine.spec, 2, seed=1)["x"])
    engine.save(tmp_path / "all.ckpt")
    before = (tmp_path / "all.ckpt").read_bytes()
    engine.push("a", frames(engine.spec, 2, seed=1)["x"])
    engine.save(tmp_path / "all.ckpt")
    assert (tmp_path / "all.ckpt").read_bytes() != before
    assert os.listdir(tmp_path) == ["all.ckpt"]


def test_a_restored_stream_is_not_idle() -> None:
    """The clock of another machine does not matter: a stream is as young as its restore."""
    now = [10**15]
    engine = engine_of("lstm", "ort", idle_timeout_s=1, clock=lambda: now[0])
    engine.push("a", frames(engine.spec, 2, seed=1)["x"])
    blob = engine.snapshot("a")
    now[0] = 5 * 10**15
    engine.restore("b", blob)
    engine.fork("b", "c")
    now[0] += 10**9 // 2
    assert engine.expire() == ["a"]
    assert sorted(map(str, engine.keys())) == ["b", "c"]


def test_full_arena_and_snapshots() -> None:
    """Restoring onto a new key of a full arena fails; onto a resident key it does not need a slot."""
    engine = engine_of("lstm", "ort", max_streams=1)
    engine.push("a", frames(engine.spec, 2, seed=1)["x"])
    blob = engine.snapshot("a")
    with pytest.raises(ArenaFullError, match="'b'"):
        engine.restore("b", blob)
    engine.restore("a", blob)
    assert engine.keys() == ["a"]
