"""What a pipeline file says. Every table refuses keys that it does not know."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..engine.chain_config import Gate
from ..engine.decoders import DecodeConfig, Raw
from ..engine.errors import ConfigError
from .addresses import host_and_port
from .codec_config import CodecConfig
from .files_config import FilesSinkConfig, FilesSourceConfig, StdinConfig, StdoutConfig
from .kafka.checking import check_one_connection, check_sink, check_source
from .kafka.config import KafkaSinkConfig, KafkaSourceConfig
from .toml_file import read_toml

Count = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Text = Annotated[str, msgspec.Meta(min_length=1)]


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the pipeline file."""


class StageConfig(Table, frozen=True, kw_only=True):
    """[[model.stages]] as in `Stage`; path is relative to the pipeline file."""

    path: Text
    name: Text | None = None
    input: Text | dict[str, Text] = "frames"
    gate: Gate | None = None


class Model(Table, frozen=True, kw_only=True):
    """[model] as in `Engine`; path is relative to the pipeline file; in its place, stages: a chain.

    on_change: what it means that a changelog's rows are of a model with other states: the run is refused, those streams
    begin anew, or each steps its last `rewarm_frames` frames again.
    """

    path: Text | None = None
    stages: Annotated[list[StageConfig], msgspec.Meta(min_length=1)] | None = None
    backend: Literal["auto", "numba", "ort"] = "auto"
    providers: list[str] | None = None
    max_streams: Count = 4096
    threads: Count = 1
    max_frames: Count = 65_536
    on_change: Literal["refuse", "reset", "rewarm"] = "refuse"
    rewarm_frames: Count | None = None

    @property
    def paths(self) -> list[str]:
        """Of the one model, or of each stage's."""
        return [stage.path for stage in self.stages or ()] if self.path is None else [self.path]


class Policy(Table, frozen=True, kw_only=True):
    """[policy]

    bad_record: a record that cannot be stepped ends the run, or goes to the dead letters with the reason.
    gap: what a record means that does not begin with the stream's next frame: it is bad; the stream starts anew with it; or up
    to max_gap_frames missing frames are stepped as zeros, as the last frame held, or on the line from the last frame to
    the new one. gap_in: by sequence numbers, or by event times where the frames come at a steady rate.
    late: frames before the stream's next one are dropped and counted, or make the record bad; by default bad where gap is "error".
    idle_timeout_s: of event time; a stream without a record for longer is flushed and forgotten.
    non_finite: a stream that gives an output that is not finite is quarantined until it ends, or goes on.
    """

    bad_record: Literal["stop", "dead-letter"] = "stop"
    gap: Literal["error", "reset", "zero", "hold", "interpolate"] = "error"
    gap_in: Literal["sequence", "time"] = "sequence"
    max_gap_frames: Count = 10_000
    late: Literal["drop", "error"] | None = None
    idle_timeout_s: Seconds | None = None
    non_finite: Literal["quarantine", "pass"] = "quarantine"


class MemorySourceConfig(Table, frozen=True, kw_only=True, tag_field="type", tag="memory"):
    """[source] type = "memory": the program gives it. codec: of payloads that are bytes."""

    codec: CodecConfig | None = None


class MemorySinkConfig(Table, frozen=True, kw_only=True, tag_field="type", tag="memory"):
    """[sink] type = "memory": the program gives it."""


class Delivery(Table, frozen=True, kw_only=True):
    """[delivery]; see the README for what each guarantee gives.

    stop_timeout_s: how long a run that is told to end may take to store what it has; of a Kafka source.
    """

    guarantee: Literal["exactly-once", "at-least-once"] = "exactly-once"
    commit_interval_s: Seconds = 0.1
    checkpoint_interval_s: Seconds = 30.0
    stop_timeout_s: Seconds = 30.0


class StoreConfig(Table, frozen=True, kw_only=True):
    """[store]; path: the folder of the local store, `<name>.state` beside the pipeline file if not given.

    replication_factor: of the changelog topics that a Kafka source's pipeline makes, the brokers' default if not given.
    standbys: workers that follow each partition's changelog, ready to go on with it.
    """

    path: Text | None = None
    replication_factor: Annotated[int, msgspec.Meta(ge=1, le=32767)] | None = None
    standbys: Annotated[int, msgspec.Meta(ge=0, le=16)] = 0


class DeadLetterConfig(Table, frozen=True, kw_only=True):
    """[dead_letters]; path: a file of JSON Lines; topic: where the source is Kafka, a topic of the same cluster."""

    path: Text | None = None
    topic: Text | None = None


class MetricsConfig(Table, frozen=True, kw_only=True):
    """[metrics]

    address: where /metrics, /healthz and /readyz are answered, "host:port". loop_timeout_s: the process counts as hung when
    its event loop has not turned for longer. commit_timeout_s: as not ready when records wait longer for their commit.
    """

    address: Text = "127.0.0.1:9464"
    loop_timeout_s: Seconds = 10.0
    commit_timeout_s: Seconds = 60.0


class LogConfig(Table, frozen=True, kw_only=True):
    """[log] on stderr. format: lines to read, or JSON Lines. level: the least that is shown."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Pipeline(Table, frozen=True, kw_only=True):
    """A pipeline file. folder: where its relative paths begin; not a key of the file."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
    model: Model
    source: FilesSourceConfig | StdinConfig | MemorySourceConfig | KafkaSourceConfig
    sink: FilesSinkConfig | StdoutConfig | MemorySinkConfig | KafkaSinkConfig
    policy: Policy = Policy()
    decode: DecodeConfig = Raw()
    delivery: Delivery = Delivery()
    store: StoreConfig = StoreConfig()
    dead_letters: DeadLetterConfig | None = None
    metrics: MetricsConfig | None = None
    log: LogConfig | None = None


class PlacedPipeline(msgspec.Struct, frozen=True):
    """A pipeline together with the folder that its relative paths begin in. worker: its number, of one of several."""

    pipeline: Pipeline
    folder: Path
    file: str = "pipeline"
    worker: int | None = None

    def path(self, given: str) -> Path:
        return self.folder / Path(given).expanduser()

    @property
    def store_path(self) -> Path:
        return self.path(self.pipeline.store.path or f"{self.pipeline.name}.state")


def read_pipeline(path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> PlacedPipeline:
    """The pipeline file at `path`. Raises ConfigError: the table and key, what was got, what is allowed."""
    path = Path(path)
    pipeline = read_toml(path, Pipeline, os.environ if environ is None else environ)
    placed = PlacedPipeline(pipeline, path.absolute().parent, path.name)
    check_pipeline(placed)
    return placed


def check_pipeline(placed: PlacedPipeline) -> None:
    """Refuses tables that do not fit each other. Raises ConfigError."""
    pipeline, where = placed.pipeline, placed.file
    if pipeline.metrics is not None:
        try:
            host_and_port(pipeline.metrics.address)
        except ConfigError as error:
            raise ConfigError(f"{where}: [metrics] address {error}") from error
    if pipeline.policy.bad_record == "dead-letter" and pipeline.dead_letters is None:
        raise ConfigError(
            f"{where}: [policy] bad_record is 'dead-letter' and there is no table [dead_letters]; add it, with a path"
        )
    if pipeline.policy.bad_record == "stop" and pipeline.dead_letters is not None:
        raise ConfigError(
            f"{where}: [dead_letters] is given and [policy] bad_record is 'stop', so nothing would go there; "
            'set bad_record = "dead-letter" or leave the table out'
        )
    if (pipeline.model.path is None) == (pipeline.model.stages is None):
        got = "neither" if pipeline.model.path is None else "both"
        raise ConfigError(
            f"{where}: [model] has {got} of path and stages; give path, of one model, or [[model.stages]], of a chain"
        )
    if pipeline.model.providers and pipeline.model.backend == "numba":
        raise ConfigError(f"{where}: [model] providers are for ONNX Runtime, backend is 'numba'; use 'ort' or 'auto'")
    if (pipeline.model.on_change == "rewarm") != (pipeline.model.rewarm_frames is not None):
        lacks = pipeline.model.rewarm_frames is None
        raise ConfigError(
            f"{where}: [model] on_change is {pipeline.model.on_change!r}, "
            + (
                "which needs rewarm_frames: how many of each stream; add it"
                if lacks
                else 'rewarm_frames is for "rewarm"; take it out'
            )
        )
    try:
        _check_kafka(pipeline)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_kafka(pipeline: Pipeline) -> None:
    dead, store, from_kafka = pipeline.dead_letters, pipeline.store, isinstance(pipeline.source, KafkaSourceConfig)
    if isinstance(pipeline.source, KafkaSourceConfig):
        check_source(pipeline.source)
        if store.path is not None:
            raise ConfigError("[store] path: what a Kafka source's pipeline stores is in changelog topics; take it out")
    elif store.replication_factor is not None or store.standbys:
        key = "standbys" if store.standbys else "replication_factor"
        raise ConfigError(
            f"[store] {key} is of changelog topics, and only [source] type = 'kafka' has those; take it out"
        )
    if dead is not None and (dead.topic if not from_kafka else dead.path) is not None:
        got, other = ("path", "topic") if from_kafka else ("topic", "path")
        raise ConfigError(
            f"[dead_letters] {got}: [source] type is {pipeline.source.__struct_config__.tag!r}; give {other}"
        )
    if dead is not None and dead.path is None and dead.topic is None:
        raise ConfigError(f"[dead_letters] has no key '{'topic' if from_kafka else 'path'}'; add it")
    if isinstance(pipeline.sink, KafkaSinkConfig):
        check_sink(pipeline.sink)
        if isinstance(pipeline.source, KafkaSourceConfig) and pipeline.delivery.guarantee == "exactly-once":
            check_one_connection(pipeline.source, pipeline.sink)
