"""The engine on a small LSTM: bits that do not depend on company or cutting, streams that fail alone, states that move."""

import threading
from pathlib import Path

import numpy as np
import pytest

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.errors import (
    ArenaFullError,
    BackendError,
    BatchError,
    CheckpointError,
    FrameError,
    SnapshotError,
    StaleStreamError,
    StreamError,
    UnknownStreamError,
)

from .step_graph import StepGraph


def lstm() -> Artifact:
    """40 -> 17, a width that fills no vector, with a state that does not start at zero."""
    g = StepGraph()
    g.output("y", g.op("Identity", raw_lstm(g)), (17,))
    return g.artifact()


def raw_lstm(g: StepGraph) -> str:
    x, h, c = g.input("x", (40,)), g.state("h", (17,), initial=0.5), g.state("c", (17,))
    zero = g.ints(0)
    sequence, start, cell = (g.op("Unsqueeze", v, zero) for v in (x, h, c))
    names = ["", "h_last", "c_last"]
    weights = g.noise(1, 68, 40), g.noise(1, 68, 17), g.noise(1, 136)
    g.op_many("LSTM", sequence, *weights, "", start, cell, names=names, hidden_size=17)
    g.next("h", g.op("Squeeze", names[1], zero))
    g.next("c", g.op("Squeeze", names[2], zero))
    return g.op("Squeeze", names[1], zero)


@pytest.fixture(scope="module")
def model() -> Artifact:
    return lstm()


@pytest.fixture(scope="module")
def chunk() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((30, 40)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_bits_do_not_depend_on_company_or_cutting(model: Artifact, chunk: np.ndarray, threads: int) -> None:
    """Alone or among 200, frame by frame or in ragged chunks, on one thread or two: the same bits on the compiled backend."""
    alone = Engine(model, backend="numba").push("a", chunk)
    engine = Engine(model, backend="numba", threads=threads)
    rng, parts = np.random.default_rng(1), []
    for begin, end in ((0, 1), (1, 8), (8, 8), (8, 21), (21, 30)):
        others = {i: rng.standard_normal((rng.integers(0, 12), 40)).astype(np.float32) for i in range(200)}
        parts.append(engine.push_many({**others, "a": chunk[begin:end]})["a"])
    assert np.concatenate(parts).tobytes() == alone.tobytes()
    handle = engine.stream("b")
    assert np.stack([handle.step(frame) for frame in chunk]).tobytes() == alone.tobytes()
    rows = [engine.step(["x", "c", "y"], np.stack([frame * 0, frame, frame]))[0][1] for frame in chunk]
    assert np.stack(rows).tobytes() == alone.tobytes()


@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_chunks_in_any_memory_order(model: Artifact, chunk: np.ndarray, backend: str) -> None:
    """Chunks that lie column by column in memory, as slices of a transposed array do, give what plain ones give, one or many at once."""
    columns = np.asfortranarray(chunk)
    engine = Engine(model, backend=backend)
    expected = Engine(model, backend=backend).push("a", chunk)
    np.testing.assert_array_equal(engine.push("alone", columns), expected)
    for key, y in engine.push_many(dict.fromkeys("abc", columns)).items():
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=key)
    keys, frames = ["d", "e", "f"], np.asfortranarray(np.stack([chunk[0]] * 3))
    np.testing.assert_allclose(engine.step(keys, frames)[0], np.stack([expected[0]] * 3), atol=1e-6)


def test_backends_agree(model: Artifact, chunk: np.ndarray) -> None:
    """Within 1e-5 of each other, state included."""
    engines = [Engine(model, backend=b) for b in ("numba", "ort")]
    a, b = (e.push("a", chunk) for e in engines)
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
    for name in ("h", "c"):
        np.testing.assert_allclose(*(e.state("a")[name] for e in engines), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_a_stream_fails_alone(model: Artifact, chunk: np.ndarray, backend: str) -> None:
    """NaN, a wrong shape and a full arena are errors of their streams; the others get what they would have got."""
    engine, expected = Engine(model, backend=backend, max_streams=3), Engine(model, backend=backend).push("a", chunk)
    engine.push("n", chunk[:2])
    before = engine.snapshot("n")
    bad = chunk.copy()
    bad[3, 5] = np.nan
    with pytest.raises(BatchError) as caught:
        engine.push_many({"n": bad, "a": chunk, "shape": chunk[:, :3], "b": chunk, "full": chunk})
    assert {k: type(e) for k, e in caught.value.errors.items()} == {
        "n": FrameError,
        "shape": FrameError,
        "full": ArenaFullError,
    }
    np.testing.assert_array_equal(caught.value.result["a"], expected)
    np.testing.assert_array_equal(caught.value.result["b"], expected)
    assert engine.snapshot("n")[16:-64] == before[16:-64]
    with pytest.raises(FrameError, match=r"stream 'n': input 'x' is nan at \(3, 5\)"):
        engine.push("n", bad)
    with pytest.raises(FrameError, match="finite"):
        engine.stream("n").step(bad[3])
    with pytest.raises(StreamError, match="named twice"):
        engine.step(["a", "a"], chunk[:2])


def test_states_move(model: Artifact, chunk: np.ndarray, tmp_path: Path) -> None:
    """snapshot, restore, fork, save and load go on with the very bits; close and drop forget; reused slots start anew."""
    engine = Engine(model, backend="numba", max_streams=8)
    whole = engine.push("whole", chunk)
    engine.push("a", chunk[:11])
    engine.restore("b", engine.snapshot("a"))
    engine.fork("a", b"c")
    engine.save(tmp_path / "all.ckpt")
    other = Engine(model, backend="numba", max_streams=8)
    other.load(tmp_path / "all.ckpt")
    assert other.keys() == ["whole", "a", "b", b"c"]
    for e, key in ((engine, "a"), (engine, "b"), (engine, b"c"), (other, "a"), (other, b"c")):
        assert e.push(key, chunk[11:]).tobytes() == whole[11:].tobytes()
    handle = engine.stream("a")
    assert engine.close("a").shape == (0, 17)
    engine.drop("b")
    with pytest.raises(StaleStreamError):
        handle.step(chunk[0])
    for call in (engine.close, engine.drop, engine.snapshot, engine.state, engine.frames):
        with pytest.raises(UnknownStreamError, match="'a'"):
            call("a")
    assert engine.push("new", chunk).tobytes() == whole.tobytes()


def test_damaged_snapshots_and_checkpoints(model: Artifact, chunk: np.ndarray, tmp_path: Path) -> None:
    """Every byte flipped in turn is refused and changes nothing."""
    engine = Engine(model, backend="numba", max_streams=4)
    engine.push("a", chunk[:3])
    blob, path = engine.snapshot("a"), tmp_path / "all.ckpt"
    engine.save(path)
    saved, before = path.read_bytes(), engine.state("a")["h"].tobytes()
    for data, attempt, error in (
        (blob, lambda b: engine.restore("a", b), SnapshotError),
        (saved, None, CheckpointError),
    ):
        for i in range(len(data)):
            wrong = bytearray(data)
            wrong[i] ^= 1 << i % 8
            if attempt is None:
                path.write_bytes(wrong)
            with pytest.raises(error):
                attempt(bytes(wrong)) if attempt else engine.load(path)
    assert engine.keys() == ["a"]
    assert engine.state("a")["h"].tobytes() == before


def test_idle_streams_expire(model: Artifact, chunk: np.ndarray) -> None:
    """A stream without frames for longer than the timeout is forgotten and told of; one that goes on is kept."""
    now, told = [0], []
    engine = Engine(
        model,
        backend="numba",
        idle_timeout_s=1.0,
        clock=lambda: now[0],
        on_expire=lambda key, tail: told.append((key, len(tail))),
    )
    engine.push_many({"a": chunk[:1], "b": chunk[:1]})
    now[0] = 900_000_000
    engine.push("a", chunk[1:2])
    now[0] = 1_500_000_000
    engine.expire()
    assert told == [("b", 0)]
    assert engine.keys() == ["a"]


def test_calls_from_several_threads(model: Artifact, chunk: np.ndarray) -> None:
    """Four threads open, push and close streams of their own; each gets what it would get alone."""
    engine, wrong = Engine(model, backend="numba", max_streams=64, threads=2), []
    expected = engine.push("alone", chunk).tobytes()

    def work(name: int) -> None:
        for turn in range(20):
            keys = [(name * 1000 + turn) * 10 + i for i in range(4)]
            first, rest = (
                engine.push_many(dict.fromkeys(keys, chunk[:9])),
                engine.push_many(dict.fromkeys(keys, chunk[9:])),
            )
            wrong.extend(k for k in keys if first[k].tobytes() + rest[k].tobytes() != expected)
            for key in keys:
                engine.close(key)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert engine.keys() == ["alone"]


def test_absent_provider(model: Artifact) -> None:
    """A provider that is asked for and absent is an error that lists what is there."""
    with pytest.raises(BackendError, match=r"'NoSuchProvider'.*CPUExecutionProvider"):
        Engine(model, backend="ort", providers=["NoSuchProvider"])
