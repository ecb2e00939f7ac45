"""Small pipelines of the tests: their files, their records, and what each stream has to give."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from undertow.connectors.config import PlacedPipeline, read_pipeline
from undertow.connectors.memory import MemorySource
from undertow.connectors.records import Answer, Record
from undertow.engine.artifact import Artifact, write_artifact

from .step_graph import StepGraph, lookahead_step

SECOND = 1_000_000_000
SIZE = 3


def running_sum() -> Artifact:
    """No delay; sums that are too large are infinite."""
    g = StepGraph()
    x, h = g.input("x", (SIZE,)), g.state("h", (SIZE,))
    total = g.op("Add", x, h)
    g.next("h", total)
    g.output("y", total, (SIZE,))
    return g.artifact()


def pipeline(
    folder: Path, artifact: Artifact | None = None, tables: str = "", sink: str = 'type = "memory"', **model: Any
) -> PlacedPipeline:
    """A pipeline in `folder` from memory to memory or `sink`; the model's other options, and TOML to add."""
    artifact = artifact or lookahead_step(2)
    write_artifact(folder / "model.onnx", artifact.model, artifact.spec)
    options = "".join(
        f"{name} = {value!r}\n" for name, value in {"backend": "numba", "max_streams": 64, **model}.items()
    )
    text = f'name = "test"\n[model]\npath = "model.onnx"\n{options}[source]\ntype = "memory"\n[sink]\n{sink}\n{tables}'
    (folder / "pipeline.toml").write_text(text)
    return read_pipeline(folder / "pipeline.toml")


class Cuts(MemorySource):
    """Gives its records in polls of the sizes of a repeatable sequence, none now and then, and fails after `crash_after`."""

    def __init__(self, records: Sequence[Record], seed: int = 0, crash_after: int | None = None, shuffle: bool = False):
        super().__init__(interleaved(records, seed) if shuffle else records)
        self.random, self.left = random.Random(seed), crash_after

    async def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        size = self.random.choice((0, 1, 1, 2, 3, 7, 40))
        records = await super().poll(size, timeout_s) if size else []
        if self.left is not None:
            self.left -= len(records)
            if self.left < 0:
                raise Crash
        return records


class Crash(Exception):
    """Stands for the end of the process: nothing is flushed, committed or closed in order."""


def interleaved(records: Iterable[Record], seed: int) -> list[Record]:
    """The partitions' records in another order, those of each partition in theirs."""
    queues: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        queues[r.partition].append(r)
    choose, left, given = random.Random(seed), [list(reversed(q)) for q in queues.values()], []
    while left:
        queue = choose.choice(left)
        given.append(queue.pop())
        left = [q for q in left if q]
    return given


def by_stream(answers: Iterable[Answer]) -> dict[Any, list[tuple[Any, ...]]]:
    """The lines of each key, in order: step, source, time, the values' bytes; and where a stream ended."""
    lines: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for a in answers:
        for i in range(rows(a)):
            at = None if a.event_time_ns is None else a.event_time_ns + i * a.frame_ns
            lines[a.key].append((a.step + i, a.source, at, *(y[i].tobytes() for y in a.values.values())))
        if a.end:
            lines[a.key].append(("end", a.source))
    return dict(lines)


def rows(answer: Answer) -> int:
    return len(next(iter(answer.values.values())))


def streams(seed: int, keys: Sequence[Any], longest: int = 30) -> dict[Any, np.ndarray]:
    noise = np.random.default_rng(seed)
    return {k: noise.normal(size=(int(noise.integers(0, longest)), SIZE)).astype(np.float32) for k in keys}


def cut(frames: Mapping[Any, np.ndarray], seed: int, partitions: int = 2, timed: bool = True) -> list[Record]:
    """Records of ragged chunks, interleaved; partition p has every p-th key; a frame every second, from its stream's own start."""
    choose = random.Random(seed)
    places, offsets, given = {k: i % partitions for i, k in enumerate(frames)}, [0] * partitions, []
    left: dict[Any, int] = dict.fromkeys(frames, 0)
    while left:
        key = choose.choice(list(left))
        begin, whole = left[key], frames[key]
        end = min(begin + choose.choice((1, 1, 2, 5, 9)), len(whole))
        p = places[key]
        time_ns = SECOND * (100 * p + begin) if timed else None
        done = end == len(whole)
        record = Record(
            f"part-{p}", offsets[p], offsets[p] + 1, key, whole[begin:end], time_ns, SECOND if timed else 0, done, begin
        )
        offsets[p] += 1
        given.append(record)
        left[key] = end
        if done:
            del left[key]
    return given
