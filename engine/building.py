"""What an engine is made of: the arena, and the executor that its model and decoder ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .arena import Arena
from .artifact import Artifact, StateSpec, StepSpec
from .backends import Backends, choose_backends
from .beams import beam_slots
from .chain import FRAMES, Chain, Node, Watch, answered_frames, known_frames, path_to
from .chain_config import Gate
from .chain_reading import Link, Linked, watched
from .collected import Collected
from .decoders import About, DecodeConfig, Generate, decoder_of
from .errors import ConfigError
from .frames import Intake
from .gating import Gating, gate_states
from .generating import Prompted, Texts, Translating, source_spec
from .generation import Generator
from .given import Executor
from .limits import index_limits
from .section import Section
from .single import Decoded, Single
from .stage import Stage
from .token_rows import token_states
from .voices import Voices, voices_of
from .whole import Whole

if TYPE_CHECKING:
    from .ort_session import Provider
    from .reading import Reader

Model: TypeAlias = Artifact | Linked

_OWED = tuple(StateSpec(f"decode.{name}", f"decode.{name}", (), "int64") for name in ("owed", "seen"))


@dataclass(frozen=True, slots=True)
class Options:
    """As in `Engine`."""

    backend: str
    providers: Sequence["Provider"] | None
    max_streams: int
    threads: int
    max_batch: int
    max_frames: int


@dataclass(frozen=True, slots=True)
class Built:
    """generator: or why there is none. reader: of a model with an encoder."""

    arena: Arena
    executor: Executor
    generator: Generator | str
    reader: "Reader | None" = None


def outside(model: Model, decode: DecodeConfig | None) -> StepSpec:
    """What the engine of a model takes and gives."""
    if isinstance(decode, Generate) and isinstance(model, Artifact) and model.encoder is not None:
        return source_spec(model)
    return model.spec


def build(model: Model, decode: DecodeConfig | None, options: Options) -> Built:
    """Raises ArtifactError, BackendError, ConfigError."""
    if isinstance(model, Linked):
        return _chain(model, decode, options)
    if model.spec.sequence:
        return _whole(model, decode, options)
    return _single(model, decode, options)


def _single(artifact: Artifact, decode: DecodeConfig | None, options: Options) -> Built:
    spec, voices = artifact.spec, voices_of(artifact.spec, index_limits(artifact))
    generates = isinstance(decode, Generate)
    if generates and not isinstance(voices, Voices):
        raise ConfigError(f"[decode] type = 'generate': {artifact.name}: {voices}")
    decoder = decoder_of(decode, About(spec, place_s(spec)))
    kept: list[Sequence[StateSpec]] = [decoder.states] if decoder else [_OWED] if generates else []
    spare = decoder.spare if decoder else 0
    if isinstance(voices, Voices):
        kept, spare = [*kept, token_states(len(voices))], max(spare, beam_slots(spec))
    collects = artifact.encoder.spec.inputs if generates and artifact.encoder else ()
    arena = Arena([spec], options.max_streams, kept, spare, collects=collects)
    stage = _stage(artifact, arena.stages[0], options)
    generator = Generator(stage, arena.kept[-1], voices) if isinstance(voices, Voices) else voices
    reader = _reader(artifact, options) if artifact.encoder else None
    if isinstance(decode, Generate) and isinstance(generator, Generator):
        return Built(arena, _texts(artifact, decode, generator, reader, arena.kept[0], options), generator, reader)
    decoded = Decoded(decoder, arena.kept[0], stage) if decoder else None
    return Built(arena, Single(stage, decoded, reader), generator, reader)


def _texts(
    artifact: Artifact, decode: Generate, generator: Generator, reader: "Reader | None", kept: Section, options: Options
) -> Executor:
    texts = Texts(decode, artifact.spec, generator)
    if reader is None:
        return Prompted(artifact.spec, texts, kept)
    collected = Collected(reader.whole, options.max_streams, options.max_frames)
    return Translating(source_spec(artifact), reader, texts, collected)


def _whole(artifact: Artifact, decode: DecodeConfig | None, options: Options) -> Built:
    from .sequences import Sequences  # brings ONNX Runtime along

    Sequences.check_backend(artifact, options.backend)
    spec = artifact.spec
    why = voices_of(spec, {})
    assert not isinstance(why, Voices)  # it has none
    if isinstance(decode, Generate):
        raise ConfigError(f"[decode] type = 'generate': {artifact.name}: {why}")
    decoder = decoder_of(decode, About(spec, place_s(spec)))
    kept, spare = ([decoder.states], decoder.spare) if decoder else ([], 0)
    arena = Arena([spec], options.max_streams, kept, spare, collects=spec.inputs)
    limits = (options.max_streams, options.max_frames)
    sequences = Sequences(artifact, options.threads, options.providers, options.max_batch, limits)
    elsewhere = Backends.elsewhere(sequences.backend.name, sequences.backend.limits)
    stage = Stage(artifact, arena.stages[0], elsewhere)
    return Built(arena, Whole(stage, sequences, Decoded(decoder, arena.kept[0], stage) if decoder else None), why)


def _chain(chain: Linked, decode: DecodeConfig | None, options: Options) -> Built:
    links, last = chain.links, chain.links[-1].artifact.spec
    if isinstance(decode, Generate):
        raise ConfigError("[decode] type = 'generate': a chain of stages does not generate; give one model")
    rate = chain.spec.sample_rate_hz
    decoder = decoder_of(decode, About(last, None if rate is None else 1 / rate, in_chain=True))
    kept: list[Sequence[StateSpec]] = [decoder.states] if decoder else []
    gated = next((link for link in links if link.gate), None)
    by = held = 0
    if gated and gated.gate:
        by = [link.name for link in links].index(gated.gate.by)
        held = _held(links, by, gated.gate)
        kept.append(gate_states(chain.spec.inputs, held))
    arena = Arena(
        [link.artifact.spec for link in links], options.max_streams, kept, decoder.spare if decoder else 0,
        [link.name for link in links],
    )  # fmt: skip
    stages = [_stage(link.artifact, section, options) for link, section in zip(links, arena.stages, strict=True)]
    nodes = [Node(s, link.source, link.picks, link.gated) for s, link in zip(stages, links, strict=True)]
    watch = None
    if gated and gated.gate:
        output, value = watched(links[by], gated.gate, gated.name)
        watch = Watch(Gating(gated.gate, chain.spec.inputs, arena.kept[-1], held), by, output, value)
    decoded = Decoded(decoder, arena.kept[0], stages[-1]) if decoder else None
    return Built(
        arena, Chain(chain.spec, _frames_of(chain, nodes), nodes, watch, decoded), "a chain of stages does not generate"
    )


def _frames_of(chain: Linked, nodes: Sequence[Node]) -> Intake:
    """Frames have to be fit for every stage that takes them; what stages give each other is not looked at, so it may not be an index."""
    limits: dict[str, int] = {}
    for node, link in zip(nodes, chain.links, strict=True):
        for own, limit in node.stage.backends.limits.items():
            if node.source != FRAMES:
                raise ConfigError(
                    f"stage {link.name!r}: input '{own}' is an index into a table, which no output of a stage may be"
                )
            place = [t.name for t in link.artifact.spec.inputs].index(own)
            name = chain.spec.inputs[place].name
            limits[name] = min(limit, limits.get(name, limit))
    return Intake(chain.spec, limits)


def _held(links: Sequence[Link], by: int, gate: Gate) -> int:
    """Frames that a gate may still let pass when it opens: from the first that it may pass to the one that opens it. by: the stage that it looks at."""
    path = path_to(by, [link.artifact.spec for link in links], [link.source for link in links])
    period = int(np.prod([spec.outputs_per_step * spec.frames_per_step for spec in path]))
    outputs = np.arange(gate.min_on - 1, gate.min_on + min(period, 1 << 20))
    lag = known_frames(path, outputs) - answered_frames(path, outputs - gate.min_on + 1)
    return int(lag.max()) + gate.before + 1


def _stage(artifact: Artifact, section: Section, options: Options) -> Stage:
    backends = choose_backends(
        artifact, section, options.backend, options.providers, options.threads, options.max_batch
    )
    return Stage(artifact, section, backends)


def _reader(artifact: Artifact, options: Options) -> "Reader":
    from .reading import Reader  # brings ONNX Runtime along

    return Reader(artifact, options.threads, options.providers, options.max_batch)


def place_s(spec: StepSpec) -> float | None:
    """Seconds from an output of a stream to its next."""
    if spec.sample_rate_hz is None:
        return None
    return spec.frames_per_step / (spec.outputs_per_step * spec.sample_rate_hz)
