"""Recovery from changelogs without a broker: whatever crashes, what all lives commit together is what one life gives."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undertow.connectors.config import Policy
from undertow.connectors.kafka.rows import MARKER
from undertow.connectors.records import Record
from undertow.engine import Engine
from undertow.engine.artifact import Artifact, write_artifact
from undertow.engine.chain_config import Gate, Stage
from undertow.engine.errors import CheckpointError

from .pipelines import SECOND, SIZE, running_sum
from .recovery import INTERVAL_S, Cluster, Life, engine_of, lived, turn, whole
from .step_graph import lookahead_step
from .test_chain import chain, scores_step, sums_step
from .whole_graphs import bidirectional_whole

MODELS: dict[str, Callable[[], Artifact | list[Stage]]] = {
    "sum": running_sum,
    "delay": lambda: lookahead_step(2),
    "blocks": lambda: lookahead_step(5, frames_per_step=2),
    "sequence": bidirectional_whole,
    "threshold": running_sum,
    "labels": lambda: lookahead_step(2),
    "chain": lambda: chain(
        scores_step(), Gate(by="watch", on=0.3, off=0, min_off=2, before=2), [sums_step(), lookahead_step(2, 2)]
    ),
}
DECODE: dict[str, dict[str, Any]] = {
    "threshold": {"type": "threshold", "value": 1, "on": 1.0, "off": -0.5, "min_off": 2},
    "labels": {"type": "labels", "labels": ["x", "y", "z"], "half_life": 2.0, "min_duration": 2, "emit": "changes"},
}


@pytest.fixture(scope="module", params=MODELS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    model, decode = MODELS[request.param](), DECODE.get(request.param)
    if not isinstance(model, Artifact):
        return engine_of(model, decode=decode)
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    write_artifact(path, model.model, model.spec)
    return engine_of(path, "ort" if model.spec.sequence else "numba", decode=decode)


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
@settings(max_examples=3)
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


@settings(max_examples=8)
@given(seed=st.integers(0, 100_000), most=st.integers(1, 4), idle=st.sampled_from([None, 25.0]))
def test_refusals_are_repeated(sums: Engine, seed: int, most: int, idle: float | None) -> None:
    """A partition with more streams than there is room for: which records found none is decided once, whatever crashes."""
    policy = Policy(bad_record="dead-letter", gap="reset", idle_timeout_s=idle)
    records = faulty(sums, seed, partitions=1, keys=6)
    expected, cluster = whole(records, sums, policy, most), Cluster(records)
    lived(cluster, sums, policy, most, seed)
    assert sorted(cluster.letters) == sorted(expected.letters)
    assert cluster.lines() == expected.lines()


@settings(max_examples=6)
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
    return _twins.setdefault(id(engine), Engine(engine.artifact, backend="numba", max_streams=129))


@settings(max_examples=6)
@given(seed=st.integers(0, 100_000))
def test_partitions_move_between_lives_that_are_full(sums: Engine, seed: int) -> None:
    """Partitions that move between two processes with too little room: each record with frames is answered once or is a dead letter
    once, and the outputs of a stream have no gap and no repeat."""
    policy, choose = Policy(bad_record="dead-letter", gap="error", late="error", idle_timeout_s=60), random.Random(seed)
    records = faulty(sums, seed, partitions=4, count=160, keys=3)
    cluster, most = Cluster(records), 5
    engines = [sums, twin(sums)]
    lives = [Life(cluster, e, policy, most, choose) for e in engines]
    owner = {p: choose.randrange(2) for p in cluster.records}
    for p, i in owner.items():
        lives[i].start(p)
    for _ in range(500):
        if cluster.done:
            break
        for life in lives:
            turn(life) if life.replay_to else None
            life.now += choose.choice((0.1, 3.0, 9.0))
        i = choose.randrange(2)
        if choose.random() < 0.2:  # it crashes; the other one and its next life share what it had
            lost = list(lives[i].replay_to)
            lives[i] = Life(cluster, engines[i], policy, most, choose)
            for p in lost:
                lives[choose.randrange(2)].start(p)
        elif lives[i].replay_to and choose.random() < 0.3:
            p = choose.choice(sorted(lives[i].replay_to))
            lives[i].commit(frozenset({p}))
            lives[1 - i].start(p)
    assert cluster.done
    taken = sorted(
        {a.source for a in cluster.given if len(a.values["y"])} | {f"{p}/{o}" for p, o, _ in cluster.letters}
    )
    assert taken == sorted(r.source for r in records if r.value is not None and len(r.value))
    assert len({(p, o) for p, o, _ in cluster.letters}) == len(cluster.letters)
    for lines in cluster.lines().values():
        due = 0
        for step, *_ in lines:
            assert step == "end" or step == due or (step > due and any("quarantined" in w for *_, w in cluster.letters))
            due = 0 if step == "end" else step + 1


def some_life(engine: Engine, cluster: Cluster) -> Life:
    life = Life(cluster, engine, Policy(), 64, random.Random(0))
    for p in cluster.records:
        life.start(p)
    return life


def four(key: bytes = b"k") -> list[Record]:
    return [Record("t/0", i, i + 1, key, np.full((1, SIZE), i, np.float32), None, 0) for i in range(4)]


def test_an_offset_that_was_set_back_is_refused(sums: Engine) -> None:
    """State for records that the group is said not to have taken is not gone on from: the error says both offsets."""
    cluster = Cluster(four())
    life = some_life(sums, cluster)
    while not cluster.done:
        life.poll()
        life.commit(frozenset({"t/0"}) if life.batch.positions.next["t/0"] == 4 else frozenset())
    cluster.committed["t/0"] = 2
    with pytest.raises(CheckpointError, match=r"up to offset 4 of t/0, the group's committed offset is 2"):
        some_life(sums, cluster)


def test_an_offset_that_was_set_forward_passes_records_over(sums: Engine) -> None:
    """Records that the group is said to have taken are replayed and not answered, so that the state is that of all of them."""
    cluster = Cluster(four())
    life = some_life(sums, cluster)
    while life.batch.positions.next["t/0"] < 1:
        life.poll()
    life.commit(frozenset({"t/0"}))
    cluster.committed["t/0"] = 3
    life = some_life(sums, cluster)
    while not cluster.done:
        life.poll()
        life.commit()
    assert [a.step for a in cluster.given if a.source == "t/0/3"] == [3]


@pytest.mark.parametrize("place", [0, 20, -1])
def test_a_damaged_row_is_named(sums: Engine, place: int) -> None:
    """A row of which a byte has changed is not taken: the error names its stream."""
    cluster = Cluster(four())
    life = some_life(sums, cluster)
    while not cluster.done:
        life.poll()
        life.commit()
    life.commit(frozenset({"t/0"}))
    at = max(i for i, r in enumerate(cluster.logs["t/0"]) if r[1] == b"sk")
    offset, key, value = cluster.logs["t/0"][at]
    assert value is not None
    broken = bytearray(value)
    broken[place] ^= 1
    cluster.logs["t/0"][at] = offset, key, bytes(broken)
    with pytest.raises(CheckpointError, match=r"stream b'k' is damaged"):
        some_life(sums, cluster)


def test_a_stream_that_ends_and_begins_between_its_rows(sums: Engine) -> None:
    """Whatever row of it a crash leaves, a stream that ended and began again is stepped from its new beginning."""
    ends = {1, 2, 5}
    values = np.arange(1, 9, dtype=np.float32)
    records = [
        Record("t/0", i, i + 1, b"k", np.full((1, SIZE), v, np.float32), None, 0, i in ends)
        for i, v in enumerate(values)
    ]
    expected = whole(records, sums, Policy(), 64)
    for seed in range(30):
        cluster = Cluster(records)
        lived(cluster, sums, Policy(), 64, seed)
        assert cluster.lines() == expected.lines()


def test_following_begins_anew(sums: Engine) -> None:
    """A changelog that was read in part and is followed again leaves nothing of the first reading behind, least of all streams that count as open."""
    records = [Record("t/0", i, i + 1, b"%d" % i, np.ones((1, SIZE), np.float32), None, 0) for i in range(10)]
    cluster = Cluster(records)
    lived(cluster, sums, Policy(), 64, 0)
    life = Life(cluster, sums, Policy(), 64, random.Random(0))
    life.follow("t/0")
    assert len(life.batch.ledger.streams) == 10
    life.state.follow("t/0")
    assert (len(life.batch.ledger.streams), life.batch.ledger.live) == (0, 0)
    life.read.clear()
    life.start("t/0")
    assert life.batch.ledger.live == 10


def test_rows_are_due_within_the_interval_and_not_all_the_time(sums: Engine) -> None:
    """Of a partition that has fallen silent commits are due only where they write a row or begin a sweep, and every row is written in time."""
    records = [Record("t/0", i, i + 1, b"%d" % i, np.ones((1, SIZE), np.float32), None, 0) for i in range(10)]
    life = Life(Cluster(records), sums, Policy(), 64, random.Random(0))
    life.start("t/0")
    while life.batch.positions.next["t/0"] < len(records):
        life.poll()
    began, rows, commits = life.now, 0, 0
    while life.state.unwritten("t/0"):
        assert life.now <= began + INTERVAL_S
        if life.state.due("t/0", life.now, INTERVAL_S):
            told = life.state.changes("t/0", life.now, INTERVAL_S)
            rows, commits = rows + sum(key != MARKER for key, _ in told), commits + 1
        life.now += INTERVAL_S / 1000
    assert rows == len(records)
    assert commits <= len(records) + 3
    assert not life.state.due("t/0", life.now + 10 * INTERVAL_S, INTERVAL_S)


def test_a_refusal_before_the_next_change_is_repeated(sums: Engine) -> None:
    """A record that found no room while all rows were written is refused in a replay too, although a change since has moved on
    where a replay would have to begin."""
    policy, one = Policy(bad_record="dead-letter"), np.ones((1, SIZE), np.float32)
    keys = [(b"a", False), (b"b", False), (b"a", True), (b"b", False)]
    records = [Record("t/0", i, i + 1, k, one, None, 0, end) for i, (k, end) in enumerate(keys)]
    cluster = Cluster(records)
    life = Life(cluster, sums, policy, 1, random.Random(0))
    life.start("t/0")
    take(life, 1)
    life.now += 100.0
    life.commit()  # a sweep begins
    life.now += 100.0
    life.commit()  # the row of a is written, nothing is left to write
    for _ in range(2):  # b finds no room; then a changes, and its row has to wait
        take(life, 1)
    life.commit()
    life = Life(cluster, sums, policy, 1, random.Random(0))
    life.start("t/0")
    while not cluster.done:
        take(life, 1)
        life.commit()
    assert [(a.key, a.step) for a in cluster.given if len(a.values["y"])] == [(b"a", 0), (b"a", 1), (b"b", 0)]
    assert [offset for _, offset, _ in cluster.letters] == [1]


def take(life: Life, count: int) -> None:
    """The next records of partition t/0."""
    begin = life.batch.positions.next["t/0"]
    records = [r for r in life.cluster.records["t/0"] if r.offset >= begin][:count]
    for answers in life.batch.answers(life.batch.columns(records)):
        life.answers += answers
    life.moved.add("t/0")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_quarantine_does_not_depend_on_polls(sums: Engine, size: int) -> None:
    """A stream whose output is not finite expires, and begins anew after a gap, at the same records however they are cut."""
    huge, one = np.full((1, SIZE), 3e38, np.float32), np.ones((1, SIZE), np.float32)
    given = [
        (b"a", huge, 0, 0),
        (b"a", huge, 1, 1),
        (b"a", one, 20, 2),
        (b"b", one, 40, 0),
        (b"a", one, 41, 3),
        (b"a", one, 42, 9),
    ]
    records = [Record("t/0", i, i + 1, k, v, t * SECOND, 0, False, n) for i, (k, v, t, n) in enumerate(given)]
    policy = Policy(bad_record="dead-letter", gap="reset", idle_timeout_s=30)
    expected, cluster = whole(records, sums, policy, 64), Cluster(records)
    life = Life(cluster, sums, policy, 64, random.Random(0))
    life.start("t/0")
    while life.batch.positions.next["t/0"] < len(records):
        take(life, size)
    life.commit()
    assert cluster.lines() == expected.lines()
    assert cluster.letters == expected.letters
    assert [o for _, o, _ in cluster.letters] == [1, 2, 4]
    assert [(a.step, a.end, len(a.values["y"])) for a in cluster.given if a.key == b"a"] == [
        (0, False, 1),
        (4, True, 0),
        (0, False, 1),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_record_without_a_time_makes_nothing_due(sums: Engine, size: int) -> None:
    """After a record without a time it is not known when the next is due, whether or not other records with times come with it."""
    one = np.ones((1, SIZE), np.float32)
    given = [(b"a", 0), (b"a", None), (b"b", 7), (b"a", 50)]
    records = [
        Record("t/0", i, i + 1, k, one, None if t is None else t * SECOND, SECOND) for i, (k, t) in enumerate(given)
    ]
    policy, cluster = Policy(bad_record="dead-letter", gap_in="time"), Cluster(records)
    life = Life(cluster, sums, policy, 64, random.Random(0))
    life.start("t/0")
    while life.batch.positions.next["t/0"] < len(records):
        take(life, size)
    life.commit()
    assert cluster.letters == []
    assert [a.step for a in cluster.given if a.key == b"a"] == [0, 1, 2]
