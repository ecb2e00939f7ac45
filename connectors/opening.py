"""From a pipeline file to the parts that run it, each checked before anything runs."""

from dataclasses import dataclass

from ..engine import Engine
from ..engine.artifact import StepSpec, read_artifact
from ..engine.errors import ConfigError
from .batch import Batch, slots
from .codecs import make_codec
from .config import MemorySinkConfig, MemorySourceConfig, PlacedPipeline
from .dead_letters import DeadLetters
from .decoders import make_decoder
from .files_config import FilesSinkConfig, FilesSourceConfig, StdinConfig, StdoutConfig
from .files_sink import FilesSink
from .files_source import FilesSource
from .kafka.config import KafkaSinkConfig
from .payloads import Codec, Use
from .records import Sink, Source
from .stdio import StdinSource, StdoutSink


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
    pipeline, model = placed.pipeline, placed.pipeline.model
    path = placed.path(model.path)
    if not path.is_file():
        raise ConfigError(f"{placed.file}: [model] path: there is no file {path}")
    artifact = read_artifact(path)
    try:
        decoder = make_decoder(pipeline.decode, artifact.spec)
        given, codec = _source(placed, source, artifact.spec)
        taken = _sink(placed, sink, artifact.spec)
    except ConfigError as error:
        raise ConfigError(f"{placed.file}: {error}") from error
    _check_guarantee(placed, given, taken)
    engine = Engine(
        artifact,
        backend=model.backend,
        providers=model.providers,
        max_streams=slots(model.max_streams),
        threads=model.threads,
        max_frames=model.max_frames,
    )
    dead = DeadLetters(placed.path(pipeline.dead_letters.path)) if pipeline.dead_letters else None
    return Parts(
        Batch(engine, codec, decoder, pipeline.policy, model.max_streams, model.max_frames, dead), given, taken
    )


def check_parts(parts: Parts) -> None:
    """Looks at what a run would meet: the beginning of every input file, the sink's folder or topic. Raises ConnectorError."""
    if isinstance(parts.source, FilesSource):
        parts.source.check()
    check = getattr(parts.sink, "check", None)  # that of files and of Kafka, whose module is loaded where it is used
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
