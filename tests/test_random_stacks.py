"""Random stacks of streamable layers, stepped, are the whole-sequence graph on the whole sequence, both ends included.

UNDERTOW_STACKS says how many stacks are tried (300 where it is not set); more than that are others in every run:
`UNDERTOW_STACKS=5000 python -m pytest tests/test_random_stacks.py`.
"""

import os
from dataclasses import dataclass

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact, make_artifact
from undertow.exporters.step_pass import to_step

from .naive_stream import plain, streamed
from .stacks import Case, stacks

DEFAULT = 300
COUNT = int(os.environ.get("UNDERTOW_STACKS", DEFAULT))
tried = settings(max_examples=COUNT, derandomize=COUNT == DEFAULT)
a_share = settings(max_examples=max(1, COUNT // 5), derandomize=COUNT == DEFAULT)
a_few = settings(max_examples=max(1, COUNT // 60), derandomize=COUNT == DEFAULT)
SHORT = (0, 1, 2, 3)


@dataclass(frozen=True)
class Pair:
    """A stack's whole-sequence graph, ready to run, and the steps made of it."""

    case: Case
    whole: onnxruntime.InferenceSession
    artifact: Artifact
    output_axis: int

    def expected(self, frames: np.ndarray, count: int) -> np.ndarray:
        """(T', *out) of (T, *frame), which the whole-sequence graph gives; it must give `count`."""
        out = self.artifact.spec.outputs[0]
        if not count:
            return np.zeros((0, *out.shape), out.dtype)
        whole = np.moveaxis(frames[None], (0, 1), (self.case.batch_axis, self.case.time_axis))
        (made,) = self.whole.run(None, {"x": np.ascontiguousarray(whole)})
        made = np.moveaxis(np.asarray(made), self.output_axis, 0)[:, 0]
        assert len(made) == count
        return made


def paired(case: Case, frames_per_step: int = 1) -> Pair:
    axes = {"time_axis": case.time_axis, "batch_axis": case.batch_axis}

    def feed(batch: int, length: int) -> dict[str, np.ndarray]:
        shape = [case.features] * 3
        shape[case.batch_axis], shape[case.time_axis] = batch, length
        return {"x": np.random.default_rng(length).normal(size=shape).astype(np.float32)}

    step = to_step(case.model, feed, frames_per_step=frames_per_step, **axes)
    artifact = make_artifact(step.model, step.spec)
    (axis,) = step.time_axes.values()
    return Pair(case, plain(case.model), artifact, axis)


def lengths_of(case: Case, some: list[int]) -> list[tuple[int, int]]:
    """(frames, outputs): none, few, one less than gives an output, the first that does, and some more; those that the graph can run."""
    known = {n: case.outputs(n) for n in (*SHORT, *range(4, 200))}
    first = next((n for n, count in known.items() if count), None)
    wanted = {*SHORT, *some} | ({first - 1, first, first + 1} if first else set())
    return [(n, count) for n in sorted(wanted) if (count := case.outputs(n)) is not None]


def frames_of(case: Case, length: int) -> np.ndarray:
    return np.random.default_rng(length + 1).normal(size=(length, case.features)).astype(np.float32)


def assert_same(got: np.ndarray, expected: np.ndarray, case: Case, note: str) -> None:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert got.shape == expected.shape, f"{case.recipe}\n{note}: {got.shape}, expected {expected.shape}"
    np.testing.assert_allclose(got, expected, atol=1e-4 * scale, rtol=0, err_msg=f"{case.recipe}\n{note}")


SOME = st.lists(st.integers(4, 60), min_size=2, max_size=3)


@tried
@given(stacks(), SOME, st.sampled_from((1, 1, 1, 2, 3)))
def test_stepped_is_whole(case, some, frames_per_step):
    """For every length, with no frame and too few frames among them: the outputs, and how many there are, are the whole graph's."""
    pair = paired(case, frames_per_step)
    session, spec = plain(pair.artifact.model), pair.artifact.spec
    for length, count in lengths_of(case, some):
        frames = frames_of(case, length)
        got = streamed(session, spec, {"x": frames})[spec.outputs[0].name]
        note = f"{length} frames, {spec.frames_per_step} a step, delay {spec.delay}, lengths {spec.lengths}"
        assert_same(got, pair.expected(frames, count), case, note)


def through_engine(case: Case, some: list[int], cuts: list[int], backend: str) -> None:
    """All lengths as streams of one engine at once, cut into chunks as `cuts` says."""
    pair = paired(case)
    lengths = lengths_of(case, some)
    engine = Engine(pair.artifact, backend=backend, max_streams=len(lengths))
    left = {i: frames_of(case, length) for i, (length, _) in enumerate(lengths)}
    given: dict[int, list[np.ndarray]] = {i: [] for i in left}
    turn = 0
    while any(len(frames) for frames in left.values()):
        chunks, turn = {}, turn + 1
        for i, frames in left.items():
            size = cuts[(turn + i) % len(cuts)]
            if size and len(frames):
                chunks[i], left[i] = frames[:size], frames[size:]
        for i, made in engine.push_many(chunks).items():
            given[i].append(made)
    for i, (length, count) in enumerate(lengths):
        if length:
            given[i].append(engine.close(i))
            frames = frames_of(case, length)
            assert_same(
                np.concatenate(given[i]), pair.expected(frames, count), case, f"{length} frames in chunks {cuts}"
            )


CUTS = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


@a_share
@given(stacks(), SOME, CUTS)
def test_engine_is_whole(case, some, cuts):
    """Many streams of different lengths at once, cut anywhere, through the engine on ONNX Runtime."""
    through_engine(case, some, cuts, "ort")


@a_few
@given(stacks(most=4), SOME, CUTS)
def test_compiled_engine_is_whole(case, some, cuts):
    """The same on the compiled backend."""
    through_engine(case, some, cuts, "numba")


def test_the_stepper_sees_what_is_not_real():
    """A graph that lets frames past the end through would be found: they are large."""
    with pytest.raises(AssertionError):
        assert_same(np.full((3, 1), 37.0), np.zeros((3, 1)), Case(None, 1, 1, 0, int, "none"), "")  # type: ignore[arg-type]
