"""Streams never see each other: bad frames, full arenas, reused slots, stale handles, threads, and a long random life."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from undertow.engine import Engine
from undertow.engine.errors import (
    ArenaFullError,
    BatchError,
    FrameError,
    StaleStreamError,
    StreamError,
    UndertowError,
    UnknownStreamError,
)

from .checks import assert_close, assert_same_bits, joined
from .graphs import bare, frames
from .naive import NaiveEngine
from .step_graph import StepGraph
from .test_engine_properties import BACKENDS, known

SECOND = 10**9


def engine_of(name: str, backend: str, **options: Any) -> Engine:
    return Engine(known(name), backend=backend, **({"max_streams": 4} | options))


def same(backend: str, got: Any, expected: Any) -> None:
    """Bit for bit on the compiled backend; ONNX Runtime's rounding may depend on the batch."""
    if backend == "numba":
        assert_same_bits(got, expected)
    else:
        assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leave", ["close", "drop"])
@pytest.mark.parametrize("name", ["hazards", "subsampled"])
def test_a_reused_slot_starts_afresh(name: str, leave: str, backend: str) -> None:
    """With one slot, stream after stream gives what the first gave: initial values, counters, buffered frames, delay."""
    engine = engine_of(name, backend, max_streams=1)
    chunk = bare(engine.spec, frames(engine.spec, 5, seed=1))
    fresh = None
    for key in ("a", "b", "a", 3):
        state = engine.stream(key) and engine.state(key)
        out = engine.push(key, chunk)
        assert engine.frames(key) == 5
        if fresh is None:
            fresh = state, out
            for spec in engine.spec.states:
                assert_same_bits(state[spec.name], spec.initial_value())
        assert_same_bits(state, fresh[0])
        assert_same_bits(out, fresh[1])
        getattr(engine, leave)(key)
    assert len(engine) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_stale_handles(backend: str) -> None:
    """A handle is stale after close, drop and expiry, even if its key or its slot lives again; and touches nothing."""
    now = [0]
    engine = engine_of("lstm", backend, max_streams=2, idle_timeout_s=1, clock=lambda: now[0])
    x = frames(engine.spec, 3, seed=1)["x"]

    def expire() -> None:
        now[0] += 2 * SECOND
        assert engine.expire() == ["a"]

    ends: list[Callable[[], Any]] = [lambda: engine.close("a"), lambda: engine.drop("a"), expire]
    for end in ends:
        stream = engine.stream("a")
        stream.step(x[0])
        end()
        calls: list[Callable[[], Any]] = [lambda s=stream: s.step(x[0]), lambda s=stream: s.push(x), stream.close]
        for call in calls:
            with pytest.raises(StaleStreamError, match="'a'"):
                call()
        assert "a" not in engine
        engine.push("a", x)
        before = engine.state("a")
        for call in calls:
            with pytest.raises(StaleStreamError, match="'a'"):
                call()
        assert_same_bits(engine.state("a"), before)
        assert engine.frames("a") == 3
        engine.drop("a")


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_handles_of_one_stream(backend: str) -> None:
    """Handles, push and step of one key are the same stream."""
    engine = engine_of("gru", backend)
    x = frames(engine.spec, 6, seed=2)["x"]
    one, two = engine.stream("a"), engine.stream("a")
    got = [one.step(x[0])[None], two.step(x[1])[None], engine.push("a", x[2:3])]
    got += [engine.step(["a"], x[3:4])[0], one.push(x[4:5]), two.step(x[5])[None]]
    assert_close(joined(got), NaiveEngine(known("gru")).push("a", x))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unknown_streams(backend: str) -> None:
    """Whatever needs a resident stream names the key that is not, and opens nothing."""
    engine = engine_of("lstm", backend)
    calls: list[Callable[[Any], Any]] = [engine.close, engine.drop, engine.state, engine.frames, engine.snapshot]
    calls.append(lambda key: engine.fork(key, "new"))
    for call in calls:
        for key in ("nobody", b"nobody", 5):
            with pytest.raises(UnknownStreamError, match=repr(key)):
                call(key)
    assert len(engine) == 0
    assert engine.keys() == []
    assert "nobody" not in engine


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_of_different_types_are_different_streams(backend: str) -> None:
    """'1', b'1' and 1 are three streams; other types are refused."""
    engine = engine_of("lstm", backend)
    x = frames(engine.spec, 9, seed=2)["x"]
    for i, key in enumerate(("1", b"1", 1)):
        engine.push(key, x[3 * i : 3 * i + 3])
    for i, key in enumerate(("1", b"1", 1)):
        naive = NaiveEngine(known("lstm"))
        naive.push(key, x[3 * i : 3 * i + 3])
        assert_close(engine.state(key), naive.state(key))
    for key in (1.5, None, ("a",), frozenset()):
        with pytest.raises(StreamError, match="str, bytes or int"):
            engine.push(key, x)  # pyright: ignore[reportArgumentType]
    assert set(engine.keys()) == {"1", b"1", 1}


NAN, INF = np.float32(np.nan), np.float32(np.inf)
BAD_CHUNKS: dict[str, Any] = {
    "nan": np.array([[0, 0, 0], [0, NAN, 0]], np.float32),
    "inf": np.array([[0, 0, 0], [0, 0, -INF]], np.float32),
    "too wide": np.zeros((2, 4), np.float32),
    "one frame, not a chunk": np.zeros(3, np.float32),
    "too deep": np.zeros((2, 3, 1), np.float32),
    "a number": np.float32(1),
    "complex": np.zeros((2, 3), np.complex64),
    "text": "abc",
    "texts": np.array([["a", "b", "c"]]),
    "nothing": None,
    "objects": np.array([[None, 1, 2]], object),
    "ragged": [[1.0, 2.0, 3.0], [1.0]],
    "beyond float32": np.full((2, 3), 1e300),
    "other names": {"y": np.zeros((2, 3), np.float32)},
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", BAD_CHUNKS)
def test_a_bad_chunk(what: str, backend: str) -> None:
    """push raises FrameError with the key; in push_many that stream alone fails; nothing of it changes, or is opened."""
    engine, twin = engine_of("lstm", backend), engine_of("lstm", backend)
    bad, x = BAD_CHUNKS[what], frames(engine.spec, 6, seed=3)["x"]
    for e in (engine, twin):
        e.push_many({"good": x[:2], "bad": x[2:4]})
    before = engine.snapshot("bad")
    for key in ("bad", "new"):
        with pytest.raises(FrameError, match=rf"'{key}'|inputs"):
            engine.push(key, bad)
    with pytest.raises(BatchError) as caught:
        engine.push_many({"bad": bad, "good": x[4:], "new": bad})
    assert {k: type(e) for k, e in caught.value.errors.items()} == {"bad": FrameError, "new": FrameError}
    assert list(caught.value.result) == ["good"]
    same(backend, caught.value.result["good"], twin.push_many({"good": x[4:]})["good"])
    assert engine.snapshot("bad") == before
    assert sorted(map(str, engine.keys())) == ["bad", "good"]
    same(backend, engine.push("bad", x), twin.push("bad", x))


BAD_FRAMES: dict[str, Any] = {
    "nan": [0, NAN, 0],
    "inf": [INF, 0, 0],
    "too wide": np.zeros(4, np.float32),
    "too deep": np.zeros((1, 3), np.float32),
    "a number": 1.0,
    "text": "abc",
    "nothing": None,
    "ragged": [[1.0], 2.0, [3.0]],
    "beyond float32": np.full(3, 1e300),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_bad_frame_through_a_handle(what: str, backend: str) -> None:
    """stream().step raises FrameError, the stream is unchanged and the handle goes on."""
    engine, twin = engine_of("lstm", backend), engine_of("lstm", backend)
    bad, x = BAD_FRAMES[what], frames(engine.spec, 2, seed=3)["x"]
    stream, other = engine.stream("a"), twin.stream("a")
    assert_same_bits(stream.step(x[0]), other.step(x[0]))
    before = engine.snapshot("a")
    frame = np.array(bad, np.float32) if what in ("nan", "inf") else bad
    with pytest.raises(FrameError):
        stream.step(frame)
    assert engine.snapshot("a") == before
    assert_same_bits(stream.step(x[1]), other.step(x[1]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lstm", "subsampled", "lookahead"])
def test_bad_frames_in_a_batch(name: str, backend: str) -> None:
    """In step the streams with a NaN fail, are not ready and do not change; the others' bits are as without them."""
    engine, twin = engine_of(name, backend, max_streams=8), engine_of(name, backend, max_streams=8)
    x = frames(engine.spec, 24, seed=4)["x"].reshape(6, 4, -1)
    keys, good = ["a", "b", "c", "d"], [0, 2]
    for t in range(3):
        engine.step(keys, x[t])
        twin.step(keys, x[t])
    before = {k: engine.snapshot(k) for k in ("b", "d")}
    batch = x[3].copy()
    batch[1, 0], batch[3, -1] = NAN, -INF
    with pytest.raises(BatchError) as caught:
        engine.step(keys, batch)
    assert {k: type(e) for k, e in caught.value.errors.items()} == {"b": FrameError, "d": FrameError}
    values, ready = caught.value.result
    expected, expected_ready = twin.step(["a", "c"], x[3][good])
    assert ready[good].tolist() == expected_ready.tolist()
    assert not ready[[1, 3]].any()
    same(backend, values[good], expected)
    assert values.shape == (4, *expected.shape[1:])
    assert {k: engine.snapshot(k) for k in before} == before
    for t in range(4, 6):
        got, theirs = engine.step(keys, x[t]), twin.step(keys, x[t])
        same(backend, got[0][good], theirs[0][good])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_that_is_wrong_as_a_whole(backend: str) -> None:
    """A wrong shape, or a key named twice, fails the call; no stream is opened or stepped."""
    engine = engine_of("lstm", backend)
    x = frames(engine.spec, 4, seed=4)["x"]
    engine.step(["a"], x[:1])
    before = engine.snapshot("a")
    for keys, batch in [(["a", "b"], x[:3]), (["a", "b"], x[:2, :2]), (["a"], x[0]), (["a", "b"], "no")]:
        with pytest.raises(FrameError):
            engine.step(keys, batch)
    for keys in (["a", "a"], ["b", "b"], ["a", "b", "c", "b"], ["b", "a", "a"]):
        with pytest.raises(StreamError, match="twice"):
            engine.step(keys, x[: len(keys)])
    assert engine.keys() == ["a"]
    assert engine.snapshot("a") == before
    values, ready = engine.step([], x[:0])
    assert values.shape == (0, 5)
    assert ready.shape == (0,)
    assert engine.push_many({}) == {}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", [11, -12, 2**40, -(2**62), 2**63 - 1])
def test_an_index_outside_of_the_table(index: int, backend: str) -> None:
    """An embedding's index that the table does not have is that stream's FrameError, and reads no memory elsewhere."""
    g = StepGraph()
    table = g.noise(11, 4)
    h = g.state("h", (4,))
    g.next("h", g.op("Add", h, g.op("Gather", table, g.input("index", (), "int64"))))
    g.output("y", h, (4,))
    engine = Engine(g.artifact(), backend=backend, max_streams=4)
    engine.push_many({"good": np.array([0, 10]), "bad": np.array([-11, -1])})
    before = engine.snapshot("bad")
    with pytest.raises(FrameError, match=r"'bad'.*index"):
        engine.push("bad", np.array([0, index]))
    with pytest.raises(BatchError) as caught:
        engine.step(["good", "bad", "new"], np.array([3, index, index]))
    assert list(caught.value.errors) == ["bad", "new"]
    assert engine.snapshot("bad") == before
    assert engine.frames("good") == 3
    with pytest.raises(FrameError):
        engine.stream("bad").step(np.int64(index))
    assert engine.snapshot("bad") == before


def test_a_failure_inside_of_a_step() -> None:
    """Where ONNX Runtime fails within a call (here at an index that the graph computes), the call is one of our errors
    and no stream is half way: state and count of frames are those before the call, and the chunks can be given again."""
    g = StepGraph()
    h = g.state("h", (4,))
    index = g.op("Add", g.input("index", (), "int64"), g.weight(1, "int64"))
    g.next("h", g.op("Add", h, g.op("Gather", g.noise(11, 4), index)))
    g.output("y", h, (4,))
    engine = Engine(g.artifact(), backend="ort", max_streams=4)
    engine.push_many({"a": np.array([0, 9]), "b": np.array([1])})
    before = {key: engine.state(key) for key in ("a", "b")}
    with pytest.raises(UndertowError):
        engine.push_many({"a": np.array([3, 4, 5]), "b": np.array([3, 99])})
    for key, count in (("a", 2), ("b", 1)):
        assert_same_bits(engine.state(key), before[key])
        assert engine.frames(key) == count


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_arena(backend: str) -> None:
    """The streams for which there is no slot fail alone, by name; the others go on; a freed slot is taken at once."""
    engine = engine_of("lstm", backend, max_streams=2)
    naive = NaiveEngine(known("lstm"))
    x = frames(engine.spec, 12, seed=5)["x"].reshape(3, 4, 3)
    with pytest.raises(BatchError) as caught:
        engine.step(["a", "b", "c", "d"], x[0])
    assert {k: type(e) for k, e in caught.value.errors.items()} == {"c": ArenaFullError, "d": ArenaFullError}
    values, ready = caught.value.result
    assert ready.tolist() == [True, True, False, False]
    assert_close(values[:1], naive.push("a", x[0, :1]))
    with pytest.raises(BatchError) as caught:
        engine.push_many({"c": x[1], "a": x[1]})
    assert_close(caught.value.result["a"], naive.push("a", x[1]))
    for call in (lambda: engine.push("c", x[1]), lambda: engine.stream("c"), lambda: engine.fork("a", "c")):
        with pytest.raises(ArenaFullError, match=r"'c'.*2"):
            call()
    blob = engine.snapshot("a")
    with pytest.raises(ArenaFullError):
        engine.restore("c", blob)
    assert engine.keys() == ["a", "b"]
    engine.drop("b")
    assert_close(engine.push("c", x[2]), naive.push("c", x[2]))
    assert_close(engine.push("a", x[2]), naive.push("a", x[2]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lookahead", "subsampled"])
def test_expiry(name: str, backend: str) -> None:
    """Streams idle for longer than the timeout are flushed to the callback and forgotten, with the tail of close."""
    now, told = [0], {}
    engine = engine_of(name, backend, idle_timeout_s=10, clock=lambda: now[0], on_expire=told.__setitem__)
    x = frames(engine.spec, 10, seed=6)["x"]
    naive = NaiveEngine(known(name))
    for key in ("old", "young"):
        assert_close(engine.push(key, x[:5]), naive.push(key, x[:5]))
    now[0] = 8 * SECOND
    assert engine.expire() == []
    assert_close(engine.push("young", x[5:]), naive.push("young", x[5:]))
    now[0] = 10 * SECOND + 1
    assert engine.expire() == ["old"]
    assert engine.keys() == ["young"]
    assert list(told) == ["old"]
    assert_close(told["old"], naive.close("old"))
    now[0] = 40 * SECOND
    engine.push("other", x)
    assert list(told) == ["old", "young"]
    assert_close(told["young"], naive.close("young"))
    assert engine.keys() == ["other"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_expiry_frees_slots(backend: str) -> None:
    """A full arena whose streams are idle takes new ones; frames by step, push and handle keep a stream alive."""
    now = [0]
    engine = engine_of("lstm", backend, max_streams=3, idle_timeout_s=1, clock=lambda: now[0])
    x = frames(engine.spec, 1, seed=6)["x"]
    stream = engine.stream("by handle")
    for _ in range(5):
        now[0] += SECOND * 3 // 4
        stream.step(x[0])
        engine.push("by push", x)
        engine.step(["by step"], x)
        assert engine.expire() == []
    now[0] += 2 * SECOND
    engine.push_many(dict.fromkeys(range(3), x))
    assert sorted(engine.keys()) == [0, 1, 2]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_callback_may_use_the_engine(backend: str) -> None:
    """on_expire may look at the engine, push and drop; every expired stream is told exactly once."""
    now, told = [0], []

    def on_expire(key: Any, tail: Any) -> None:
        told.append(key)
        assert key not in engine
        engine.push("log", x)
        if "b" in engine:
            engine.drop("b")

    engine = engine_of("lstm", backend, idle_timeout_s=1, clock=lambda: now[0], on_expire=on_expire)
    x = frames(engine.spec, 2, seed=6)["x"]
    for key in ("a", "b", "c"):
        engine.push(key, x)
    now[0] = 5 * SECOND
    engine.expire()
    assert told == ["a", "c"]
    assert engine.keys() == ["log"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_handle_and_a_chunk_of_one_stream(backend: str) -> None:
    """While one thread steps a long chunk without the GIL, another's handle of the same stream waits: no step is lost."""
    g = StepGraph()
    total = g.state("total", (1,))
    g.next("total", g.op("Add", total, g.input("x", (1,))))
    g.output("y", g.op("Add", total, g.weight([0.0])), (1,))
    engine = Engine(g.artifact(), backend=backend, max_streams=2)
    stream, one = engine.stream("a"), np.ones((1,), np.float32)
    chunk, steps, chunks = np.ones((100_000 if backend == "numba" else 500, 1), np.float32), [0], 20

    def push() -> None:
        for _ in range(chunks):
            engine.push("a", chunk)

    thread = threading.Thread(target=push)
    thread.start()
    while thread.is_alive():
        stream.step(one)
        steps[0] += 1
    thread.join()
    assert engine.frames("a") == chunks * len(chunk) + steps[0]
    assert engine.state("a")["total"][0] == chunks * len(chunk) + steps[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads(backend: str) -> None:
    """Threads that open, step, push, close and drop streams of their own in one engine get what the oracle gives."""
    artifact = known("hazards")
    engine = Engine(artifact, backend=backend, max_streams=64, threads=2)
    failures: list[BaseException] = []

    def live(worker: int) -> None:
        try:
            for life in range(6):
                keys = [f"{worker} {i}" for i in range(3)]
                chunks = {k: frames(artifact.spec, 8, seed=100 * worker + 10 * life + i) for i, k in enumerate(keys)}
                parts: dict[str, list[Any]] = {k: [] for k in keys}
                handle = engine.stream(keys[0])
                for t in range(4):
                    out = handle.step(chunks[keys[0]]["x"][t])
                    parts[keys[0]].append({n: v[None] for n, v in out.items()})
                    for k in keys[1:]:
                        parts[k].append(engine.push(k, chunks[k]["x"][t : t + 1]))
                for k, out in engine.push_many({k: chunks[k]["x"][4:] for k in keys}).items():
                    parts[k].append(out)
                engine.snapshot(keys[1])
                engine.drop(keys[2])
                parts[keys[0]].append(engine.close(keys[0]))
                parts[keys[1]].append(engine.close(keys[1]))
                for k in keys:
                    assert_close(joined(parts[k]), expected[k, life])
        except BaseException as error:
            failures.append(error)
            raise

    expected = {
        (f"{w} {i}", life): NaiveEngine(artifact).run(frames(artifact.spec, 8, seed=100 * w + 10 * life + i))
        for w in range(4)
        for life in range(6)
        for i in range(3)
    }
    threads = [threading.Thread(target=live, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(engine) == 0


class Life(RuleBasedStateMachine):
    """A small engine through everything that can happen to streams, beside a dict of naive ones."""

    backend, name = "numba", "subsampled"
    keys = Bundle("keys")
    blobs = Bundle("blobs")
    slots = 3

    @initialize()
    def start(self) -> None:
        self.now, self.told = 0, {}
        options = {"idle_timeout_s": 10, "clock": lambda: self.now, "on_expire": self.told.__setitem__}
        self.engine = engine_of(self.name, self.backend, max_streams=self.slots, **options)
        self.naive = NaiveEngine(known(self.name))
        self.active: dict[Any, int] = {}
        self.count = 0

    def chunk(self, length: int) -> dict[str, np.ndarray]:
        self.count += 1
        return frames(self.engine.spec, length, seed=self.count)

    def tick(self) -> None:
        """Every call that brings frames lets idle streams go first; what is told is compared at once."""
        for key, tail in self.told.items():
            assert self.now - self.active.pop(key) > 10 * SECOND
            assert_close(tail, self.naive.close(key))
        self.told.clear()

    def push_one(self, key: Any, length: int) -> None:
        chunk = self.chunk(length)
        try:
            got = self.engine.push(key, bare(self.engine.spec, chunk))
        except ArenaFullError:
            self.tick()
            assert key not in self.active
            assert len(self.active) == self.slots
            return
        self.tick()
        assert_close(got, self.naive.push(key, chunk))
        self.active[key] = self.now

    @rule(target=keys, key=st.sampled_from(["a", "b", b"c", 4, 5]))
    def name_one(self, key: Any) -> Any:
        return key

    @rule(key=keys, length=st.integers(0, 5))
    def push(self, key: Any, length: int) -> None:
        self.push_one(key, length)

    @rule(
        chosen=st.lists(keys, unique=True, min_size=1, max_size=4),
        lengths=st.lists(st.integers(0, 5), min_size=4, max_size=4),
    )
    def push_many(self, chosen: list[Any], lengths: list[int]) -> None:
        chunks = {key: self.chunk(n) for key, n in zip(chosen, lengths, strict=False)}
        errors: dict[Any, UndertowError] = {}
        try:
            result = self.engine.push_many({key: bare(self.engine.spec, c) for key, c in chunks.items()})
        except BatchError as error:
            errors, result = error.errors, error.result
        self.tick()
        for key, chunk in chunks.items():
            if key in errors:
                assert isinstance(errors[key], ArenaFullError)
                assert key not in self.active
            else:
                assert_close(result[key], self.naive.push(key, chunk))
                self.active[key] = self.now

    @rule(chosen=st.lists(keys, unique=True, min_size=1, max_size=4), bad=st.integers(0, 7))
    def step(self, chosen: list[Any], bad: int) -> None:
        chunk = self.chunk(len(chosen))["x"]
        if bad < len(chosen):
            chunk[bad] = NAN
        errors: dict[Any, UndertowError] = {}
        try:
            values, ready = self.engine.step(chosen, chunk)
        except BatchError as error:
            errors, (values, ready) = error.errors, error.result
        self.tick()
        for i, key in enumerate(chosen):
            if key in errors:
                assert isinstance(errors[key], FrameError if i == bad else ArenaFullError)
                assert not ready[i].any()
                continue
            expected = self.naive.push(key, chunk[i : i + 1])
            self.active[key] = self.now
            assert ready[i].sum() == len(expected)
            if len(expected):
                got = values[i][-len(expected) :] if self.engine.spec.outputs_per_step > 1 else values[i : i + 1]
                assert_close(got, expected)

    @rule(key=keys)
    def close(self, key: Any) -> None:
        if key in self.active:
            assert_close(self.engine.close(key), self.naive.close(key))
            del self.active[key]
        else:
            with pytest.raises(UnknownStreamError):
                self.engine.close(key)

    @rule(key=keys)
    def drop(self, key: Any) -> None:
        if key in self.active:
            self.engine.drop(key)
            self.naive.drop(key)
            del self.active[key]

    @rule(target=blobs, key=keys)
    def snapshot(self, key: Any) -> Any:
        if key not in self.active:
            return multiple()
        return self.engine.snapshot(key), self.naive.streams[key].copy()

    @rule(key=keys, saved=consumes(blobs))
    def restore(self, key: Any, saved: Any) -> None:
        blob, stream = saved
        if key not in self.active and len(self.active) == self.slots:
            with pytest.raises(ArenaFullError):
                self.engine.restore(key, blob)
            return
        self.engine.restore(key, blob)
        self.naive.streams[key] = stream
        self.active[key] = self.now

    @rule(key=keys, new=keys)
    def fork(self, key: Any, new: Any) -> None:
        if key not in self.active or new in self.active or len(self.active) == self.slots:
            with pytest.raises((StreamError, ArenaFullError)):
                self.engine.fork(key, new)
            return
        self.engine.fork(key, new)
        self.naive.fork(key, new)
        self.active[new] = self.now

    @rule(seconds=st.sampled_from([1, 4, 11]))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule()
    def expire(self) -> None:
        late = [key for key, last in self.active.items() if self.now - last > 10 * SECOND]
        assert sorted(map(repr, self.engine.expire())) == sorted(map(repr, late))
        self.tick()

    @invariant()
    def same_streams(self) -> None:
        if hasattr(self, "engine"):
            assert sorted(map(repr, self.engine.keys())) == sorted(map(repr, self.active))
            for key in self.active:
                assert self.engine.frames(key) == self.naive.streams[key].frames
                assert_close(self.engine.state(key), self.naive.state(key))


class LifeOnOrt(Life):
    backend = "ort"


class LifeLate(Life):
    name = "late"


LONG = settings(max_examples=25, stateful_step_count=30)
TestLife = Life.TestCase
TestLifeOnOrt = LifeOnOrt.TestCase
TestLifeLate = LifeLate.TestCase
TestLife.settings = TestLifeOnOrt.settings = TestLifeLate.settings = LONG
