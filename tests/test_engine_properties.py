"""The engine against the oracle: random graphs, any interleaving and chunking, and what must be equal bit for bit."""

import itertools
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.errors import BackendError
from undertow.engine.scheduler import waves

from .checks import assert_close, assert_same_bits, first, joined, rows
from .graphs import bare, cut, frames, random_graph
from .naive import NaiveEngine
from .step_graph import StepGraph, gru_step, lookahead_step, lstm_step

BACKENDS = ["numba", "ort"]
SEEDS = [250, 129, 275, 140, 158, 94, 66, 103]  # which have nearly every operator between them, and compile fast
KEYS = ["mic-1", b"\x00\xff", 7, -(2**62), ""]


@cache
def known(name: str) -> Artifact:
    """The artifacts that several tests share, so that each is compiled once."""
    if name.startswith("random"):
        return random_graph(int(name.split()[1]))
    return {
        "lstm": lambda: lstm_step(3, 17, layers=2, outputs=5),
        "gru": lambda: gru_step(16, 16),
        "lookahead": lambda: lookahead_step(2),
        "subsampled": lambda: lookahead_step(2, frames_per_step=3),
        "late": late,
        "hazards": hazards,
    }[name]()


def hazards() -> Artifact:
    """Everything that writing a next state too early, or twice, or not at all, would break."""
    g = StepGraph(seed=3)
    x = g.input("x", (5,))
    for i, initial in enumerate([1.0, 2.0, 3.0]):
        g.state(f"ring{i}", (5,), initial=initial)
    for i in range(3):
        g.next(f"ring{i}", f"ring{(i + 1) % 3}")
    old, kept, last = g.state("old", (5,), initial=0.5), g.state("kept", (3,), initial=-1.5), g.state("last", (5,))
    shifted = g.state("shifted", (5,), initial=np.arange(5.0))
    g.next("last", x)
    new = g.op("Tanh", g.op("Add", g.op("Mul", old, g.weight([0.5])), x))
    g.next("old", new)
    g.next("shifted", g.op("Slice", shifted, g.ints(-1), g.ints(-(2**40)), g.ints(1), g.ints(-1)))
    twin = g.state("twin", (5,))
    g.next(twin, new)
    count = g.state("count", (), "int64", initial=2**53 + 1)
    g.next(count, g.op("Add", count, g.weight(1, "int64")))
    g.output("new", new, (5,), direct=True)
    g.output("old_value", old, (5,))
    g.output("difference", g.op("Sub", new, old), (5,))
    g.output("ring", g.op("Concat", "ring0", "ring1", "ring2", axis=1), (15,))
    g.output("last_value", last, (5,))
    g.output("kept_value", kept, (3,))
    g.output("shifted_value", shifted, (5,))
    g.output("count_value", count, (), "int64")
    return g.artifact()


def late() -> Artifact:
    """Two frames to a step, three rows out of it, three frames late: rows begin in the middle of a step."""
    g = StepGraph(seed=4, frames_per_step=2, outputs_per_step=3, delay=3)
    x, valid = g.input("x", (2,)), g.valid()
    h = g.state("h", (4,), initial=0.25)
    flat = g.op("Flatten", x)
    share = g.op("Unsqueeze", g.op("Cast", valid, to=1), g.ints(1))
    g.next("h", g.op("Tanh", g.op("Add", g.linear(g.op("Concat", h, flat, axis=1), 8, 4), share)))
    g.output("y", g.op("Reshape", g.linear(g.op("Concat", h, flat, share, axis=1), 9, 6), g.ints(0, 3, 2)), (2,))
    return g.artifact()


DEEP = ["lstm", "late", "hazards", "subsampled"]


@cache
def engine_of(name: str, backend: str, threads: int = 1) -> Engine:
    """A shared engine; tests leave no stream behind."""
    return Engine(known(name), backend=backend, max_streams=64, threads=threads)


def sequences(artifact: Artifact, lengths: list[int], seed: int = 0) -> dict[Any, dict[str, np.ndarray]]:
    return {key: frames(artifact.spec, n, seed + i) for i, (key, n) in enumerate(zip(KEYS, lengths, strict=False))}


def interleaved(engine: Engine, chunks: dict[Any, dict[str, np.ndarray]], cuts: list[list[int]]) -> dict[Any, Any]:
    """Each stream to its end: in round r, stream i is given cuts[r][i] frames; all of a round in one call."""
    spec, at, parts = engine.spec, dict.fromkeys(chunks, 0), {key: [] for key in chunks}
    length = {key: len(next(iter(chunk.values()))) for key, chunk in chunks.items()}
    for sizes in itertools.chain(cuts, [[10**6] * len(chunks)]):
        stops = {key: min(at[key] + n, length[key]) for key, n in zip(chunks, sizes, strict=True)}
        given = {key: bare(spec, cut(chunks[key], at[key], stop)) for key, stop in stops.items()}
        for key, out in engine.push_many(given).items():
            parts[key].append(out)
        at = stops
    return {key: joined([*parts[key], engine.close(key)]) for key in chunks}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*(f"random {s}" for s in SEEDS), *DEEP, "lookahead"])
def test_any_interleaving_and_chunking(name: str, backend: str) -> None:
    """Random graphs, several ragged streams, any chunks: every stream gives what the oracle gives of it alone."""
    artifact, engine = known(name), engine_of(name, backend)

    @settings(max_examples=8)
    @given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 2**16), st.data())
    def check(lengths: list[int], seed: int, data: st.DataObject) -> None:
        chunks = sequences(artifact, lengths, seed)
        round_ = st.lists(st.integers(0, 5), min_size=len(chunks), max_size=len(chunks))
        outputs = interleaved(engine, chunks, data.draw(st.lists(round_, max_size=4)))
        for key, chunk in chunks.items():
            assert_close(outputs[key], NaiveEngine(artifact).run(chunk), f"{name} on {backend}, stream {key!r}:")
        assert len(engine) == 0

    check()


@pytest.mark.parametrize("name", [f"random {s}" for s in SEEDS] + DEEP)
def test_backends_agree(name: str) -> None:
    """The compiled backend and ONNX Runtime are within 1e-5 of each other: both are float32, so nearer than the oracle."""
    artifact = known(name)
    chunks = sequences(artifact, [9, 4, 6], seed=11)
    one, other = (interleaved(engine_of(name, backend), chunks, []) for backend in BACKENDS)
    for key in chunks:
        assert_close(one[key], other[key], f"{name}, stream {key!r}:", rtol=1e-5, atol=1e-5)


def by_push(engine: Engine, chunk: dict[str, np.ndarray]) -> Any:
    return joined([engine.push("p", bare(engine.spec, chunk)), engine.close("p")])


def by_frames(engine: Engine, chunk: dict[str, np.ndarray], key: str = "f") -> Any:
    length = len(next(iter(chunk.values())))
    parts = [engine.push(key, bare(engine.spec, cut(chunk, t, t + 1))) for t in range(length)]
    return joined([*parts, engine.close(key)])


def by_step(engine: Engine, chunk: dict[str, np.ndarray]) -> Any:
    """One stream in a batch with others that come and go."""
    spec, parts = engine.spec, []
    length = len(next(iter(chunk.values())))
    noise = frames(spec, 4 * length, seed=99)
    for t in range(length):
        others = t % 4
        batch = {n: np.concatenate([noise[n][3 * t : 3 * t + others], chunk[n][t : t + 1]]) for n in chunk}
        keys = [*(f"other {t} {i}" if i else "steady" for i in range(others)), "s"]
        values, ready = engine.step(keys, bare(spec, batch))
        named = values if isinstance(values, dict) else {"": values}
        if ready[-1].any():
            last = {n: v[-1][ready[-1]] if spec.outputs_per_step > 1 else v[-1:] for n, v in named.items()}
            parts.append(last if isinstance(values, dict) else last[""])
        for key in keys[:-1]:
            if key != "steady":
                engine.drop(key)
    tail = engine.close("s")
    if "steady" in engine:
        engine.drop("steady")
    return joined([*parts, tail])


def by_handle(engine: Engine, chunk: dict[str, np.ndarray]) -> Any:
    stream, parts = engine.stream("h"), []
    length = len(next(iter(chunk.values())))
    for t in range(length):
        out = stream.step(bare(engine.spec, {n: a[t] for n, a in chunk.items()}))
        if out is not None:
            lead = slice(None) if engine.spec.outputs_per_step > 1 else None
            parts.append({n: v[lead] for n, v in out.items()} if isinstance(out, dict) else out[lead])
    return joined([*parts, stream.close()])


def in_a_crowd(engine: Engine, chunk: dict[str, np.ndarray]) -> Any:
    """Beside 40 streams of other lengths, pushed in two rounds."""
    spec = engine.spec
    crowd: dict[Any, Any] = {f"c{i}": frames(spec, i % 7, seed=i) for i in range(40)}
    half = len(next(iter(chunk.values()))) // 2
    parts = []
    for piece in (cut(chunk, 0, half), cut(chunk, half, 10**6)):
        given = {key: bare(spec, c) for key, c in [*list(crowd.items())[:20], ("x", piece), *list(crowd.items())[20:]]}
        parts.append(engine.push_many(given)["x"])
    for key in crowd:
        engine.drop(key)
    return joined([*parts, engine.close("x")])


WAYS = [by_push, by_frames, by_handle, in_a_crowd]


@pytest.mark.parametrize(
    "name", ["lstm", "gru", "lookahead", "subsampled", "hazards", "random 250", "random 129", "random 103"]
)
def test_same_bits_in_every_way(name: str) -> None:
    """On the compiled backend one stream's outputs have the same bits frame by frame, as a chunk, in batches whose
    other members come and go, through a handle, in a crowd, with one thread or two."""
    artifact = known(name)
    chunk = frames(artifact.spec, 11, seed=5)
    expected = by_push(engine_of(name, "numba"), chunk)
    assert_close(expected, NaiveEngine(artifact).run(chunk))
    for threads in (1, 2):
        engine = engine_of(name, "numba", threads)
        for way in [*WAYS, by_step]:
            assert_same_bits(way(engine, chunk), expected, f"{name}, {way.__name__}, {threads} threads:")
    assert len(engine) == 0


def test_rows_that_begin_in_the_middle_of_a_step() -> None:
    """Three rows to a step and a delay of five rows: the same bits by push, by frames, in a crowd."""
    chunk = frames(known("late").spec, 11, seed=5)
    engine = engine_of("late", "numba")
    expected = by_push(engine, chunk)
    assert len(expected) == 11 * 3 // 2
    for way in (by_frames, in_a_crowd):
        assert_same_bits(way(engine, chunk), expected, way.__name__)


@pytest.mark.parametrize("backend", BACKENDS)
def test_large_batches_over_threads(backend: str) -> None:
    """A thousand streams at once, by one thread or two, through small ONNX Runtime batches: each as if it were alone."""
    artifact = known("gru")
    x = frames(artifact.spec, 3000, seed=1)["x"].reshape(3, 1000, 16)
    results = []
    for threads, max_batch in ((1, 1024), (2, 1024), (2, 7)):
        engine = Engine(artifact, backend=backend, max_streams=1000, threads=threads, max_batch=max_batch)
        results.append([engine.step(range(1000), part)[0] for part in x])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            if backend == "numba":
                assert_same_bits(two, one)
            else:
                assert_close(two, one, rtol=1e-5, atol=1e-5)
    for i in (0, 1, 499, 999):
        assert_close(np.stack([r[i] for r in results[0]]), NaiveEngine(artifact).push("a", x[:, i]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lstm", "subsampled", "late", "random 103"])
def test_a_longer_sequence_has_the_same_beginning(name: str, backend: str) -> None:
    """What came out after t frames does not change with what comes later."""
    engine = engine_of(name, backend)
    whole = frames(engine.spec, 12, seed=8)
    longest = engine.push("long", bare(engine.spec, whole))
    engine.drop("long")
    for length in range(12):
        got = engine.push("short", bare(engine.spec, cut(whole, 0, length)))
        engine.drop("short")
        expected = first(longest, rows(got))
        if backend == "numba":
            assert_same_bits(got, expected)
        else:
            assert_close(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["lookahead", "subsampled", "late"])
def test_number_of_rows(name: str, backend: str) -> None:
    """A stream of T frames has floor(T * M / K) rows after its flush, whatever T, and a step's rows until then."""
    engine = engine_of(name, backend)
    k, m = engine.spec.frames_per_step, engine.spec.outputs_per_step
    skipped = -(-engine.spec.delay * m // k)
    for length in range(14):
        chunk = frames(engine.spec, length, seed=length)
        early = engine.push("n", bare(engine.spec, chunk))
        assert len(early) == max(0, length // k * m - skipped)
        assert engine.frames("n") == length
        tail = engine.close("n")
        assert len(early) + len(tail) == length * m // k
        assert_close(joined([early, tail]), NaiveEngine(known(name)).run(chunk))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rest_without_valid_input(backend: str) -> None:
    """Without valid_input an incomplete step at the end is dropped, and the tail is empty with the outputs' shape."""
    g = StepGraph(frames_per_step=3)
    x, h = g.input("x", (2,)), g.state("h", (2,))
    g.next("h", g.op("ReduceMax", x, axes=[1], keepdims=0))
    g.output("y", h, (2,))
    g.output("n", g.op("ReduceSum", x, g.ints(1, 2), keepdims=0), ())
    artifact = g.artifact()
    engine = Engine(artifact, backend=backend, max_streams=2)
    for length in range(8):
        chunk = frames(artifact.spec, length, seed=length)
        got, tail = engine.push("a", chunk["x"]), engine.close("a")
        assert {n: v.shape for n, v in tail.items()} == {"y": (0, 2), "n": (0,)}
        assert_close(got, NaiveEngine(artifact).run(chunk))


@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_are_left_alone(backend: str) -> None:
    """The engine neither writes to what it was given nor keeps it: outputs stay as they were given out."""
    engine = engine_of("hazards", backend)
    chunk = frames(engine.spec, 6, seed=3)["x"]
    copy = chunk.copy()
    out = engine.push("a", chunk)
    kept = {n: v.copy() for n, v in out.items()}
    np.testing.assert_array_equal(chunk, copy)
    chunk[:] = 77
    state = engine.state("a")
    engine.push("a", copy)
    engine.step(["a", "b"], copy[:2])
    assert_same_bits(out, kept)
    assert_same_bits(state["last"], copy[-1])
    state["last"][:] = 5
    assert not (engine.state("a")["last"] == 5).any()
    engine.drop("a")
    engine.drop("b")


@pytest.mark.parametrize("backend", BACKENDS)
def test_layouts_of_arrays(backend: str) -> None:
    """Strided, Fortran-ordered, read-only, big-endian, float64 arrays and lists give what a plain array gives."""
    engine = engine_of("lstm", backend)
    plain = frames(engine.spec, 8, seed=4)["x"]
    wide = np.zeros((8, 6), np.float32)
    wide[:, ::2] = plain
    frozen = plain.copy()
    frozen.setflags(write=False)
    backwards = plain[::-1].copy()[::-1]
    expected = engine.push("a", plain)
    others = [wide[:, ::2], np.asfortranarray(plain), frozen, plain.astype(">f4"), plain.astype(np.float64), backwards]
    for other in [*others, plain.tolist()]:
        engine.drop("a")
        assert_same_bits(engine.push("a", other), expected)
        for way in (by_handle, by_step):
            if not isinstance(other, list):
                assert_close(way(engine, {"x": other}), expected)
    engine.drop("a")


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_state_at_all(backend: str) -> None:
    """A graph without any state, and one whose output is a number, are step graphs too."""
    g = StepGraph()
    g.output("y", g.op("ReduceSum", g.input("x", (3,)), g.ints(1), keepdims=0), ())
    engine = Engine(g.artifact(), backend=backend, max_streams=3)
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert_close(engine.push("a", x), x.sum(axis=1))
    values, ready = engine.step(["a", "b", "c"], x[:3])
    assert_close(values, x[:3].sum(axis=1))
    assert ready.all()
    assert float(engine.stream("a").step(x[0])) == 3.0
    assert engine.state("a") == {}


TYPES = ["float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"]


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type(dtype: str) -> None:
    """Frames, states and outputs of every dtype an artifact may have; outputs have that dtype, whatever the backend."""
    g = StepGraph()
    x, h = g.input("x", (3,), dtype), g.state("h", (3,), dtype, initial=1.0)
    new = g.op("Or", g.op("And", h, x), g.op("Not", x)) if dtype == "bool" else g.op("Add", h, x)
    g.next("h", new)
    g.output("y", h, (3,), dtype)
    g.output("new", new, (3,), dtype, direct=True)
    artifact = g.artifact()
    engine = Engine(artifact, backend="numba" if dtype in ("bool", "int64") else "ort", max_streams=3)
    chunk = {"x": np.random.default_rng(1).integers(0, 4, (6, 3)).astype(dtype)}
    got = engine.push("a", chunk["x"])
    assert {v.dtype for v in got.values()} == {np.dtype(dtype)}
    assert_close(got, NaiveEngine(artifact).push("a", chunk), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outputs_that_are_inputs(backend: str) -> None:
    """A graph may give out its frame and its old state as they are, and carry a state without any element."""
    g = StepGraph()
    x, h = g.input("x", (3,)), g.state("h", (3,), initial=1.0)
    kept, nothing = g.state("kept", (2,), initial=2.0), g.state("nothing", (0, 3))
    g.next("h", x)
    g.next("nothing", g.op("Identity", nothing))
    for name, shape in ((h, (3,)), (x, (3,)), (kept, (2,))):
        g.output(name, name, shape, direct=True)
    artifact = g.artifact()
    chunk = frames(artifact.spec, 5, seed=1)
    got = Engine(artifact, backend=backend, max_streams=2).push("a", chunk["x"])
    assert_close(got, NaiveEngine(artifact).push("a", chunk))


def test_auto() -> None:
    """`auto` says what it chose, and whatever it chose gives what the oracle gives, for one stream and for many."""
    artifact = known("gru")
    engine = Engine(artifact, backend="auto", max_streams=300)
    assert set(engine.backend.replace(",", "").split()) & set(BACKENDS)
    x = frames(artifact.spec, 900, seed=1)["x"].reshape(3, 300, 16)
    for part in x[:2]:
        engine.step(range(300), part)
    values, _ = engine.step(range(7), x[2, :7])
    for key in (0, 6):
        naive = NaiveEngine(artifact)
        assert_close(values[key], naive.push(key, x[:, key])[-1])
    assert_close(engine.state(299), state_after(artifact, x[:2, 299]))


def state_after(artifact: Artifact, x: np.ndarray) -> dict[str, np.ndarray]:
    naive = NaiveEngine(artifact)
    naive.push("a", x)
    return naive.state("a")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "'auto', 'numba' or 'ort'"),
        ({"backend": "ort", "providers": ["NoSuchProvider"]}, "NoSuchProvider.*CPUExecutionProvider"),
        ({"backend": "numba", "providers": ["CPUExecutionProvider"]}, "providers"),
    ],
)
def test_no_such_backend(options: dict[str, Any], message: str) -> None:
    """A backend or provider that is not there is an error that lists what is."""
    with pytest.raises(BackendError, match=message):
        Engine(known("lstm"), **options)


@pytest.mark.parametrize(
    "options", [{"max_streams": 0}, {"threads": 0}, {"max_batch": -1}, {"idle_timeout_s": 0}, {"max_streams": 1.5}]
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """Sizes below one are refused by name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        Engine(known("lstm"), backend="ort", **options)


@pytest.mark.parametrize("name", ["lstm", "gru", "lookahead", "hazards"])
def test_bytes_of_a_stream(name: str) -> None:
    """A resident stream costs at most 1.1 times the bytes of its own state and 128 more."""
    artifact = known(name)
    engine = Engine(artifact, backend="ort", max_streams=3)
    assert engine._arena.row_bytes <= 1.1 * artifact.spec.state_bytes + 128


@settings(max_examples=100)
@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 5))
def test_waves(lengths: list[int], max_batch: int) -> None:
    """The scheduler gives every frame once and in order, no stream twice in a batch, none waits for another's backlog."""
    given_, last = np.zeros(len(lengths), int), -1
    for t, streams in waves(np.array(lengths, np.int64), max_batch):
        assert 0 < len(streams) <= max_batch
        assert len(set(streams.tolist())) == len(streams)
        assert (given_[streams] == t).all()
        assert t >= last
        given_[streams] += 1
        last = t
    assert given_.tolist() == lengths
