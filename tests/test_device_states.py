"""States that stay on a device: on the processor's memory, where every machine can test it, and on CUDA where there is one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from undertow.engine import Engine, ort_session
from undertow.engine.artifact import Artifact
from undertow.engine.device_backend import DeviceBackend
from undertow.engine.device_graphs import SLOTS, arena, changing, step_model, written
from undertow.engine.errors import BackendError

from .checks import assert_close, assert_same_bits, joined
from .graphs import bare, cut, frames
from .naive import NaiveEngine
from .step_graph import StepGraph
from .test_engine_properties import BACKENDS, TYPES, by_handle, by_step, in_a_crowd, interleaved, known, sequences

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
GRAPHS = ["lstm", "hazards", "subsampled", "lookahead", "late", "random 250", "random 140", "random 66"]


def device_engine(artifact: Artifact, provider: str = CPU, **options: Any) -> Engine:
    """An engine whose states stay where the provider computes; the processor's memory counts as a device here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ort_session.DEVICES, CPU, "cpu")
        engine = Engine(artifact, backend="ort", providers=[provider], **({"max_streams": 64} | options))
    assert isinstance(engine._executor.stage.backends.at(1), DeviceBackend)
    return engine


def backend_of(engine: Engine) -> DeviceBackend:
    backend = engine._executor.stage.backends.at(1)
    assert isinstance(backend, DeviceBackend)
    return backend


def check_interleavings(artifact: Artifact, provider: str, max_batch: int, examples: int) -> None:
    engine = device_engine(artifact, provider, max_batch=max_batch)

    @settings(max_examples=examples)
    @given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(0, 2**16), st.data())
    def check(lengths: list[int], seed: int, data: st.DataObject) -> None:
        chunks = sequences(artifact, lengths, seed)
        round_ = st.lists(st.integers(0, 5), min_size=len(chunks), max_size=len(chunks))
        outputs = interleaved(engine, chunks, data.draw(st.lists(round_, max_size=4)))
        for key, chunk in chunks.items():
            assert_close(outputs[key], NaiveEngine(artifact).run(chunk), f"stream {key!r}:")
        assert len(engine) == 0

    check()


@pytest.mark.parametrize("max_batch", [2, 1024])
@pytest.mark.parametrize("name", GRAPHS)
def test_any_interleaving_and_chunking(name: str, max_batch: int) -> None:
    """Ragged streams, any chunks, waves of any width, slots used again: every stream gives what the oracle gives of it alone."""
    check_interleavings(known(name), CPU, max_batch, 6)


@pytest.mark.parametrize("name", ["lstm", "hazards", "subsampled"])
def test_company_that_comes_and_goes(name: str) -> None:
    """Frame by frame through a handle, beside streams that are dropped and opened anew in the same slots, and in a crowd."""
    engine, chunk = device_engine(known(name)), frames(known(name).spec, 11, seed=5)
    expected = NaiveEngine(known(name)).run(chunk)
    for way in (by_handle, by_step, in_a_crowd):
        assert_close(way(engine, chunk), expected, way.__name__)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type(dtype: str) -> None:
    """States of every dtype, a number, one without any element, one handed on as it is, one that is last frame: as without a device."""
    g = StepGraph()
    x, h, one = (
        g.input("x", (3,), dtype),
        g.state("h", (3,), dtype, initial=1.0),
        g.state("one", (), dtype, initial=1.0),
    )
    last, kept, nothing = (
        g.state("last", (3,), dtype),
        g.state("kept", (2,), dtype, initial=1.0),
        g.state("nothing", (0, 3)),
    )
    new = g.op("Or", g.op("And", h, x), g.op("Not", x)) if dtype == "bool" else g.op("Add", h, x)
    g.next(h, new)
    g.next(one, g.op("Squeeze", g.op("Slice", new, g.ints(0), g.ints(1), g.ints(1)), g.ints(1)))
    g.next(last, x)
    g.next(nothing, g.op("Identity", nothing))
    shapes = {h: (3,), one: (), last: (3,), kept: (2,), x: (3,)}
    for name, shape in shapes.items():
        g.output(name, name, shape, dtype, direct=True)
    artifact, chunk = g.artifact(), np.random.default_rng(1).integers(0, 4, (6, 3)).astype(dtype)
    device, host = device_engine(artifact), Engine(artifact, backend="ort")
    for part in (chunk[:4], chunk[4:]):
        assert_same_bits(device.push("a", part), host.push("a", part))
        assert_same_bits(device.state("a"), host.state("a"))


def test_a_device_without_states() -> None:
    """A graph without states has nothing to keep and runs as ever."""
    g = StepGraph()
    g.output("y", g.op("Neg", g.input("x", (3,))), (3,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ort_session.DEVICES, CPU, "cpu")
        engine = Engine(g.artifact(), backend="ort", providers=[CPU])
    assert_close(engine.push("a", np.ones((2, 3), np.float32)), -np.ones((2, 3), np.float32))


@pytest.mark.parametrize("other", BACKENDS)
@pytest.mark.parametrize("name", ["lstm", "hazards", "subsampled", "late"])
def test_streams_move(name: str, other: str, tmp_path: Path) -> None:
    """Snapshots, forks and checkpoints go on in another engine, and back, in the middle of a stream: the oracle's outputs."""
    engines = [device_engine(known(name)), Engine(known(name), backend=other, max_streams=64)]
    chunk, path = frames(engines[0].spec, 12, seed=2), tmp_path / "all.ckpt"
    expected = NaiveEngine(known(name)).run(chunk)
    parts: dict[Any, list[Any]] = {"a": [], "b": []}
    for i in range(6):
        engine, after = engines[i % 2], engines[(i + 1) % 2]
        for key in ("a", "b"):
            parts[key].append(engine.push(key, bare(engine.spec, cut(chunk, 2 * i, 2 * i + 2))))
        engine.fork("a", "c")
        assert engine.snapshot("c")[-8:] == engine.snapshot("a")[-8:]
        engine.drop("c")
        engine.drop("b") if i % 3 == 2 else None
        if i % 3 == 2:  # b goes on as a fork of a, which has the same past
            engine.fork("a", "b")
        engine.save(path)
        for key in ("a", "b"):
            after.drop(key) if key in after else None
        after.load(path)
        after.restore("a", engine.snapshot("b"))
    for key in ("a", "b"):
        assert_close(joined([*parts[key], engines[0].close(key)]), expected, f"{name}, {key}:")


def failing(frames_per_step: int) -> Artifact:
    """A look-up that fails within the graph, behind next states that are there by then: an index above 3."""
    g = StepGraph(frames_per_step=frames_per_step)
    x, h, c = g.input("x", (2,)), g.state("h", (2,)), g.state("c", (2,), initial=1.0)
    first = g.op("ReduceSum", x, g.ints(1), keepdims=0) if frames_per_step > 1 else x
    new = g.op("Add", h, first)
    g.next(h, new)
    index = g.op("Cast", g.op("ReduceMax", g.op("Abs", first), axes=[1], keepdims=0), to=TensorProto.INT64)
    looked = g.op("Gather", g.noise(4, 2), index)
    g.next(c, g.op("Mul", c, looked))
    g.output("y", g.op("Add", looked, new), (2,))
    return g.artifact()


@pytest.mark.parametrize("max_batch", [1, 2, 8])
@pytest.mark.parametrize("frames_per_step", [1, 3])
def test_a_step_that_fails(frames_per_step: int, max_batch: int) -> None:
    """Where ONNX Runtime fails in the first wave, a later one, or the only one, every stream is what it was and goes on."""
    engine = device_engine(failing(frames_per_step), max_batch=max_batch)
    good = np.full((7, 2), 0.25, np.float32)
    engine.push_many({"a": good, "b": good[:4], "c": good[:5]})
    whole = Engine(failing(frames_per_step), backend="ort")
    whole.push_many({"a": good, "b": good[:4], "c": good[:5]})
    for at in range(7 if frames_per_step == 1 else 5):  # later ones are held back
        bad = good.copy()
        bad[at] = 99
        before = {key: engine.snapshot(key) for key in "abc"}
        engine.push_many({"new": good[:0]})
        with pytest.raises(BackendError, match="failed within a step"):
            engine.push_many({"a": good, "b": bad, "c": good})
        assert {key: engine.snapshot(key) for key in "abc"} == before
    for key in "abc":
        assert_close(engine.push(key, good), whole.push(key, good))
        assert_close(engine.state(key), whole.state(key))


def test_a_fresh_stream_survives_a_step_that_fails() -> None:
    """One frame of each of three streams, none of which was stepped before: the initial states are still there."""
    engine = device_engine(failing(1))
    for key in "abc":
        engine.stream(key)
    bad = np.full((3, 2), [[1], [99], [1]], np.float32)
    with pytest.raises(BackendError):
        engine.step(list("abc"), bad)
    for key in "abc":
        assert_same_bits(engine.state(key), {"h": np.zeros(2, np.float32), "c": np.ones(2, np.float32)})
        assert engine.frames(key) == 0


class Counted:
    """A session or a binding that adds up the bytes that go between host and device, and the calls."""

    def __init__(self, inner: Any, total: dict[str, int]):
        self.inner, self.total = inner, total

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def io_binding(self) -> "Counted":
        return Counted(self.inner.io_binding(), self.total)

    def run_with_iobinding(self, binding: Any) -> None:
        self.total["calls"] += 1
        self.inner.run_with_iobinding(binding.inner)

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.total["there"] += array.nbytes
        self.inner.bind_cpu_input(name, array)

    def bind_output(
        self, name: str, device: str, number: int, dtype: Any = None, shape: Any = None, place: Any = None
    ) -> None:
        self.total["back"] += int(np.prod(shape)) * dtype.itemsize
        self.inner.bind_output(name, device, number, dtype, shape, place)


def test_bytes_that_move(tmp_path: Path) -> None:
    """A step moves the frames and outputs of its own streams alone; states move when a stream is opened or read, once, in one call."""
    engine = device_engine(known("lstm"))
    backend: Any = backend_of(engine)
    spec, states, total = engine.spec, backend.states, dict.fromkeys(("there", "back", "calls"), 0)
    backend.session, backend._binding = Counted(backend.session, total), Counted(backend._binding, total)
    states.fetching, states.putting = Counted(states.fetching, total), Counted(states.putting, total)
    x, size = frames(spec, 50, seed=1)["x"], spec.state_bytes

    def moved(call: Any) -> tuple[int, int, int]:
        total.update(there=0, back=0, calls=0)
        call()
        return total["there"], total["back"], total["calls"]

    frame, answer, slot = x[0].nbytes, 5 * 4, 8
    assert moved(lambda: engine.step(range(50), x)) == (50 * (frame + size + 2 * slot), 50 * answer, 2)
    assert moved(lambda: engine.step(range(50), x)) == (50 * (frame + slot), 50 * answer, 1)
    assert moved(lambda: engine.step([7], x[:1])) == (frame + slot, answer, 1)
    assert moved(lambda: engine.snapshot(7)) == (slot, size, 1)
    assert moved(lambda: (engine.snapshot(7), engine.state(7), engine.fork(7, 100))) == (0, 0, 0)
    assert moved(lambda: engine.step([7, 100], x[:2])) == (2 * frame + size + 3 * slot, 2 * answer, 2)
    assert moved(lambda: engine.save(tmp_path / "all")) == (51 * slot, 51 * size, 1)
    assert moved(lambda: (engine.save(tmp_path / "all"), engine.drop(3), engine.close(4))) == (0, 0, 0)


@pytest.mark.parametrize("name", GRAPHS)
def test_writes_come_last(name: str, tmp_path: Path) -> None:
    """ONNX Runtime's own profile of a step: nothing runs after the first ScatterND but the others, one for each state that changes."""
    artifact, spec = known(name), known(name).spec
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix, options.intra_op_num_threads = (
        True,
        str(tmp_path / "step"),
        1,
    )
    session = ort.InferenceSession(step_model(artifact).SerializeToString(), options, providers=[CPU])
    binding, k = session.io_binding(), spec.frames_per_step
    binding.bind_cpu_input(SLOTS, np.array([2, 0], np.int64))
    for t in spec.inputs:
        binding.bind_cpu_input(t.name, np.zeros((2, *((k,) if k > 1 else ()), *t.shape), t.dtype))
    if spec.valid_input:
        binding.bind_cpu_input(spec.valid_input, np.full(2, k))
    for s in spec.states:
        value = ort.OrtValue.ortvalue_from_numpy(np.zeros((3, *s.shape), s.dtype))
        binding.bind_ortvalue_input(arena(s), value)
        if s in changing(spec.states):
            binding.bind_ortvalue_output(written(s), value)
    for t in spec.outputs:
        binding.bind_output(t.name)
    session.run_with_iobinding(binding)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = sorted((e for e in events if e["name"].endswith("_kernel_time")), key=lambda e: e["ts"])
    kinds = [e["args"]["op_name"] for e in nodes]
    first = kinds.index("ScatterND")
    assert kinds[first:] == ["ScatterND"] * len(changing(spec.states))
    assert kinds[:first].count("Gather") >= len(spec.states)


def test_a_write_copies_no_arena() -> None:
    """A step over an arena of a gigabyte writes its own rows alone: all other pages of it stay untouched, so they cost no memory."""
    artifact = known("lstm")
    engine = device_engine(artifact, max_streams=2**30 // artifact.spec.state_bytes)
    before = resident_bytes()
    for i in range(20):
        engine.step([0, 1], frames(artifact.spec, 2, seed=i)["x"])
    assert resident_bytes() - before < 2**27


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_graphs_within_the_graph() -> None:
    """A state, and a value that nothing else needs, are read by a branch alone; what nobody needs may fail without harm."""
    g = StepGraph()
    x, h = g.input("x", (2,)), g.state("h", (2,), initial=1.0)
    hidden = g.op("Mul", x, g.weight([3.0]))
    kinds = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("sum", "gone")]
    branches = [
        helper.make_graph([helper.make_node("Add", [h, hidden], ["sum"])], "then", [], kinds[:1]),
        helper.make_graph([helper.make_node("Sub", [h, hidden], ["gone"])], "else", [], kinds[1:]),
    ]
    positive = g.op("Greater", g.op("ReduceSum", x, g.ints(0, 1), keepdims=0), g.weight(0.0))
    g.next(h, g.op("If", positive, then_branch=branches[0], else_branch=branches[1]))
    g.op("Gather", g.noise(1, 2), g.op("Cast", g.op("Abs", x), to=TensorProto.INT64))
    g.output("y", g.op("Identity", h), (2,))
    chunk = np.array([[2, 1], [-3, 1], [0.5, -4]], np.float32)
    engine = device_engine(g.artifact())
    assert_close(engine.push("a", chunk), np.array([[1, 1], [7, 4], [16, 1]], np.float32))
    assert_close(engine.state("a"), {"h": np.array([14.5, 13.0], np.float32)})


def test_an_old_operator_set() -> None:
    """A graph whose operator set cannot say what must come first is refused with what to do."""
    g = StepGraph(opset=11)
    h = g.state("h", (2,))
    g.next(h, g.op("Add", h, g.input("x", (2,))))
    g.output("y", h, (2,))
    with pytest.raises(BackendError, match=r"operator set 11.*12 or later.*version_converter"):
        device_engine(g.artifact())


def test_options_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's number is the provider's `device_id`, 0 where there is none; CUDA computes in float32 unless told otherwise."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    assert ort_session.device_of([CUDA]) == ("cuda", 0)
    assert ort_session.device_of([(CUDA, {"device_id": "3"}), CPU]) == ("cuda", 3)
    assert ort_session.device_of([CPU, CUDA]) is None
    assert ort_session.device_of(None) is None
    assert ort_session.named([CUDA]) == [(CUDA, {"use_tf32": "0"})]
    assert ort_session.named([(CUDA, {"use_tf32": "1"})]) == [(CUDA, {"use_tf32": "1"})]


@pytest.mark.gpu
@pytest.mark.skipif(CUDA not in ort.get_available_providers(), reason="onnxruntime-gpu and a CUDA device are not here")
@pytest.mark.parametrize("name", GRAPHS)
def test_on_cuda(name: str, tmp_path: Path) -> None:
    """The oracle's outputs on CUDA, and a checkpoint in the middle goes on in the compiled backend."""
    check_interleavings(known(name), CUDA, 3, 4)
    here, there = device_engine(known(name), CUDA), Engine(known(name), backend="numba", max_streams=64)
    chunk = frames(here.spec, 12, seed=2)
    start = here.push("a", bare(here.spec, cut(chunk, 0, 7)))
    here.save(tmp_path / "all.ckpt")
    there.load(tmp_path / "all.ckpt")
    for engine in (here, there):
        rest = engine.push("a", bare(here.spec, cut(chunk, 7, 12)))
        assert_close(joined([start, rest, engine.close("a")]), NaiveEngine(known(name)).run(chunk))
