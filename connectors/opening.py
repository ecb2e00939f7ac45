"""From a pipeline file to the parts that run it, each checked before anything runs."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..engine import Engine
from ..engine.artifact import Artifact, StepSpec, read_artifact
from ..engine.building import Model, outside
from ..engine.chain_config import Stage
from ..engine.chain_reading import read_chain
from ..engine.compiler import missing
from ..engine.decoders import Ctc, DecodeConfig
from ..engine.errors import ConfigError
from .batch import Batch, slots
from .codecs import make_codec
from .config import MemorySinkConfig, MemorySourceConfig, PlacedPipeline, Policy
from .dead_letters import DeadLetters
from .files_config import FilesSinkConfig, FilesSourceConfig, StdinConfig, StdoutConfig
from .files_sink import FilesSink
from .files_source import FilesSource
from .kafka.config import KafkaSinkConfig, KafkaSourceConfig
from .one_stream import OneStream, Refusals
from .payloads import Codec, Use
from .records import Sink, Source
from .stdio import StdinSource, StdoutSink
from .stored import LocalStates, States
from .times import FrameClock

if TYPE_CHECKING:
    from .kafka.dead_topic import DeadLetterTopic
    from .kafka.intake import Intake
    from .kafka.outputs import Outputs
    from .kafka.processor import KafkaParts


@dataclass(frozen=True, slots=True)
class Parts:
    """What a processor is made of, but for the store."""

    batch: Batch
    source: Source
    sink: Sink


def open_parts(placed: PlacedPipeline, source: Source | None, sink: Sink | None) -> Parts:
    """Engine, source and sink. source, sink: what `type = "memory"` stands for.

    Raises ConfigError, ArtifactError, BackendError, ConnectorError.
    """
    model = pipeline_model(placed)
    spec = outside(model, placed.pipeline.decode)
    with _in_file(placed):
        given, codec = _source(placed, source, spec)
        taken = _sink(placed, sink, spec)
    _check_guarantee(placed, given, taken)
    letters = placed.pipeline.dead_letters
    dead = DeadLetters(placed.path(letters.path)) if letters and letters.path else None
    engine = _engine(placed, model, placed.pipeline.model.backend)
    return Parts(_batch(placed, engine, codec, dead), given, taken)


def open_kafka_parts(placed: PlacedPipeline, sink: Sink | None) -> "KafkaParts":
    """The parts of a pipeline whose source is Kafka, without connecting. sink: what `type = "memory"` stands for.

    Raises ConfigError, ArtifactError, BackendError.
    """
    from .kafka.cluster import Cluster, check_guarantee
    from .kafka.dead_topic import DeadLetterTopic
    from .kafka.outputs import SinkOutputs, TransactionalOutputs
    from .kafka.processor import KafkaParts

    pipeline, model = placed.pipeline, pipeline_model(placed)
    source, config = pipeline.source, pipeline.sink
    assert isinstance(source, KafkaSourceConfig)
    engine = _engine(placed, model, steady_backend(placed, model))
    with _in_file(placed):
        check_guarantee(pipeline)
        intake = open_intake(placed, engine)
        cluster = Cluster(pipeline, placed.folder, uuid.uuid4().hex[:12], engine.row_bytes)
        dead = DeadLetterTopic(cluster, pipeline.dead_letters.topic or "") if pipeline.dead_letters else None
        if isinstance(config, KafkaSinkConfig) and pipeline.delivery.guarantee == "exactly-once":
            written = make_codec(config.codec, engine.spec, Use(placed.folder, config.topic, writes=True))
            outputs: Outputs = TransactionalOutputs(cluster, config.topic, written)
        else:
            outputs = SinkOutputs(_sink(placed, sink, engine.spec))
    return KafkaParts(
        cluster,
        _batch(placed, engine, None, dead),
        lambda: fresh_batch(placed, model),
        intake,
        outputs,
        dead,
    )


def open_intake(placed: PlacedPipeline, engine: Engine) -> "Intake":
    """What decodes the records of a Kafka source. Raises ConfigError."""
    from .kafka.intake import Intake

    source, spec = placed.pipeline.source, engine.spec
    assert isinstance(source, KafkaSourceConfig)
    topic = source.topics[0] if source.topics and len(source.topics) == 1 else None
    codec = make_codec(source.codec, spec, Use(placed.folder, topic))
    rate_hz = source.sample_rate_hz or spec.sample_rate_hz
    return Intake(engine, codec, FrameClock(rate_hz, 0).frame_ns if rate_hz else 0)


def fresh_stream(placed: PlacedPipeline, model: Model, encodes: bool) -> OneStream:
    """A model of its own for one stream, under the pipeline's policies. encodes: as the sink's topic has it."""
    few = msgspec.structs.replace(placed.pipeline, model=msgspec.structs.replace(placed.pipeline.model, max_streams=2))
    alone, refusals = msgspec.structs.replace(placed, pipeline=few), Refusals()
    engine, sink = _engine(alone, model, steady_backend(alone, model)), few.sink
    with _in_file(placed):
        codec = None
        if encodes and isinstance(sink, KafkaSinkConfig):
            codec = make_codec(sink.codec, engine.spec, Use(placed.folder, sink.topic, writes=True))
    return OneStream(_batch(alone, engine, None, refusals), refusals, codec)


def open_states(placed: PlacedPipeline) -> States:
    """What the pipeline has stored of its streams. Raises ConfigError, ArtifactError, BackendError."""
    model = placed.pipeline.model
    engine = Engine(
        pipeline_model(placed),
        backend="ort",
        max_streams=2,
        max_frames=model.max_frames,
        decode=decoding(placed),
    )  # nothing is stepped
    if isinstance(placed.pipeline.source, KafkaSourceConfig):
        from .kafka.stored_rows import ChangelogStates

        return ChangelogStates(placed, engine)
    return LocalStates(placed, engine)


def fresh_batch(placed: PlacedPipeline, model: Model) -> Batch:
    """Another batch for the model, without streams: none of them expires, and no record stops it."""
    policy = msgspec.structs.replace(placed.pipeline.policy, bad_record="dead-letter", idle_timeout_s=None)
    engine = _engine(placed, model, steady_backend(placed, model))
    return _batch(placed, engine, None, None, policy)


def pipeline_model(placed: PlacedPipeline) -> Model:
    """Raises ConfigError, ArtifactError."""
    model = placed.pipeline.model
    if model.path is not None:
        return read_artifact(_model_file(placed, "path", model.path))
    with _in_file(placed):
        return read_chain(
            [
                Stage(_model_file(placed, "stages.path", stage.path), stage.name, stage.input, stage.gate)
                for stage in model.stages or ()
            ]
        )


def _model_file(placed: PlacedPipeline, key: str, given: str) -> Path:
    path = placed.path(given)
    if not path.is_file():
        raise ConfigError(f"{placed.file}: [model] {key}: there is no file {path}")
    return path


def _engine(placed: PlacedPipeline, model: Model, backend: str) -> Engine:
    config = placed.pipeline.model
    standbys = placed.pipeline.store.standbys
    with _in_file(placed):
        return Engine(
            rated(placed, model),
            backend=backend,
            providers=config.providers,
            max_streams=slots(config.max_streams, standbys),
            threads=config.threads,
            max_frames=config.max_frames,
            decode=decoding(placed),
        )


def decoding(placed: PlacedPipeline) -> DecodeConfig:
    """[decode], the files that it names in the pipeline's folder."""
    decode = placed.pipeline.decode
    if not isinstance(decode, Ctc):
        return decode
    files = {"lexicon": decode.lexicon, "ngram": decode.ngram}
    return msgspec.structs.replace(decode, **{k: str(placed.path(v)) for k, v in files.items() if v is not None})


def rated(placed: PlacedPipeline, model: Model) -> Model:
    """The model with the rate of its frames as the source says it, where the model does not."""
    rate_hz = getattr(placed.pipeline.source, "sample_rate_hz", None)
    if model.spec.sample_rate_hz is not None or rate_hz is None:
        return model
    return replace(model, spec=msgspec.structs.replace(model.spec, sample_rate_hz=rate_hz))


def steady_backend(placed: PlacedPipeline, model: Model) -> str:
    """One backend whatever the batch, so that a replay gives what the first run gave: the compiled one where it can run the model."""
    config = placed.pipeline.model
    if config.backend != "auto":
        return config.backend
    artifacts = [model] if isinstance(model, Artifact) else [link.artifact for link in model.links]
    return "ort" if config.providers or any(a.spec.sequence or missing(a) for a in artifacts) else "numba"


def _batch(
    placed: PlacedPipeline,
    engine: Engine,
    codec: Codec | None,
    dead: "DeadLetters | DeadLetterTopic | Any",
    policy: Policy | None = None,
) -> Batch:
    model = placed.pipeline.model
    return Batch(
        engine,
        codec,
        policy or placed.pipeline.policy,
        model.max_streams,
        model.max_frames,
        dead,
        placed.pipeline.store.standbys,
    )


@contextmanager
def _in_file(placed: PlacedPipeline) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{placed.file}: {error}") from error


def check_parts(parts: Parts) -> None:
    """Looks at what a run would meet: the beginning of every input file, the sink's folder or topic. Raises ConnectorError."""
    if isinstance(parts.source, FilesSource):
        parts.source.check()
    check_sink(parts.sink)


def check_sink(sink: Sink) -> None:
    """Looks at the sink's folder or topic. Raises ConnectorError."""
    check = getattr(sink, "check", None)  # that of files and of Kafka, whose module is loaded where it is used
    if check is not None:
        check()


def _source(placed: PlacedPipeline, given: Source | None, spec: StepSpec) -> tuple[Source, Codec | None]:
    """The source, and the codec of the payloads that it leaves as bytes."""
    config = placed.pipeline.source
    _check_given("source", config.__struct_config__.tag, given)
    if isinstance(config, MemorySourceConfig) and given is not None:
        return given, make_codec(config.codec, spec, Use(placed.folder)) if config.codec else None
    if isinstance(config, FilesSourceConfig):
        return FilesSource(config, placed.folder, spec), None
    assert isinstance(config, StdinConfig)
    return StdinSource(config, placed.folder, spec), None


def _sink(placed: PlacedPipeline, given: Sink | None, spec: StepSpec) -> Sink:
    config = placed.pipeline.sink
    _check_given("sink", config.__struct_config__.tag, given)
    if isinstance(config, MemorySinkConfig) and given is not None:
        return given
    if isinstance(config, FilesSinkConfig):
        return FilesSink(config, placed.folder, spec)
    if isinstance(config, KafkaSinkConfig):
        from .kafka.sink import KafkaSink  # aiokafka takes a fifth of a second to load

        use = Use(placed.folder, config.topic, writes=True)
        return KafkaSink(config, placed.folder, make_codec(config.codec, spec, use))
    assert isinstance(config, StdoutConfig)
    return StdoutSink(config, placed.folder, spec)


def _check_given(table: str, kind: object, given: object) -> None:
    if kind == "memory" and given is None:
        raise ConfigError(
            f'[{table}] type = "memory": a program gives it, as in undertow.run(pipeline, {table}=...); '
            "on the command line use another type"
        )
    if kind != "memory" and given is not None:
        raise ConfigError(
            f'[{table}] type = {kind!r}, and the program gives a {table}; say type = "memory" or give none'
        )


def _check_guarantee(placed: PlacedPipeline, source: Source, sink: Sink) -> None:
    if placed.pipeline.delivery.guarantee == "at-least-once":
        return
    for table, kind, able, why in (
        ("source", placed.pipeline.source, source.rewindable, "cannot be read again after a crash"),
        ("sink", placed.pipeline.sink, sink.truncatable, "cannot take back what was written before a crash"),
    ):
        if not able:
            raise ConfigError(
                f'{placed.file}: [delivery] guarantee = "exactly-once" is not possible: [{table}] type = '
                f'{kind.__struct_config__.tag!r} {why}; set guarantee = "at-least-once"'
            )
