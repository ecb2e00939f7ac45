"""`undertow replay`: what a pipeline's model, or another beside it, makes of one stream's records; on this machine, for nobody else."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ..engine.artifact import StepSpec, read_artifact
from ..engine.building import outside
from ..engine.errors import ConfigError
from .config import PlacedPipeline
from .differences import Compared, Shadow, compared, shadow
from .files_config import FilesSourceConfig
from .files_source import FilesSource
from .kafka.config import KafkaSinkConfig, KafkaSourceConfig
from .one_stream import OneStream, Request, Stretch, check_snapshot, narrowed
from .opening import fresh_stream, open_intake, pipeline_model
from .output_lines import stream_text
from .records import Record

POLL_RECORDS, POLL_S = 4096, 0.2


@dataclass(frozen=True, slots=True)
class Replayed:
    """streams: of the pipeline's model, and of the other one. stretches: what was read of each partition."""

    request: Request
    streams: list[OneStream]
    stretches: list[Stretch]
    shadow: Shadow | None
    compared: Compared | None


def replay(
    placed: PlacedPipeline,
    request: Request,
    model: Path | None = None,
    tolerance: float = 1e-5,
    compare: bool = False,
) -> Replayed:
    """Steps the stream's records. model: another artifact beside the pipeline's. compare: with the output topic.

    Raises UndertowError; a bad record of the stream that would stop a run ends it, and is in the batch's `failure`.
    """
    check_snapshot(request.snapshot, request.begin)
    _check_compare(placed, compare)
    models = [pipeline_model(placed), *([read_artifact(model)] if model else [])]
    _check_inputs([outside(each, placed.pipeline.decode) for each in models])
    streams = [fresh_stream(placed, each, compare and not i) for i, each in enumerate(models)]
    watched = placed.pipeline.policy.idle_timeout_s is not None
    if isinstance(placed.pipeline.source, KafkaSourceConfig):
        from .kafka.clients import run
        from .kafka.topic_stream import TopicStream

        topic = TopicStream(placed, request, open_intake(placed, streams[0].engine), watched)
        stretch, written = run(topic.step(streams, compare))
        stretches = [stretch]
    else:
        stretches, written = asyncio.run(_from_files(placed, request, streams, watched)), {}
    return Replayed(
        request,
        streams,
        stretches,
        shadow(streams[0], streams[1], tolerance) if model else None,
        compared(streams[0].payloads, written) if compare else None,
    )


def _check_compare(placed: PlacedPipeline, compare: bool) -> None:
    pipeline = placed.pipeline
    if compare and not (isinstance(pipeline.source, KafkaSourceConfig) and isinstance(pipeline.sink, KafkaSinkConfig)):
        raise ConfigError(
            f"{placed.file}: --compare is with the output topic of a pipeline from Kafka; [source] type is {pipeline.source.__struct_config__.tag!r}, "
            f"[sink] type {pipeline.sink.__struct_config__.tag!r}"
        )


def _check_inputs(specs: Sequence[StepSpec]) -> None:
    first, *others = ([(t.name, t.shape, t.dtype) for t in spec.inputs] for spec in specs)
    for other in others:
        if other != first:
            raise ConfigError(
                f"--model: has the inputs {other}, the pipeline's model {first}; a shadow run feeds both the same frames"
            )


async def _from_files(
    placed: PlacedPipeline, request: Request, streams: list[OneStream], watched: bool
) -> list[Stretch]:
    source = _files(placed, request, streams[0].engine.spec)
    begin = request.begin if isinstance(request.begin, int) else 0
    await source.open({request.partition: begin} if request.partition and begin else {})
    ends: dict[str, int] = {}
    try:
        while not source.exhausted:
            records = [r for r in await source.poll(POLL_RECORDS, POLL_S) if _wanted(r, request, watched)]
            ends |= {r.partition: r.next_offset for r in records}
            columns = streams[0].batch.columns(records)
            mine = np.fromiter(
                (not r.end_partition and stream_text(r.key) == request.stream for r in records), np.bool_, len(records)
            )
            if request.snapshot is not None and mine.any() and not streams[0].records:
                first = records[int(mine.argmax())]
                for stream in streams:
                    stream.begin_with(first.partition, first.key, request.snapshot)
            only, own = narrowed(columns, mine, watched)
            for stream in streams:
                stream.take(only, own)
    finally:
        await source.close()
    return [Stretch(partition, begin, end, False) for partition, end in ends.items()]


def _files(placed: PlacedPipeline, request: Request, spec: StepSpec) -> FilesSource:
    """The pipeline's files, as fast as they can be read. Raises ConfigError."""
    config = placed.pipeline.source
    if not isinstance(config, FilesSourceConfig):
        raise ConfigError(
            f"{placed.file}: [source] type is {config.__struct_config__.tag!r}, which cannot be read again; expected 'kafka' or 'files'"
        )
    if request.begin == "changelog":
        raise ConfigError(
            f"{placed.file}: --from changelog is for pipelines from Kafka; of files use `undertow state export`, --snapshot and --from OFFSET"
        )
    if (isinstance(request.begin, int) or request.end is not None) and request.partition is None:
        raise ConfigError("an offset of --from or --to is of one file; say which with --partition")
    return FilesSource(msgspec.structs.replace(config, rate="fast"), placed.folder, spec)


def _wanted(record: Record, request: Request, watched: bool) -> bool:
    if request.partition is not None and record.partition != request.partition:
        return False
    if request.end is not None and record.offset >= request.end:
        return False
    return watched or record.end_partition or stream_text(record.key) == request.stream
