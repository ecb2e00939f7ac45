"""Several workers under one supervisor: what happens when one fails, when all are told to end, and what is each one's own."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from undertow.cli import main
from undertow.connectors import supervising
from undertow.connectors.config import PlacedPipeline, read_pipeline
from undertow.connectors.kafka.config import KafkaSourceConfig
from undertow.connectors.summary import Summary, total
from undertow.connectors.supervising import Supervisor
from undertow.connectors.worker import check_workers, of_worker
from undertow.engine.errors import ConfigError

ONE = Summary(
    records=3, frames=4, answers=4, streams_seen=2, streams_live=2, dead_letters=0, late_frames=0, quarantined=0, replayed=1,
    commits=5, checkpoints=1, seconds=9.0, steps_per_s=1.0, step_p50_us=10.0, step_p99_us=90.0, backend="numba", last_commit_s=0.5,
    lag=7,
)  # fmt: skip
TELLS = f"print({msgspec.json.encode(ONE).decode()!r}, flush=True); "
WAITS = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); " + TELLS + "[time.sleep(0.02) for _ in range(3000)]"
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " + TELLS + "time.sleep(60)"
PIPELINE = """
name = "pumps"
model.path = "model.onnx"
source = { type = "kafka", bootstrap_servers = "127.0.0.1:1", topics = ["frames"], group_instance_id = "north" }
sink = { type = "kafka", bootstrap_servers = "127.0.0.1:1", topic = "answers" }
metrics.address = "[::1]:9464"
"""


def python(*programs: str) -> Callable[[int], Sequence[str]]:
    """A program for each worker."""
    return lambda number: [sys.executable, "-I", "-S", "-c", f"import os, signal, sys, time; {programs[number]}"]


def supervised(
    *programs: str, then: Callable[[Supervisor], None] = lambda _: None, stop_s: float = 20.0
) -> tuple[int, Summary]:
    """What came of the workers; `then` is called once, as soon as all have told something."""
    called = False

    def told(summary: Callable[[], Summary]) -> None:
        nonlocal called
        if not called and summary().records == ONE.records * len(programs):
            called = True
            then(supervisor)

    supervisor = Supervisor(python(*programs), len(programs), stop_s, told)
    return asyncio.run(asyncio.wait_for(supervisor.run(), 30))


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in life takes hundredths here."""
    for name, seconds in (("FIRST_S", 0.01), ("LONGEST_S", 0.03), ("TELL_S", 0.01), ("CLOSE_S", 0.0)):
        monkeypatch.setattr(supervising, name, seconds)


def test_one_that_fails_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By a signal or with exit 1, told to end by another or at once: each time it is started again, later and later, until it ends well."""
    lives = tmp_path / "lives"
    program = (
        f"file = open({str(lives)!r}, 'a'); file.write('x'); file.close(); n = os.path.getsize({str(lives)!r}); {TELLS}"
        "n == 1 and os.kill(os.getpid(), signal.SIGKILL); sys.exit(n in (2, 3))"
    )
    with caplog.at_level(logging.INFO, "undertow"):
        code, summary = supervised(program, TELLS)
    assert (code, lives.read_text()) == (0, "xxxx")
    ends = [(r.worker, r.how, r.next_start_s) for r in caplog.records if r.message == "worker ended"]  # type: ignore[attr-defined]
    assert ends == [(0, "SIGKILL", 0.01), (0, "exit 1", 0.02), (0, "exit 1", 0.03)]
    assert (summary.records, summary.stopped_by) == (5 * ONE.records, None)


def test_one_that_was_told_to_end_alone_is_started_again(tmp_path: Path) -> None:
    """A worker that ended well because somebody stopped it, and nobody stopped the whole, comes back."""
    was = tmp_path / "was"
    stopped = msgspec.json.encode(replace(ONE, stopped_by="SIGTERM")).decode()
    program = f"first = not os.path.exists({str(was)!r}); open({str(was)!r}, 'w').close(); print({stopped!r}) if first else {TELLS}"
    code, summary = supervised(program.rstrip("; "), TELLS)
    assert (code, summary.records) == (0, 3 * ONE.records)


def test_one_that_cannot_run_ends_all() -> None:
    """Exit 2 means that trying again does not help: the others are told to end, and the whole ends with 2."""
    code, _ = supervised("sys.exit(2)", WAITS)
    assert code == 2


def test_a_signal_ends_all() -> None:
    """SIGTERM to the supervisor goes to every worker; all end well, so it does, and says who ended it and what all did together."""
    code, summary = supervised(WAITS, WAITS, WAITS, then=lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert (code, summary.stopped_by) == (0, "SIGTERM")
    assert (summary.records, summary.frames, summary.lag) == (9, 12, None)


@pytest.mark.parametrize("how", ["late", "second signal"])
def test_one_that_does_not_end_is_killed(how: str) -> None:
    """After the time that a stop may take, or at a second signal; that is no good end."""

    def then(supervisor: Supervisor) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if how == "second signal":
            asyncio.get_running_loop().call_later(0.2, os.kill, os.getpid(), signal.SIGINT)

    began = time.monotonic()
    code, summary = supervised(DEAF, WAITS, then=then, stop_s=0.2 if how == "late" else 60)
    assert (code, summary.stopped_by) == (1, "SIGINT")
    assert time.monotonic() - began < 10


def test_workers_die_with_their_supervisor() -> None:
    """kill -9 of the one who started a worker, and the worker gets SIGTERM; also where that was before it asked for it."""
    worker = "import sys; from undertow.connectors.worker import end_with; end_with(int(sys.argv[1])); print('here', flush=True); sys.stdin.read()"
    starter = (
        "import os, subprocess, sys; command = [sys.executable, '-c', sys.argv[1], str(os.getpid())]; "
        "child = subprocess.Popen(command, stdin=subprocess.PIPE); print(child.pid, flush=True); child.wait()"
    )
    began = subprocess.Popen([sys.executable, "-c", starter, worker], stdout=subprocess.PIPE, text=True)
    with began:
        assert began.stdout is not None
        pid = int(began.stdout.readline())
        assert began.stdout.readline() == "here\n"
        began.kill()
        deadline = time.monotonic() + 10
        while Path(f"/proc/{pid}/stat").exists() and _state(pid) != "Z":
            assert time.monotonic() < deadline, "the worker lives on"
            time.sleep(0.01)
    orphan = subprocess.run([sys.executable, "-c", worker, "1"], stdin=subprocess.DEVNULL, check=False)
    assert orphan.returncode == -signal.SIGTERM


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_what_all_did() -> None:
    """Counts of all lives add up; streams, lag and last commit are of those that run; latencies are the middle one's and the worst one's."""
    other = replace(ONE, records=10, step_p50_us=30.0, step_p99_us=50.0, last_commit_s=0.1, streams_live=5, lag=None)
    gone = replace(ONE, step_p50_us=20.0, step_p99_us=95.0, streams_live=100, lag=1000, last_commit_s=0.0)
    all_ = total([ONE, other, gone], [ONE, other], 4.0, "SIGINT")
    assert (all_.records, all_.frames, all_.replayed, all_.commits) == (16, 12, 3, 15)
    assert (all_.seconds, all_.steps_per_s, all_.stopped_by) == (4.0, 3.0, "SIGINT")
    assert (all_.streams_live, all_.lag, all_.last_commit_s) == (7, 7, 0.1)
    assert (all_.step_p50_us, all_.step_p99_us, all_.backend) == (20.0, 95.0, "numba")
    assert total([], [], 0.0).records == 0


def placed(folder: Path, text: str = PIPELINE) -> PlacedPipeline:
    (folder / "pipeline.toml").write_text(text)
    return read_pipeline(folder / "pipeline.toml")


def test_what_is_each_ones_own(tmp_path: Path) -> None:
    """Member of the group, port of the metrics and number in the log; all else is the file's."""
    whole = placed(tmp_path)
    third = of_worker(whole, 2)
    assert isinstance(third.pipeline.source, KafkaSourceConfig)
    assert third.pipeline.source.group_instance_id == "north-2"
    assert third.pipeline.metrics is not None
    assert third.pipeline.metrics.address == "[::1]:9466"
    assert third.worker == 2
    assert third.pipeline.sink == whole.pipeline.sink
    any_port = placed(tmp_path, PIPELINE.replace("9464", "0").replace(', group_instance_id = "north"', ""))
    assert of_worker(any_port, 2).pipeline == msgspec.structs.replace(any_port.pipeline)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("9464", "65534", r"worker 2 would listen on port 65536"),
        ('"kafka", bootstrap_servers = "127.0.0.1:1", topic = "answers"', '"stdout"', r"\[sink\] type is 'stdout', .*; run one worker"),
        (
            '"kafka", bootstrap_servers = "127.0.0.1:1", topics = ["frames"], group_instance_id = "north"',
            '"stdin"',
            r"\[source\] type is 'stdin', and only the partitions of Kafka can be shared out",
        ),
    ],
)  # fmt: skip
def test_pipelines_that_have_one_worker(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    """What cannot be shared out is refused before anything is started, with exit 2; one worker of it is fine."""
    assert old in PIPELINE
    only = placed(tmp_path, PIPELINE.replace(old, new))
    check_workers(only, 1)
    with pytest.raises(ConfigError, match=message):
        check_workers(only, 3)
    monkeypatch.setattr(sys, "argv", ["undertow", "run", str(tmp_path / "pipeline.toml"), "--workers", "3"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "error: pipeline.toml: " in capsys.readouterr().err
