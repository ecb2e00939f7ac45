"""What records mean does not depend on how they come together, and is what a ledger of one record and one stream gives."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.connectors.config import Policy
from undertow.connectors.records import Record
from undertow.engine import Engine

from .naive_ledger import NaiveLedger
from .pipelines import SECOND, SIZE
from .recovery import Cluster, Life
from .test_kafka_state import running_sum


@pytest.fixture(scope="module")
def sums() -> Engine:
    return Engine(running_sum(), backend="numba", max_streams=129)


def records(seed: int) -> list[Record]:
    noise, offsets, clock, seqs = np.random.default_rng(seed), [0, 0], [0, 0], dict[bytes, int]()
    given = []
    for _ in range(100):
        p = int(noise.integers(2))
        key = b"%d-%d" % (p, noise.integers(4))
        clock[p] += int(noise.choice([0, 1, 2, 30], p=[0.3, 0.4, 0.25, 0.05])) * SECOND
        value: Any = noise.normal(size=(int(noise.integers(0, 5)), SIZE)).astype(np.float32)
        if noise.random() < 0.05:
            value[:] = 3e38
        if noise.random() < 0.05:
            value = None
        seq = max(0, seqs.get(key, 0) + int(noise.choice([0, 0, 0, 0, 0, 0, 3, -2])))
        end = bool(noise.random() < 0.08) or value is None
        seqs[key] = 0 if end else seq + len(value)
        time_ns = None if noise.random() < 0.1 else clock[p] - int(noise.choice([0, 0, 0, 20])) * SECOND
        told = None if noise.random() < 0.1 else seq
        given.append(Record(f"t/{p}", offsets[p], offsets[p] + 1, key, value, time_ns, SECOND, end, told))
        offsets[p] += 1
    return given


@pytest.mark.parametrize("gap", ["error", "reset", "zero", "hold", "interpolate"])
@pytest.mark.parametrize("gap_in", ["sequence", "time"])
@settings(max_examples=4)
@given(
    seed=st.integers(0, 100_000),
    late=st.sampled_from([None, "drop", "error"]),
    idle=st.sampled_from([None, 25.0]),
    most=st.sampled_from([2, 4, 64]),
)
def test_records_mean_what_the_naive_ledger_says(
    sums: Engine, gap: str, gap_in: str, seed: int, late: str | None, idle: float | None, most: int
) -> None:
    """Steps, values, times, sources, ends and dead letters of random records in random polls, under every policy of gaps."""
    policy = Policy(bad_record="dead-letter", gap=gap, gap_in=gap_in, late=late, idle_timeout_s=idle, max_gap_frames=20)
    all_records, choose = records(seed), random.Random(seed)
    naive = NaiveLedger(policy, most, SIZE)
    for record in all_records:
        naive.take(record)
    life = Life(Cluster(all_records), sums, policy, most, choose)
    at = 0
    while at < len(all_records):
        size = choose.choice((1, 2, 5, 17, 100))
        for answers in life.batch.answers(life.batch.columns(all_records[at : at + size])):
            life.answers += answers
        at += size
    assert [(p, o) for p, o, _ in life.letters] == naive.letters
    assert life.batch.ledger.late_frames == naive.late_frames
    told = [(a.source, a.key, a.step, a.event_time_ns, a.end, len(a.values["y"])) for a in life.answers]
    assert told == [line[:-1] for line in naive.answers]
    for a, line in zip(life.answers, naive.answers, strict=True):
        np.testing.assert_allclose(a.values["y"], line[-1], rtol=1e-5, atol=1e-5)
