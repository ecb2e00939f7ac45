"""Recovery from changelogs without a broker: whatever crashes, what all lives commit together is what one life gives."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.connectors.config import Policy
from undertow.connectors.records import Record
from undertow.engine import Engine
from undertow.engine.artifact import Artifact, write_artifact

from .pipelines import SECOND, SIZE
from .recovery import Cluster, Life, engine_of, lived, turn, whole
from .step_graph import StepGraph, lookahead_step
from .whole_graphs import bidirectional_whole


def running_sum() -> Artifact:
    """No delay; sums that are too large are infinite."""
    g = StepGraph()
    x, h = g.input("x", (SIZE,)), g.state("h", (SIZE,))
    total = g.op("Add", x, h)
    g.next("h", total)
    g.output("y", total, (SIZE,))
    return g.artifact()


MODELS: dict[str, Callable[[], Artifact]] = {
    "sum": running_sum,
    "delay": lambda: lookahead_step(2),
    "blocks": lambda: lookahead_step(5, frames_per_step=2),
    "sequence": bidirectional_whole,
}


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    artifact = MODELS[request.param]()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_artifact(path, artifact.model, artifact.spec)
    return engine_of(path, "ort" if artifact.spec.sequence else "numba")


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    artifact = running_sum()
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_artifact(path, artifact.model, artifact.spec)
    return engine_of(path)


def faulty(engine: Engine, seed: int, partitions: int = 2, count: int = 120, keys: int = 4) -> list[Record]:
    """Everything that policies act on: gaps, late frames, what is not finite, ends, pauses, time that goes back, payloads that are bad."""
    noise, shape = np.random.default_rng(seed), engine.spec.inputs[0].shape
    offsets, clock, seqs, given = [0] * partitions, [0] * partitions, dict[bytes, int](), list[Record]()
    for _ in range(count):
        p = int(noise.integers(partitions))
        key = b"%d-%d" % (p, noise.integers(keys))
        clock[p] += int(noise.choice([0, 1, 2, 30], p=[0.3, 0.4, 0.25, 0.05])) * SECOND
        size = int(noise.integers(0, 5))
        value: Any = noise.normal(size=(size, *shape)).astype(np.float32)
        if noise.random() < 0.05:
            value[:] = 3e38
        if noise.random() < 0.05:
            value = None
        if noise.random() < 0.05:
            value = np.zeros((2, *shape, 2), np.float32)
        seq = max(0, seqs.get(key, 0) + int(noise.choice([0, 0, 0, 0, 0, 0, 3, -2])))
        end = bool(noise.random() < 0.08) or value is None
        seqs[key] = 0 if end else seq + size
        time_ns = None if noise.random() < 0.1 else clock[p] - int(noise.choice([0, 0, 0, 20, 60])) * SECOND
        seq_given = None if noise.random() < 0.1 else seq
        given.append(Record(f"t/{p}", offsets[p], offsets[p] + 1, key, value, time_ns, SECOND // 10, end, seq_given))
        offsets[p] += int(noise.integers(1, 3))  # holes, as transactions leave them
    return given


POLICIES = [
    {"gap": "error"},
    {"gap": "reset"},
    {"gap": "zero", "idle_timeout_s": 25},
    {"gap": "hold", "late": "error", "idle_timeout_s": 25},
    {"gap": "interpolate", "gap_in": "time", "max_gap_frames": 60},
    {"gap": "reset", "gap_in": "time", "idle_timeout_s": 40, "non_finite": "pass"},
]


@pytest.mark.parametrize("keys", POLICIES, ids=lambda k: "-".join(map(str, k.values())))
@settings(max_examples=6)
@given(seed=st.integers(0, 100_000))
def test_lives_that_crash_give_what_one_gives(engine: Engine, keys: dict[str, Any], seed: int) -> None:
    """Commits, shares of rows, compactions, crashes, aborted transactions and hand-overs at random: the answers that all lives
    have committed, expiries and their places included, and the dead letters, are those of one life record by record."""
    policy = Policy(bad_record="dead-letter", **keys)
    records = faulty(engine, seed)
    expected, cluster = whole(records, engine, policy, 64), Cluster(records)
    lived(cluster, engine, policy, 64, seed)
    assert sorted(cluster.letters) == sorted(expected.letters)
    assert cluster.lines() == expected.lines()


@settings(max_examples=15)
@given(seed=st.integers(0, 100_000), most=st.integers(1, 4), idle=st.sampled_from([None, 25.0]))
def test_refusals_are_repeated(sums: Engine, seed: int, most: int, idle: float | None) -> None:
    """A partition with more streams than there is room for: which records found none is decided once, whatever crashes."""
    policy = Policy(bad_record="dead-letter", gap="reset", idle_timeout_s=idle)
    records = faulty(sums, seed, partitions=1, keys=6)
    expected, cluster = whole(records, sums, policy, most), Cluster(records)
    lived(cluster, sums, policy, most, seed)
    assert sorted(cluster.letters) == sorted(expected.letters)
    assert cluster.lines() == expected.lines()


@settings(max_examples=10)
@given(seed=st.integers(0, 100_000))
def test_a_standby_goes_on(sums: Engine, seed: int) -> None:
    """A life that has followed the changelogs piece by piece while another wrote them goes on as one that reads them at once."""
    policy = Policy(bad_record="dead-letter", gap="reset", idle_timeout_s=25)
    records, choose = faulty(sums, seed), random.Random(seed)
    expected, cluster = whole(records, sums, policy, 64), Cluster(records)
    owner = Life(cluster, sums, policy, 64, choose)
    for p in cluster.records:
        owner.start(p)

    follower = Life(cluster, twin(sums), policy, 64, choose)
    for _ in range(12):
        turn(owner)
        owner.now += choose.choice((0.1, 3.0))
        follower.follow(choose.choice(sorted(cluster.records)))
    for p in cluster.records:
        follower.start(p)
    while not cluster.done:
        follower.poll()
        follower.commit()
    assert sorted(cluster.letters) == sorted(expected.letters)
    assert cluster.lines() == expected.lines()


_twins: dict[int, Engine] = {}


def twin(engine: Engine) -> Engine:
    """Another engine of the same model."""
    return _twins.setdefault(id(engine), Engine(engine.artifact, backend="numba", max_streams=128))
