"""Chains of stages: what the last one says is what the stages say one after the other, whatever the batches, and through snapshots."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.chain_config import Gate, Stage
from undertow.engine.errors import BackendError, ConfigError, FrameError, SnapshotError

from .decoded import in_pieces
from .naive_chain import Said, gated, through
from .step_graph import StepGraph, lookahead_step
from .whole_graphs import bidirectional_whole

SIZE = 2


def scores_step(frames_per_step: int = 1) -> Artifact:
    """The mean of the frames, in steps of K: what a gate looks at."""
    g = StepGraph(frames_per_step=frames_per_step)
    x = g.input("x", (SIZE,))
    g.output("score", g.op("ReduceMean", x, axes=[1, 2] if frames_per_step > 1 else [1], keepdims=0), ())
    return g.artifact()


def sums_step(name: str = "x") -> Artifact:
    """Running sums, which tell where a stretch began."""
    g = StepGraph()
    x, h = g.input(name, (SIZE,)), g.state("h", (SIZE,))
    total = g.op("Add", x, h)
    g.next("h", total)
    g.output("y", total, (SIZE,))
    return g.artifact()


def blocks_step() -> Artifact:
    """Two outputs for every three frames: their sums so far, doubled."""
    g = StepGraph(frames_per_step=3, outputs_per_step=2)
    x, h = g.input("x", (SIZE,)), g.state("h", (SIZE,))
    total = g.op("Add", g.op("ReduceSum", x, g.ints(1), keepdims=0), h)
    g.next("h", total)
    both = g.op("Concat", *(g.op("Unsqueeze", t, g.ints(1)) for t in (total, g.op("Add", total, total))), axis=1)
    g.output("y", both, (SIZE,))
    return g.artifact()


WATCHING: dict[str, tuple[Callable[[], Artifact], dict[str, Any]]] = {
    "each": (scores_step, {"on": 0.6, "off": 0.4}),
    "blocks": (lambda: scores_step(4), {"on": 0.6, "off": 0.4}),
    "late": (lambda: lookahead_step(2, SIZE), {"on": 6, "off": 5, "value": 0}),
    "late blocks": (lambda: lookahead_step(3, SIZE, frames_per_step=2), {"on": 6, "value": 1}),
}
BEHIND = {
    "sums": lambda: [sums_step()],
    "tail": lambda: [lookahead_step(2, SIZE)],
    "two rates": lambda: [blocks_step(), sums_step()],
    "tail of blocks": lambda: [lookahead_step(4, SIZE, frames_per_step=2), sums_step()],
}


def chain(watch: Artifact, gate: Gate | None, behind: list[Artifact]) -> list[Stage]:
    """The watching stage, and the others behind the gate; each of those takes the outputs of the one before it."""
    first = Stage(behind[0], "s0", "frames", gate)
    return [Stage(watch, "watch"), first, *(Stage(a, f"s{i}", f"s{i - 1}") for i, a in enumerate(behind[1:], 1))]


def noise(length: int, seed: int) -> np.ndarray:
    """Stretches of high and of low values, about as long as the gates' counts."""
    random = np.random.default_rng(seed)
    level = np.repeat(random.integers(0, 2, length + 1), random.integers(1, 9, length + 1))[:length]
    return (level[:, None] + random.normal(0, 0.2, (length, SIZE))).astype(np.float32)


def check(events: Any, said: list[Said], what: Any = "") -> None:
    """The same places, and the same values to within rounding."""
    got = list(events)
    assert [e["at"] for e in got] == [s.at for s in said], what
    for e, s in zip(got, said, strict=True):
        np.testing.assert_allclose(e["y"], s.values, atol=1e-4, err_msg=str(what))


def same(one: Any, other: Any) -> None:
    """Two lists of events are alike."""
    check(one, [Said(np.asarray(e["y"]), e["at"], None) for e in other])


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("watching", WATCHING)
def test_a_gated_chain_says_what_its_stages_say_of_each_stretch(watching: str, behind: str, backend: str) -> None:
    """The naive chain's outputs, in any pieces and batches, with snapshots between; every stretch begins anew."""
    make, levels = WATCHING[watching]
    watch, stages = make(), BEHIND[behind]()
    for seed in range(3):
        random = np.random.default_rng(seed)
        gate = Gate(
            by="watch", **levels, min_on=int(random.integers(1, 4)), min_off=int(random.integers(1, 4)),
            before=int(random.integers(0, 9)),
        )  # fmt: skip
        engine = Engine(chain(watch, gate, stages), backend=backend, max_streams=16)
        streams = {f"s{i}": noise(int(random.integers(0, 70)), seed + i) for i in range(5)}
        got = in_pieces(engine, streams, seed)
        for key, events in got.items():
            check(events, gated(list(streams[key.rstrip("'")]), [watch], gate, stages), (gate, key))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(WATCHING)), st.sampled_from(sorted(BEHIND)), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 12), st.integers(0, 60), st.integers(0, 10**6),
)  # fmt: skip
def test_events_come_with_the_frame_that_makes_them_known(
    watching: str, behind: str, min_on: int, min_off: int, before: int, length: int, seed: int
) -> None:
    """Frame by frame each event comes as early as the naive chain says, the rest at the end."""
    make, levels = WATCHING[watching]
    watch, stages = make(), BEHIND[behind]()
    gate = Gate(by="watch", **levels, min_on=min_on, min_off=min_off, before=before)
    engine, frames = Engine(chain(watch, gate, stages), backend="ort", max_streams=2), noise(length, seed)
    got: list[tuple[int | None, Any]] = [(i, e) for i, x in enumerate(frames) for e in engine.push("s", x[None])]
    got += [(None, e) for e in (engine.close("s") if length else [])]
    said = gated(list(frames), [watch], gate, stages)
    assert [known for known, _ in got] == [s.known for s in said]
    check([e for _, e in got], said)


@pytest.mark.parametrize("behind", BEHIND)
def test_a_chain_without_a_gate_is_its_stages_one_after_the_other(behind: str) -> None:
    """Rates and delays add up; the tails of all stages come at the end."""
    stages = [sums_step(), *BEHIND[behind]()]
    links = [Stage(stages[0], "s0"), *(Stage(a, f"s{i}", f"s{i - 1}") for i, a in enumerate(stages[1:], 1))]
    engine = Engine(links, backend="numba", max_streams=16)
    streams = {f"s{i}": noise(20 + 7 * i, i) for i in range(4)}
    got = in_pieces(engine, streams, 3)
    for key, events in got.items():
        check(events, through(stages, list(streams[key.rstrip("'")])), key)


def test_a_gate_by_its_keys_is_that_gate() -> None:
    """Keys in place of a `Gate` make the same chain, and a stream of one goes on in the other."""
    keys, frames = {"by": "watch", "on": 0.5, "before": 1}, noise(16, 0)
    one, other = (
        Engine(chain(scores_step(), gate, [sums_step()]), backend="ort", max_streams=2) for gate in (keys, Gate(**keys))
    )
    events = list(one.push("s", frames[:8]))
    other.restore("s", one.snapshot("s"))
    events += [*other.push("s", frames[8:]), *other.close("s")]
    check(events, gated(list(frames), [scores_step()], Gate(**keys), [sums_step()]))


def test_a_decoder_behind_a_gate_ends_with_each_stretch() -> None:
    """A stretch that ends while the value is high has its end; `begin` and `at` are frames of the stream."""
    gate = Gate(by="watch", on=0.5, before=1)
    decode = {"type": "threshold", "on": 1.5, "value": 0}
    engine = Engine(chain(scores_step(), gate, [sums_step()]), decode=decode, backend="ort", max_streams=2)
    frames = np.repeat(np.array([0, 1, 1, 1, 0, 0, 1, 1, 1], np.float32), SIZE).reshape(-1, SIZE)
    events = [*engine.push("s", frames), *engine.close("s")]
    assert [(e["event"], e["begin"], e["at"]) for e in events] == [
        ("start", 2, 2), ("end", 5, 4), ("start", 7, 7), ("end", 9, 8),
    ]  # fmt: skip


def test_snapshot_fork_and_rows_carry_every_stage(tmp_path: Path) -> None:
    """A fork in the middle of a stretch, a snapshot into another engine and a checkpoint go on as the stream does."""
    gate, stages = Gate(by="watch", on=0.5, min_off=3, before=2), [lookahead_step(2, SIZE), sums_step()]
    links = chain(scores_step(4), gate, stages)
    one, two = (Engine(links, backend="numba", max_streams=4) for _ in range(2))
    frames = noise(60, 5)
    one.push("s", frames[:31])
    one.fork("s", "t")
    two.restore("u", one.snapshot("s"))
    one.save(tmp_path / "all")
    expected = [*one.push("s", frames[31:]), *one.close("s")]
    two.load(tmp_path / "all")
    for engine, key in ((one, "t"), (two, "u"), (two, "s")):
        same([*engine.push(key, frames[31:]), *engine.close(key)], expected)
    assert len(expected) > 10


REFUSED: dict[str, tuple[Any, str]] = {
    "no such stage": (lambda: [Stage(sums_step(), "a"), Stage(sums_step(), "b", "c")], "neither 'frames' nor a stage before it"),
    "a name twice": (lambda: [Stage(sums_step(), "a"), Stage(sums_step(), "a", "a")], "expected a name of its own"),
    "unused": (lambda: [Stage(sums_step(), "a"), Stage(sums_step(), "b")], "no later stage takes its outputs"),
    "shape": (lambda: [Stage(scores_step(), "a"), Stage(sums_step(), "b", "a")], r"is float32 \(2,\), 'a.score' is float32 \(\)"),
    "no such output": (lambda: [Stage(sums_step(), "a"), Stage(sums_step(), "b", {"x": "a.z"})], "takes 'a.z'"),
    "whole sequences": (lambda: [Stage(bidirectional_whole(), "a")], "maps whole sequences"),
    "other frames": (
        lambda: [Stage(scores_step(), "w"), Stage(lookahead_step(1, 5), "b", gate=Gate(by="w", on=1))], "expected the same",
    ),
    "a gate by nobody": (lambda: [Stage(sums_step(), "a", gate=Gate(by="w", on=1))], "is no stage before it"),
    "a gate on no frames": (
        lambda: [Stage(scores_step(), "w"), Stage(sums_step(), "a"), Stage(sums_step(), "b", "a", Gate(by="w", on=1))],
        "give the gate to the stage that takes 'frames'",
    ),
    "a key that a gate has not": (lambda: [Stage(scores_step(), "w"), Stage(sums_step(), "b", gate={"by": "w", "on": 1, "of": 0})], "stage 'b': gate: .*unknown field `of`"),
    "a count of none": (lambda: [Stage(scores_step(), "w"), Stage(sums_step(), "b", gate=Gate(by="w", on=1, min_on=0))], "stage 'b': gate: .*>= 1"),
    "off above on": (lambda: chain(scores_step(), Gate(by="watch", on=0.5, off=0.6), [sums_step()]), "expected off at or below on"),
    "which value": (lambda: chain(sums_step(), Gate(by="watch", on=0.5), [sums_step()]), "say which of its values"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused(what: str) -> None:
    """Stages that cannot stand one behind the other: the stage and what is wrong, before anything runs."""
    stages, message = REFUSED[what]
    with pytest.raises(ConfigError, match=message):
        Engine(stages(), backend="ort")


def test_a_chain_takes_no_frame_that_any_stage_would_refuse() -> None:
    """A frame that is not finite is refused as one model refuses it; the stream is as before. A chain does not generate."""
    engine = Engine(chain(scores_step(), Gate(by="watch", on=0.5), [sums_step()]), backend="ort")
    engine.push("s", np.ones((3, SIZE), np.float32))
    with pytest.raises(FrameError, match="stream 's': input 'x' is nan"):
        engine.push("s", np.full((1, SIZE), np.nan, np.float32))
    assert list(engine.push("s", np.ones((1, SIZE), np.float32))) == [{"at": 3, "y": [4.0, 4.0]}]
    with pytest.raises(BackendError, match="does not generate"):
        engine.generate(["s"], [[1]], 3)


def test_other_chains_refuse_each_others_snapshots() -> None:
    """The gate is part of what a stream's state means."""
    one, two = (
        Engine(chain(scores_step(), Gate(by="watch", on=0.5, before=b), [sums_step()]), backend="ort") for b in (0, 1)
    )
    one.push("s", np.ones((1, SIZE), np.float32))
    with pytest.raises(SnapshotError, match="was it written by another model"):
        two.restore("s", one.snapshot("s"))
