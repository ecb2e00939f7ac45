"""`undertow run` as a process: killed, stopped and started again; its exit codes, streams and figures."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertow.cli import main
from undertow.engine.artifact import write_artifact

from .checks import assert_close
from .naive import NaiveEngine
from .step_graph import lookahead_step

UNDERTOW = Path(sys.executable).parent / "undertow"
STREAMS, LONGEST, RATE_HZ = 24, 200, 50
FILES = """
name = "killed"
[model]
path = "model.onnx"
backend = "numba"
max_streams = 64
[source]
type = "files"
path = "in"
chunk = 2
sample_rate_hz = 50
rate = {rate}
[policy]
bad_record = "dead-letter"
[dead_letters]
path = "dead.jsonl"
[sink]
type = "files"
path = "out.jsonl"
[delivery]
guarantee = "{guarantee}"
commit_interval_s = {commit}
checkpoint_interval_s = {checkpoint}
"""
# Starts a run of the folder's pipeline for each line it reads, in a fork that finds everything loaded, and tells its pid and status.
STARTER = """
import os, sys
from undertow.connectors.opening import open_parts
from undertow.connectors.config import read_pipeline
from undertow import run
open_parts(read_pipeline("pipeline.toml"), None, None)
print("ready", flush=True)
while sys.stdin.readline():
    pid = os.fork()
    if not pid:
        os.close(0)
        run("pipeline.toml")
        os._exit(0)
    print(pid, flush=True)
    sys.stdin.readline()  # until then a run that has ended keeps its process id, so no other can be killed in its place
    print(os.waitpid(pid, 0)[1], flush=True)
"""


def lay_out(
    folder: Path, rate: str = '"fast"', guarantee: str = "exactly-once", commit: float = 0.1, checkpoint: float = 30
) -> None:
    """Recordings, two of them with a frame that is not finite, the model, and pipeline.toml."""
    artifact = lookahead_step(2)
    write_artifact(folder / "model.onnx", artifact.model, artifact.spec)
    (folder / "in").mkdir(exist_ok=True)
    for key, frames in recordings().items():
        np.save(folder / "in" / f"{key}.npy", frames)
    text = FILES.format(rate=rate, guarantee=guarantee, commit=commit, checkpoint=checkpoint)
    (folder / "pipeline.toml").write_text(text)


def recordings() -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1)
    found = {f"s{i}": noise.normal(size=(LONGEST - 3 * i, 3)).astype(np.float32) for i in range(STREAMS)}
    found["s3"][100, 1] = np.nan
    found["s4"][7, 0] = np.inf
    return found


def undertow(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [UNDERTOW, "run", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, **options)


def lines_by_stream(folder: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in (folder / "out.jsonl").read_text().splitlines():
        found[json.loads(line)["stream"]].append(line)
    return found


def dead(folder: Path) -> list[str]:
    return sorted((folder / "dead.jsonl").read_text().splitlines())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    lay_out(folder)
    done = undertow(folder, "pipeline.toml", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "summary.json").write_text(done.stdout)
    return folder


def test_files_to_files(whole: Path) -> None:
    """Each stream's lines are what the oracle gives, from step 0 on; bad records are dead letters; the summary counts it all."""
    lines, summary = lines_by_stream(whole), json.loads((whole / "summary.json").read_text())
    for key, frames in recordings().items():
        mine = [json.loads(line) for line in lines[key]]
        bad = {int(i) // 2 for i in np.flatnonzero(~np.isfinite(frames).all(1))}  # records of two frames
        stepped = frames[[i for i in range(len(frames)) if i // 2 not in bad]]
        assert [line["step"] for line in mine] == list(range(len(stepped)))
        assert_close(np.array([line["y"] for line in mine]), NaiveEngine(lookahead_step(2)).run(stepped))
    letters = [json.loads(line) for line in dead(whole)]
    assert [(line["stream"], line["offset"], line["error"]) for line in letters] == [
        ("s3", 100, "FrameError"),
        ("s4", 6, "FrameError"),
    ]
    assert summary["frames"] == summary["answers"] == sum(map(len, lines.values()))
    assert (summary["streams_seen"], summary["streams_live"], summary["dead_letters"]) == (STREAMS, 0, 2)
    assert summary["step_p99_us"] >= summary["step_p50_us"] > 0
    assert summary["backend"] == "numba"


@contextmanager
def starter(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


def kill_until_done(folder: Path, kills: int, seed: int) -> int:
    """Starts runs and kills them at random moments, at most so often, until one ends by itself: how many were killed."""
    choose, killed = random.Random(seed), 0
    with starter(folder) as process:
        while True:
            process.stdin.write("go\n")
            process.stdin.flush()
            pid = int(process.stdout.readline())
            if killed < kills:
                time.sleep(choose.uniform(0.02, 0.35))
                os.kill(pid, signal.SIGKILL)
            process.stdin.write("wait\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            if status == 0:
                return killed
            assert os.WTERMSIG(status) == signal.SIGKILL, f"status {status}"
            killed += 1


@pytest.mark.parametrize(("commit", "checkpoint"), [(0.005, 1.0), (3600, 0.01), (0.02, 0.03)])
def test_kill_9_anywhere(tmp_path: Path, whole: Path, commit: float, checkpoint: float) -> None:
    """Killed at random moments and started again until it is through, with many commits a checkpoint or none between two:
    every stream's lines and the dead letters are those of a run that nobody killed, byte for byte."""
    lay_out(tmp_path, "3.0", commit=commit, checkpoint=checkpoint)
    assert kill_until_done(tmp_path, kills=7, seed=int(1000 * commit)) >= 3
    assert lines_by_stream(tmp_path) == lines_by_stream(whole)
    assert dead(tmp_path) == dead(whole)


def test_at_least_once_only_repeats(tmp_path: Path, whole: Path) -> None:
    """Without a cut sink every line is a whole line of the uninterrupted run, none is missing, and some are there twice."""
    lay_out(tmp_path, "3.0", "at-least-once", commit=0.15, checkpoint=0.3)
    assert kill_until_done(tmp_path, kills=6, seed=5) >= 3
    expected = lines_by_stream(whole)
    for key, lines in lines_by_stream(tmp_path).items():
        assert set(lines) == set(expected[key])
        assert list(dict.fromkeys(lines)) == expected[key], "the first time each line comes, it comes in order"
    counts = Counter((tmp_path / "out.jsonl").read_text().splitlines())
    assert max(counts.values()) > 1
    assert set(dead(tmp_path)) == set(dead(whole))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(tmp_path: Path, whole: Path, number: signal.Signals) -> None:
    """SIGTERM and SIGINT: a checkpoint, exit 0, and the next run goes on with nothing to replay and gives the rest."""
    lay_out(tmp_path, "0.4", commit=0.01)  # long enough for another process to start meanwhile
    with started(tmp_path) as process:
        wait_for(lambda: size(tmp_path / "out.jsonl") > 2000, process)
        with_another = undertow(tmp_path, "pipeline.toml")
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"stopped_by         {number.name}" in err
    assert with_another.returncode == 1
    assert f"process {process.pid} runs this store; stop it first" in with_another.stderr
    assert size(tmp_path / "out.jsonl") < size(whole / "out.jsonl")
    lay_out(tmp_path, commit=0.01)
    done = undertow(tmp_path, "pipeline.toml", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["replayed"] == 0
    assert lines_by_stream(tmp_path) == lines_by_stream(whole)
    assert dead(tmp_path) == dead(whole)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, whole: Path) -> None:
    """SIGINT right behind SIGTERM: exit 1 without a checkpoint, as after kill -9; the next run gives the rest."""
    lay_out(tmp_path, "1.0", commit=0.01)
    with started(tmp_path) as process:
        wait_for(lambda: size(tmp_path / "out.jsonl") > 2000, process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "stopped_by" not in err
    lay_out(tmp_path, commit=0.01)
    done = undertow(tmp_path, "pipeline.toml", "--json")
    assert json.loads(done.stdout)["replayed"] > 0
    assert lines_by_stream(tmp_path) == lines_by_stream(whole)


@contextmanager
def started(folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [UNDERTOW, "run", "pipeline.toml"],
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.01)


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_stdout_is_the_sinks(tmp_path: Path) -> None:
    """Lines from standard input to standard output, and not a byte between; exactly-once is refused for either."""
    lay_out(tmp_path)
    head = 'name = "pipe"\n[model]\npath = "model.onnx"\nbackend = "numba"\nmax_streams = 64\n'
    pipe = head + '[source]\ntype = "stdin"\n[sink]\ntype = "stdout"\n'
    (tmp_path / "pipeline.toml").write_text(pipe)
    refused = undertow(tmp_path, "pipeline.toml", input="")
    assert refused.returncode == 2
    assert (
        "[source] type = 'stdin' cannot be read again after a crash; set guarantee = \"at-least-once\""
        in refused.stderr
    )
    (tmp_path / "pipeline.toml").write_text(pipe + '[delivery]\nguarantee = "at-least-once"\n')
    fed = "".join(json.dumps({"key": "k", "value": [i, 0, 0]}) + "\n" for i in range(5))
    done = undertow(tmp_path, "pipeline.toml", input=fed)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["step"] for line in done.stdout.splitlines()] == list(range(5))
    assert "frames             5" in done.stderr
    assert undertow(tmp_path, "pipeline.toml", "--json", input=fed).returncode == 2


def test_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--check prints the plan and writes nothing; what is wrong is exit 2 with the reason and nothing on stdout."""
    lay_out(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = undertow(tmp_path, "pipeline.toml", "--check", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["pipeline"], plan["backend"], plan["resumes"]) == ("killed", "numba", False)
    assert plan["source"] | {"path": "in", "chunk": 2} == plan["source"]
    assert sorted(tmp_path.iterdir()) == before
    text = (tmp_path / "pipeline.toml").read_text()
    for old, new, message in (
        ("model.onnx", "none.onnx", "[model] path: there is no file"),
        ('path = "out.jsonl"', 'paht = "out.jsonl"', "[sink] unknown key 'paht'"),
        (
            'type = "files"\npath = "in"\nchunk = 2\nsample_rate_hz = 50\nrate = "fast"',
            'type = "memory"',
            "a program gives it",
        ),
        ("bad_record", "# bad_record", "nothing would go there"),
    ):
        assert old in text
        (tmp_path / "pipeline.toml").write_text(text.replace(old, new))
        monkeypatch.setattr(sys, "argv", ["undertow", "run", str(tmp_path / "pipeline.toml"), "--check"])
        with pytest.raises(SystemExit, match="2"):
            main()
        out, err = capsys.readouterr()
        assert not out
        assert message in err
    assert undertow(tmp_path, "nowhere.toml").returncode == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"in"\nchunk = 2', '"rows.csv"\ncolumns = ["x", "y", "w"]', "rows.csv: header: has no column 'w'"),
        ('"in"', '"short"', "late.npy: has shape (4, 2), model expects (T, 3)"),
        ('"out.jsonl"', '"in"\nformat = "csv"', "in: is not empty and was not written by a sink"),
    ],
)
def test_check_looks_at_the_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    """--check finds an input, be it the last, that does not fit the model or the options, and a sink's folder that is not ours."""
    lay_out(tmp_path)
    (tmp_path / "rows.csv").write_text("x,y,z\n1,2,3\n")
    (tmp_path / "short").mkdir()
    np.save(tmp_path / "short" / "early.npy", np.zeros((4, 3), np.float32))
    np.save(tmp_path / "short" / "late.npy", np.zeros((4, 2), np.float32))
    text = (tmp_path / "pipeline.toml").read_text()
    assert old in text
    (tmp_path / "pipeline.toml").write_text(text.replace(f"path = {old}", f"path = {new}"))
    done = undertow(tmp_path, "pipeline.toml", "--check")
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_a_bad_record_is_exit_1(tmp_path: Path, whole: Path) -> None:
    """With bad_record = "stop" the run says which record and why, keeps what came before, and goes on there once told otherwise."""
    lay_out(tmp_path)
    text = (tmp_path / "pipeline.toml").read_text()
    stop = text.replace('bad_record = "dead-letter"\n[dead_letters]\npath = "dead.jsonl"\n', "")
    (tmp_path / "pipeline.toml").write_text(stop)
    done = undertow(tmp_path, "pipeline.toml")
    assert done.returncode == 1
    assert "error: s4.npy/6: stream 's4': input 'x' is inf at (1, 0), expected finite numbers" in done.stderr
    (tmp_path / "pipeline.toml").write_text(text)
    assert undertow(tmp_path, "pipeline.toml").returncode == 0
    assert lines_by_stream(tmp_path) == lines_by_stream(whole)
    assert dead(tmp_path) == dead(whole)
