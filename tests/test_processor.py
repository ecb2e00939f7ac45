"""The processor on memory: what comes out does not depend on polls, company or crashes, and is what the oracle gives."""

import json
import resource
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import undertow as ut
from undertow.connectors.config import PlacedPipeline
from undertow.connectors.memory import MemorySink, MemorySource
from undertow.connectors.records import Record
from undertow.connectors.running import run
from undertow.engine.artifact import Artifact
from undertow.engine.errors import ConnectorError

from .checks import assert_close
from .naive import NaiveEngine
from .pipelines import SECOND, SIZE, Crash, Cuts, by_stream, cut, interleaved, pipeline, rows, running_sum, streams
from .step_graph import StepGraph, lookahead_step

KEYS = ["a", "b", b"c", 4, "ü"]
NOW_AND_THEN = "[delivery]\ncommit_interval_s = 1e-6\ncheckpoint_interval_s = 3600\n"
ALWAYS = "[delivery]\ncommit_interval_s = 3600\ncheckpoint_interval_s = 1e-6\n"
THRESHOLD = '[decode]\ntype = "threshold"\nvalue = 1\non = 2.0\noff = -1.0\nmin_on = 2\nmin_off = 2\n'
CHANGES = '[decode]\ntype = "labels"\nlabels = ["x", "y", "z"]\nhalf_life = 2\nmin_duration = 2\nemit = "changes"\n'
SURPRISES = '[decode]\ntype = "anomaly"\nof = "prediction"\nwarm_up = 3\n'
DEAD = '[policy]\nbad_record = "dead-letter"\n{}\n[dead_letters]\npath = "dead.jsonl"\n'


def recorded(placed: PlacedPipeline, records: list[Record]) -> MemorySink:
    """What an uninterrupted run gives."""
    sink = MemorySink()
    run(placed, source=MemorySource(records), sink=sink)
    return sink


@pytest.mark.parametrize(("delay", "frames_per_step"), [(0, 1), (2, 1), (4, 4), (5, 2)])
def test_any_polls_give_what_naive_gives(tmp_path: Path, delay: int, frames_per_step: int) -> None:
    """However records are cut, interleaved and polled: the oracle's outputs, numbered without a gap, one end a stream,
    each answer at the time of the frame that it answers and from the record that completed it."""
    artifact = lookahead_step(delay, frames_per_step=frames_per_step) if delay else running_sum()
    frames = streams(delay, KEYS)
    for seed in range(4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        sink, records = MemorySink(), cut(frames, seed)
        summary = run(pipeline(folder, artifact), source=Cuts(records, seed), sink=sink)
        assert summary.records == len(records)
        assert summary.frames == sum(map(len, frames.values())) == summary.answers
        for key, whole in frames.items():
            check_stream(sink, artifact, key, whole, [r for r in records if r.key == key])


def check_stream(sink: MemorySink, artifact: Artifact, key: Any, whole: np.ndarray, records: list[Record]) -> None:
    mine = [a for a in sink.answers if a.key == key]
    if not len(whole):
        assert not mine  # it never opened
        return
    assert_close(sink.outputs(key)["y"], NaiveEngine(artifact).run(whole))
    assert [a.step for a in mine] == np.cumsum([0, *map(rows, mine)])[:-1].tolist()
    assert [a.end for a in mine] == [False] * (len(mine) - 1) + [True]
    start_ns, steps_of = records[0].event_time_ns, {r.source: r for r in records}
    k, held = artifact.spec.frames_per_step, artifact.spec.delay
    for a in mine:
        assert a.event_time_ns == start_ns + a.step * SECOND or not rows(a)
        record, last = steps_of[a.source], a.step + rows(a) - 1
        seen = record.seq + len(record.value)
        whole_steps = seen // k * k
        assert a.end or last + held < whole_steps, "an answer came before its frames"
        assert a.end or last + held >= record.seq // k * k, "an answer came later than it was ready"


@pytest.mark.parametrize("decode", [THRESHOLD, CHANGES, SURPRISES, '[decode]\ntype = "mean"\n'])
def test_any_polls_give_the_same_answers(tmp_path: Path, decode: str) -> None:
    """What is an answer of its own, a Kafka record for one, is decided by the stream and its records, not by what else a poll brings."""
    records, seen = cut(streams(3, KEYS, longest=120), 3), []
    for seed in range(3):
        (tmp_path / str(seed)).mkdir()
        sink = MemorySink()
        run(pipeline(tmp_path / str(seed), running_sum(), decode), source=Cuts(records, seed, shuffle=True), sink=sink)
        found: dict[Any, list[Any]] = {key: [] for key in KEYS}
        for a in sink.answers:
            found[a.key].append((a.step, rows(a), a.source, a.event_time_ns, a.frame_ns, a.end))
        seen.append(found)
    assert seen[0] == seen[1] == seen[2]
    assert max(len(found) for found in seen[0].values()) > 3


def faulty(seed: int) -> list[Record]:
    """Records with everything that policies act on: gaps, duplicates, late frames, NaN, wrong shapes, pauses, ends."""
    noise, offsets, given = np.random.default_rng(seed), [0, 0], []
    seqs: dict[str, int] = {}
    clock = [0, 0]
    for _ in range(120):
        p = int(noise.integers(2))
        key = f"{p}-{noise.integers(4)}"
        clock[p] += int(noise.choice([0, 1, 2, 30])) * SECOND
        count = int(noise.integers(0, 5))
        value: Any = noise.normal(size=(count, SIZE)).astype(np.float32)
        seq = max(0, seqs.get(key, 0) + int(noise.choice([0, 0, 0, 0, 3, -2])))
        if noise.random() < 0.05 and count:
            value[-1, 1] = np.nan
        if noise.random() < 0.05:
            value = b"no codec reads this"
        if noise.random() < 0.05:
            value = np.zeros((2, SIZE + 1), np.float32)
        end = bool(noise.random() < 0.05)
        seqs[key] = 0 if end else seq + count
        time_ns = clock[p] - int(noise.choice([0, 0, 0, 20, 60])) * SECOND
        given.append(Record(f"p{p}", offsets[p], offsets[p] + 3, key, value, time_ns, SECOND // 10, end, seq))
        offsets[p] += 3
    return given


@pytest.mark.parametrize(("gap", "decode"), [("error", ""), ("reset", THRESHOLD), ("zero", CHANGES)])
@pytest.mark.parametrize("delivery", [NOW_AND_THEN, ALWAYS])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), crashes=st.lists(st.integers(0, 110), max_size=5).map(sorted))
def test_crashes_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, gap: str, decode: str, delivery: str, seed: int, crashes: list[int]
) -> None:
    """Crashes anywhere, commits without checkpoints or checkpoints alone, partitions in another order after each crash:
    every stream's lines, its expiries included, and the dead letters are those of an uninterrupted run; outputs as they are,
    and what decoders that remember make of them."""
    tables = DEAD.format(f'gap = "{gap}"\nidle_timeout_s = 25') + delivery + decode
    folder, other = tmp_path_factory.mktemp("crashed"), tmp_path_factory.mktemp("whole")
    records = faulty(seed)
    expected = recorded(pipeline(other, tables=tables), records)
    placed, sink = pipeline(folder, tables=tables), MemorySink()
    for turn, after in enumerate(crashes):
        with suppress(Crash):  # unless what crashes left is less than that
            run(placed, source=Cuts(records, seed + turn, after, shuffle=True), sink=sink)
    run(placed, source=Cuts(records, seed, shuffle=True), sink=sink)
    assert by_stream(sink.answers) == by_stream(expected.answers)
    assert letters(folder) == letters(other)
    assert letters(folder), "the records have faults"
    assert any(rows(a) for a in sink.answers)


def crashed(placed: PlacedPipeline, source: Cuts, sink: MemorySink) -> bool:
    """Whether the run crashed before it was through."""
    try:
        run(placed, source=source, sink=sink)
    except Crash:
        return True
    return False


def letters(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "dead.jsonl").read_text().splitlines()]
    return sorted(lines, key=lambda line: (line["partition"], line["offset"]))


@pytest.mark.parametrize("delivery", [NOW_AND_THEN, ALWAYS])
def test_a_full_arena_in_replays(tmp_path: Path, delivery: str) -> None:
    """Whether a stream finds room depends on the order of the partitions; each record is nevertheless answered or a dead
    letter, exactly once, whatever is killed when, and every answer is what the stream's frames since its opening give."""
    placed, sink = pipeline(tmp_path, running_sum(), DEAD.format("") + delivery, max_streams=3), MemorySink()
    frames = {f"s{i}": np.ones((6, SIZE), np.float32) * i for i in range(24)}
    records = cut(frames, 3, partitions=4, timed=False)
    crashes = sum(crashed(placed, Cuts(records, turn, 9 * turn + 9, shuffle=True), sink) for turn in range(8))
    assert crashes >= 3
    run(placed, source=Cuts(records, 9, shuffle=True), sink=sink)
    answered = [a.source for a in sink.answers if rows(a)]
    dead = [f"{line['partition']}/{line['offset']}" for line in letters(tmp_path)]
    assert sorted(answered + dead) == sorted(r.source for r in records)
    assert {line["error"] for line in letters(tmp_path)} == {"ArenaFullError"}
    for key in {a.key for a in sink.answers}:
        mine, value = [a for a in sink.answers if a.key == key], int(str(key)[1:])
        assert [a.step for a in mine] == np.cumsum([0, *map(rows, mine)])[:-1].tolist()
        assert sink.outputs(key)["y"][:, 0].tolist() == [value * (i + 1) for i in range(sum(map(rows, mine)))]


def test_the_rest_of_a_poll_goes_on(tmp_path: Path) -> None:
    """A bad record in the middle of a stream's poll is a dead letter with its payload; the records around it are stepped."""
    placed = pipeline(tmp_path, running_sum(), DEAD.format(""))
    ones = np.ones((2, SIZE), np.float32)
    values = [ones, ones * np.nan, b"\xff\xfe", b"text", ones[:, :1], {"z": ones}, None, ones]
    records = [Record("p", i, i + 1, b"\xff" if i == 4 else "k", v) for i, v in enumerate(values)]
    sink = recorded(placed, records)
    np.testing.assert_array_equal(sink.outputs("k")["y"][:, 0], [1, 2, 3, 4])
    found = letters(tmp_path)
    assert [line["offset"] for line in found] == [1, 2, 3, 4, 5]
    assert "stream 'k': input 'x' is nan at (0, 0), expected finite numbers" in found[0]["reason"]
    assert found[1]["payload_base64"] == "//4="
    assert found[2]["payload"] == "text"
    assert found[3]["stream"] == {"base64": "/w=="}
    assert "has shape (2, 1), model expects (T, 3)" in found[3]["reason"]
    assert "payload_npz_base64" in found[4]


def test_a_bad_record_stops_the_run(tmp_path: Path) -> None:
    """With "stop" everything before the bad record is out and committed, nothing behind it; mended, the run goes on there."""
    placed, sink = pipeline(tmp_path, running_sum()), MemorySink()
    good = [Record("p", i, i + 1, "k", np.ones((1, SIZE), np.float32), end=i == 9) for i in range(10)]
    bad = [*good[:4], Record("p", 4, 5, "k", np.full((1, SIZE), np.inf, np.float32), end=True), *good[5:]]
    for _ in range(2):
        with pytest.raises(ut.FrameError, match="stream 'k': input 'x' is inf at"):
            run(placed, source=MemorySource(bad), sink=sink)
        assert sink.outputs("k")["y"][:, 0].tolist() == [1, 2, 3, 4]
    run(placed, source=MemorySource(good), sink=sink)
    assert sink.outputs("k")["y"][:, 0].tolist() == [*range(1, 11)]


def test_gap_policies(tmp_path: Path) -> None:
    """A gap is filled with zeros at their times, or the stream starts anew; frames seen before are dropped and counted."""
    one = np.ones((2, SIZE), np.float32)
    records = [Record("p", i, i + 1, "k", one, seq * SECOND, SECOND, seq=seq) for i, seq in enumerate((0, 4, 5, 2))]
    seen = {}
    for gap in ("zero", "reset"):
        (tmp_path / gap).mkdir()
        sink = MemorySink()
        placed = pipeline(tmp_path / gap, running_sum(), f'[policy]\ngap = "{gap}"\n')
        summary = run(placed, source=MemorySource(records), sink=sink)
        assert summary.late_frames == 1 + 2
        seen[gap] = (
            [(line[0], None if line[0] == "end" else line[2] // SECOND) for line in by_stream(sink.answers)["k"]],
            sink.outputs("k")["y"][:, 0],
        )
    assert seen["zero"][0] == [(i, i) for i in range(7)]
    assert seen["zero"][1].tolist() == [1, 2, 2, 2, 3, 4, 5]
    assert seen["reset"][0] == [(0, 0), (1, 1), ("end", None), (0, 4), (1, 5), (2, 6)]
    assert seen["reset"][1].tolist() == [1, 2, 1, 2, 3]


def test_a_gap_too_wide_is_bad(tmp_path: Path) -> None:
    """A number that jumps does not make the run step zeros without bound."""
    placed = pipeline(tmp_path, running_sum(), '[policy]\ngap = "zero"\nmax_gap_frames = 100\n')
    one = np.ones((1, SIZE), np.float32)
    records = [Record("p", 0, 1, "k", one, seq=0), Record("p", 1, 2, "k", one, seq=10**15)]
    with pytest.raises(
        ut.StreamError, match=r"begins with frame 1000000000000000, expected 1: .* max_gap_frames is 100"
    ):
        run(placed, source=MemorySource(records), sink=MemorySink())


def test_expiry_is_on_event_time(tmp_path: Path) -> None:
    """A stream that is idle on its partition's clock is flushed, tail and all, by the record that says so, then starts anew;
    another partition's clock does not touch it, and neither does a record that is late."""
    placed, sink = pipeline(tmp_path, lookahead_step(2), "[policy]\nidle_timeout_s = 10\n"), MemorySink()
    one = np.ones((3, SIZE), np.float32)
    when = [("p", "a", 0), ("q", "z", 0), ("p", "b", 13), ("q", "y", 1), ("p", "a", 14), ("p", "c", 5), ("p", "b", 23)]
    offsets = {"p": iter(range(9)), "q": iter(range(9))}
    records = [Record(p, o := next(offsets[p]), o + 1, k, one, t * SECOND, SECOND) for p, k, t in when]
    run(placed, source=MemorySource(records), sink=sink)
    lines = by_stream(sink.answers)
    assert [line[:2] for line in lines["a"]] == [(0, "p/0"), (1, "p/1"), (2, "p/1"), ("end", "p/1"), (0, "p/2")]
    assert ("end", "p/4") not in lines["c"]
    assert all(line[0] != "end" for key in "zyb" for line in lines[key])


def test_streams_of_a_partition_end_with_it(tmp_path: Path) -> None:
    """A record that ends its partition flushes the streams that came from it, and no other."""
    placed, one = pipeline(tmp_path), np.ones((3, SIZE), np.float32)
    records = [Record("p", 0, 1, "a", one), Record("p", 1, 2, "b", one), Record("q", 0, 1, "a", one)]
    records.append(Record("p", 2, 3, "", None, end_partition=True))
    sink = recorded(placed, records)
    assert [(a.key, rows(a), a.source) for a in sink.answers if a.end] == [("a", 2, "p/2"), ("b", 2, "p/2")]
    assert [line[0] for line in by_stream(sink.answers)["a"]] == [0, 0, 1, 2, "end"]


def test_labels(tmp_path: Path) -> None:
    """The likeliest label and its probability, whatever the scores are; a model that names no labels is refused."""
    tables = '[decode]\ntype = "labels"\nlabels = ["x", "y", "z"]\nscores = "{}"\n'
    p = np.array([[0.5, 0.2, 0.3], [0.1, 0.2, 0.7]], np.float32)
    for scores, value in (("probabilities", p), ("log-probabilities", np.log(p)), ("logits", np.log(p) + 3)):
        folder = tmp_path / scores
        folder.mkdir()
        sink = MemorySink()
        run(pipeline(folder, same(), tables.format(scores)), source=MemorySource.of({"k": value}), sink=sink)
        assert sink.outputs("k")["label"].tolist() == ["x", "z"]
        np.testing.assert_allclose(sink.outputs("k")["confidence"], [0.5, 0.7], rtol=1e-5)
    with pytest.raises(ut.ConfigError, match=r"\[decode\] type = 'labels': the model names no labels"):
        run(pipeline(tmp_path, same(), '[decode]\ntype = "labels"\n'), source=MemorySource([]), sink=sink)
    with pytest.raises(ut.ConfigError, match=r"there are 1 labels, output 'y' has shape \(3,\)"):
        run(
            pipeline(tmp_path, same(), '[decode]\ntype = "labels"\nlabels = ["x"]\n'),
            source=MemorySource([]),
            sink=sink,
        )


def test_files_of_a_decoder_lie_beside_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lexicon's relative path begins in the pipeline's folder, wherever the process runs; one that is not there is named."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "words.txt").write_text("ab\n")
    tables = '[decode]\ntype = "ctc"\nlabels = ["", "a", "b"]\nscores = "probabilities"\nbeam = 4\nlexicon = "{}"\n'
    frames = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.2, 0.7, 0.1]], np.float32)
    sink = MemorySink()
    run(pipeline(tmp_path, same(), tables.format("words.txt")), source=MemorySource.of({"k": frames}), sink=sink)
    assert sink.answers[-1].values["text"].tolist() == ["ab"]
    with pytest.raises(ut.ConfigError, match=rf"\[decode\] .*{tmp_path}/none.txt"):
        run(pipeline(tmp_path, same(), tables.format("none.txt")), source=MemorySource([]), sink=sink)


def same() -> Artifact:
    """Gives its input back."""
    g = StepGraph()
    x = g.input("x", (SIZE,))
    g.next(g.state("h", (1,)), g.op("Slice", x, g.ints(0), g.ints(1), g.ints(1)))
    g.output("y", x, (SIZE,))
    return g.artifact()


def test_memory_of_a_long_run_is_bounded(tmp_path: Path) -> None:
    """The source is never asked for more than one poll ahead of the sink: a backlog stays where it is."""
    given_out: list[int] = []

    def endless() -> Any:
        for i in range(20_000):
            given_out.append(i)
            yield Record("p", i, i + 1, f"k{i % 50}", np.ones((1, SIZE), np.float32))

    class Slow(MemorySink):
        furthest = 0

        async def write(self, answers: Any) -> None:
            await super().write(answers)
            Slow.furthest = max(Slow.furthest, len(given_out) - len(self.answers))

    summary = run(pipeline(tmp_path, running_sum()), source=MemorySource(endless()), sink=Slow())
    assert summary.answers == 20_000
    assert Slow.furthest <= 4096 + 1


def test_embedding(tmp_path: Path) -> None:
    """`ut.run` with streams of the program's own gives their outputs and the figures; a second run has nothing to do."""
    frames = streams(5, ["a", "b"])
    sink = ut.MemorySink()
    summary = ut.run(pipeline(tmp_path), source=ut.MemorySource.of(frames, chunk=4), sink=sink)
    assert summary.streams_seen == 2
    assert summary.backend == "numba"
    assert summary.answers == sum(map(len, frames.values()))
    assert summary.step_p99_us >= summary.step_p50_us > 0
    again = ut.run(pipeline(tmp_path), source=ut.MemorySource.of(frames, chunk=4), sink=sink)
    assert (again.records, again.answers) == (0, 0)
    with pytest.raises(ut.ConfigError, match=r'\[sink\] type = "memory": a program gives it'):
        ut.run(pipeline(tmp_path), source=ut.MemorySource([]))


def test_other_cuts_are_refused(tmp_path: Path) -> None:
    """A source that cuts its records otherwise than when they were committed would lose answers: it is refused."""
    placed, frames = pipeline(tmp_path, tables=NOW_AND_THEN), {"a": np.ones((40, SIZE), np.float32)}
    crashing = Cuts(list(MemorySource.of(frames, chunk=5)._records), 1, crash_after=4)
    sink = MemorySink()
    with pytest.raises(Crash):
        run(placed, source=crashing, sink=sink)
    with pytest.raises(ut.ConnectorError, match="was cut at"):
        run(placed, source=MemorySource.of(frames, chunk=40), sink=sink)


def test_interleaving_keeps_partitions_in_order() -> None:
    """The tests' own shuffle is one that a source may give."""
    records = cut(streams(1, KEYS), 1)
    mixed = interleaved(records, 7)
    assert mixed != records
    for p in {r.partition for r in records}:
        assert [r.offset for r in mixed if r.partition == p] == [r.offset for r in records if r.partition == p]
    assert len(mixed) == len(records)


@pytest.mark.parametrize(
    ("room", "message"), [(100, "dead letters cannot be written"), (10**4, "the store cannot be written")]
)
def test_a_full_disk(tmp_path: Path, room: int, message: str) -> None:
    """Files that may not grow any more are an error that says which; once they may, the run goes on to the very same end."""
    placed, sink = pipeline(tmp_path, running_sum(), DEAD.format("") + NOW_AND_THEN), MemorySink()
    records = [Record("p", i, i + 1, "k", np.full((1, SIZE), 1 if i % 2 else np.nan, np.float32)) for i in range(20)]
    run(placed, source=MemorySource(records[:8]), sink=sink)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "dead.jsonl").stat().st_size + room, hard))
    try:
        with pytest.raises((ut.ConnectorError, ut.CheckpointError), match=rf"{message} \(.*File too large\)"):
            run(placed, source=MemorySource(records), sink=sink)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    run(placed, source=MemorySource(records), sink=sink)
    assert [line["offset"] for line in letters(tmp_path)] == list(range(0, 20, 2))
    assert sink.outputs("k")["y"][:, 0].tolist() == list(range(1, 11))


def test_a_new_store_takes_nobody_elses_file(tmp_path: Path) -> None:
    """An output or dead letters that are there before the first run are refused and keep every byte; a crash before
    the first answer leaves files that are known to be the run's."""
    records = cut(streams(0, ["a"]), 0)
    for name, other in (("out.jsonl", "dead.jsonl"), ("dead.jsonl", "out.jsonl")):
        (tmp_path / name).write_text("precious\n")
        placed = pipeline(tmp_path, running_sum(), DEAD.format(""), sink='type = "files"\npath = "out.jsonl"')
        with pytest.raises(ConnectorError, match=rf"{name}: has 9 bytes, and the store knows of no run"):
            run(placed, source=MemorySource(records))
        assert (tmp_path / name).read_text() == "precious\n"
        for path in (tmp_path / name, tmp_path / other):
            path.unlink(missing_ok=True)
    with pytest.raises(Crash):
        run(placed, source=Cuts(records, crash_after=0))
    (tmp_path / "out.jsonl").write_text("a torn li")
    assert run(placed, source=MemorySource(records)).answers == len((tmp_path / "out.jsonl").read_text().splitlines())
