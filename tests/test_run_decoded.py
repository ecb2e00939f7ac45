"""`undertow run` from files to files with decoders that remember: the events, their steps and times, however records are cut and whoever is killed."""

import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undertow.connectors.config import read_pipeline
from undertow.connectors.running import run

from .decoded import assert_events, outputs_of
from .naive_decoders import Event, NaiveLabels, NaiveThreshold
from .naive_decoders import run as by_oracle
from .step_graph import lookahead_step
from .test_run import RATE_HZ, dead, kill_until_done, lay_out, lines_by_stream, recordings

DECODE = {
    "threshold": '[decode]\ntype = "threshold"\nvalue = 1\non = 2.0\noff = -1.0\nmin_on = 2\n',
    "labels": '[decode]\ntype = "labels"\nlabels = ["a", "b", "c"]\nhalf_life = 3\nmin_duration = 3\nemit = "changes"\n',
}


def oracle(kind: str) -> Any:
    place_s = 1 / RATE_HZ
    if kind == "threshold":
        return NaiveThreshold(2.0, -1.0, min_on=2, place_s=place_s)
    return NaiveLabels("abc", half_life=3, min_duration=3, emit="changes", place_s=place_s)


@cache
def expected(kind: str, key: str, bad_chunk: int) -> list[Event]:
    """The lines of a stream but for `stream`; records, of so many frames, with a bad frame are not stepped."""
    frames = recordings()[key]
    bad = {int(i) // bad_chunk for i in np.flatnonzero(~np.isfinite(frames).all(1))}
    kept = [i for i in range(len(frames)) if i // bad_chunk not in bad]
    outputs = outputs_of(lookahead_step(2), frames[kept])
    events = by_oracle(oracle(kind), outputs[:, 1] if kind == "threshold" else outputs)
    return [{"step": at, "ms": kept[at] * 1000 // RATE_HZ} | event for event in events for at in [event.pop("at")]]


def told(folder: Path) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for stream, lines in lines_by_stream(folder).items():
        for line in map(json.loads, lines):
            ms = np.datetime64(line.pop("time").removesuffix("Z"), "ms").astype(int)
            del line["stream"]
            found[stream].append({"ms": int(ms), **line})
    return found


def written(folder: Path, kind: str, chunk: int = 2, **options: Any) -> Path:
    """A folder to run in."""
    folder.mkdir(exist_ok=True)
    lay_out(folder, **options)
    text = (folder / "pipeline.toml").read_text().replace("chunk = 2", f"chunk = {chunk}")
    (folder / "pipeline.toml").write_text(text + DECODE[kind])
    return folder


@pytest.mark.parametrize("kind", DECODE)
def test_events_are_the_oracles_however_records_are_cut(tmp_path: Path, kind: str) -> None:
    """Records of one frame to all: every line is the oracle's, at the step and the time of the output with which it became known,
    from the record that completed this output, or from that which ended the file."""
    for chunk in (1, 2, 9, 1000):
        folder = written(tmp_path / str(chunk), kind, chunk)
        run(read_pipeline(folder / "pipeline.toml"))
        lines = told(folder)
        for key, frames in recordings().items():
            finite, size = np.isfinite(frames).all(), len(frames)
            sources = [line.pop("source") for line in lines.get(key, [])]
            assert_events(lines.get(key, []), expected(kind, key, 1 if finite else chunk), key)
            if finite:
                completed = [event["step"] + 2 for event in lines[key]]
                assert sources == [f"{key}.npy/{size if at >= size else at // chunk * chunk}" for at in completed]
        assert sum(map(len, lines.values())) > 100


@pytest.mark.parametrize("kind", DECODE)
def test_kill_9_anywhere(tmp_path: Path, kind: str) -> None:
    """Killed at random moments and started again until it is through: every stream's events are those of a run that nobody killed,
    byte for byte, what a decoder knew of a stream included."""
    whole = written(tmp_path / "whole", kind)
    run(read_pipeline(whole / "pipeline.toml"))
    killed = written(tmp_path / "killed", kind, rate="3.0", commit=0.02, checkpoint=0.1)
    assert kill_until_done(killed, kills=6, seed=11) >= 3
    assert lines_by_stream(killed) == lines_by_stream(whole)
    assert dead(killed) == dead(whole)
