"""What tests of files share: a model's contract without a model, and sources and sinks run to their end."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from undertow.connectors.files_config import FilesSinkConfig, FilesSourceConfig
from undertow.connectors.files_sink import FilesSink
from undertow.connectors.files_source import FilesSource
from undertow.connectors.records import Answer, Record, Source, Unreadable
from undertow.engine.artifact import StepSpec, TensorSpec


def spec_of(*shape: int, dtype: Any = "float32", rate_hz: float | None = None) -> StepSpec:
    """One input x and one output y of the shape."""
    return StepSpec((TensorSpec("x", shape, dtype),), (TensorSpec("y", shape, dtype),), (), sample_rate_hz=rate_hz)


def two_inputs() -> StepSpec:
    inputs = (TensorSpec("a", (2,), "float32"), TensorSpec("b", (), "int64"))
    return StepSpec(inputs, (TensorSpec("y", (2,), "float32"),), ())


def source_of(folder: Path, spec: StepSpec, path: str = ".", **options: Any) -> FilesSource:
    return FilesSource(FilesSourceConfig(path, **options), folder, spec)


async def _drain(source: Source, offsets: Mapping[str, int], max_records: int) -> list[Record]:
    records: list[Record] = []
    await source.open(offsets)
    try:
        while not source.exhausted:
            records += await source.poll(max_records, 1.0)
    finally:
        await source.close()
    return records


def drain(source: Source, offsets: Mapping[str, int] | None = None, max_records: int = 7) -> list[Record]:
    """Every record from the offsets on."""
    return asyncio.run(_drain(source, offsets or {}, max_records))


def read(folder: Path, spec: StepSpec, path: str = ".", **options: Any) -> list[Record]:
    return drain(source_of(folder, spec, path, **options))


def told(record: Record) -> tuple[Any, ...]:
    """All that a record says, comparable."""
    value = record.value
    if isinstance(value, Mapping):
        value = {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in value.items()}
    rest = (record.event_time_ns, record.frame_ns, record.end, record.seq, record.end_partition, record.single)
    return (record.partition, record.offset, record.next_offset, record.key, value, *rest)


def frames(records: Sequence[Record], key: Any = None) -> np.ndarray:
    """The frames of the records end to end, of one stream or of all."""
    parts = [r.value for r in records if isinstance(r.value, Mapping) and key in (None, r.key)]
    return np.concatenate([next(iter(arrays.values())) for arrays in parts])


def reasons(records: Sequence[Record]) -> list[str]:
    return [r.value.reason for r in records if isinstance(r.value, Unreadable)]


def answer(key: Any, step: int, *, source: str = "in/0", at: int | None = None, gap: int = 0, **values: Any) -> Answer:
    return Answer(key, step, {n: np.asarray(v) for n, v in values.items()}, source, at, gap)


def sink_of(folder: Path, spec: StepSpec, path: str, **options: Any) -> FilesSink:
    return FilesSink(FilesSinkConfig(path, **options), folder, spec)


async def _write(
    sink: FilesSink, lengths: Mapping[str, int] | None, batches: Sequence[Sequence[Answer]]
) -> dict[str, int]:
    known = dict(lengths or {})
    await sink.open(lengths)
    try:
        for batch in batches:
            await sink.write(batch)
            known |= await sink.flush()
    finally:
        await sink.close()
    return known


def write(
    sink: FilesSink, *batches: Sequence[Answer], lengths: Mapping[str, int] | None = None, going_on: bool = False
) -> dict[str, int]:
    """Writes and commits each batch: the lengths committed. going_on: nothing that is there is cut."""
    return asyncio.run(_write(sink, None if going_on else lengths or {}, batches))
