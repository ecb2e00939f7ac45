"""The models of a chain, read and held against each other before anything is built of them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from .artifact import Artifact, StepSpec, TensorSpec, read_artifact
from .chain import FRAMES
from .chain_config import Gate, Stage
from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Link:
    """One model in its place, as `chain.Node` without what steps it."""

    name: str
    artifact: Artifact
    source: int
    picks: tuple[int, ...]
    gated: bool
    gate: Gate | None


@dataclass(frozen=True, slots=True)
class Linked:
    """A chain of models that fit each other. spec: as its users see it: the frames of the first, an answer at most with each of them."""

    links: tuple[Link, ...]
    spec: StepSpec
    fingerprint: bytes

    @property
    def name(self) -> str:
        return " > ".join(link.name for link in self.links)


def read_chain(stages: Sequence[Stage]) -> Linked:
    """Raises ArtifactError, ConfigError."""
    links: list[Link] = []
    for stage in stages:
        links.append(_linked(stage, links))
    names = [link.name for link in links]
    if not links:
        raise ConfigError("a chain has no stage; give at least one")
    unused = set(range(len(links) - 1)) - {link.source for link in links}
    unused -= {names.index(link.gate.by) for link in links if link.gate}
    if unused:
        raise ConfigError(f"stage {names[min(unused)]!r}: no later stage takes its outputs, and no gate looks at them")
    said = msgspec.json.encode(
        [(link.name, link.artifact.fingerprint.hex(), link.source, link.picks, link.gate) for link in links]
    )
    return Linked(tuple(links), _outside(links), hashlib.blake2b(said, digest_size=16).digest())


def _outside(links: Sequence[Link]) -> StepSpec:
    first, last = links[0].artifact.spec, links[-1].artifact.spec
    rates = [k.artifact.spec.sample_rate_hz for k in links if k.source == FRAMES and k.artifact.spec.sample_rate_hz]
    return StepSpec(first.inputs, last.outputs, (), sample_rate_hz=rates[0] if rates else None, labels=last.labels)


def _linked(stage: Stage, before: Sequence[Link]) -> Link:
    artifact = stage.model if isinstance(stage.model, Artifact) else read_artifact(stage.model)
    name = stage.name or (artifact.path.stem if artifact.path else f"stage{len(before)}")
    names, spec = [link.name for link in before], artifact.spec
    if name in names or name == "frames" or "." in name:
        raise ConfigError(
            f"stage {name!r}: expected a name of its own without a dot, that is not 'frames'; the stages before are {names}"
        )
    if spec.sequence or artifact.encoder is not None:
        kind = "maps whole sequences" if spec.sequence else "has an encoder"
        raise ConfigError(
            f"stage {name!r}: {artifact.name} {kind}, which no stage of a chain does; a chain is of step graphs"
        )
    source, picks = _source(name, stage.input, spec, before)
    gate = _gate(name, stage.gate)
    if gate is not None:
        if source != FRAMES:
            raise ConfigError(
                f"stage {name!r}: has a gate and takes {stage.input!r}; give the gate to the stage that takes 'frames'"
            )
        if any(link.gate for link in before):
            raise ConfigError(f"stage {name!r}: a stage before it has a gate already; a chain has one")
        if gate.by not in names:
            raise ConfigError(f"stage {name!r}: gate.by = {gate.by!r} is no stage before it, which are {names}")
    gated = gate is not None or (source != FRAMES and before[source].gated)
    if source == FRAMES and before:
        _same_frames(name, spec, before[0])
    return Link(name, artifact, source, picks, gated, gate)


def _gate(name: str, given: Gate | Mapping[str, Any] | None) -> Gate | None:
    """The gate, its keys and values checked."""
    try:
        keys = msgspec.structs.asdict(given) if isinstance(given, Gate) else None if given is None else dict(given)
        return msgspec.convert(keys, Gate | None)
    except msgspec.ValidationError as error:
        raise ConfigError(f"stage {name!r}: gate: {error}") from error


def _source(
    name: str, given: str | Mapping[str, str], spec: StepSpec, before: Sequence[Link]
) -> tuple[int, tuple[int, ...]]:
    """Which node feeds a stage, and with which of its outputs each input."""
    if given == "frames":
        return FRAMES, ()
    each = _each(name, given, spec, before)
    feeders = {feeder for feeder, _ in each.values()}
    names = [link.name for link in before]
    if len(feeders) > 1:
        raise ConfigError(
            f"stage {name!r}: its inputs take outputs of {sorted(feeders)}, expected one stage for all of them"
        )
    feeder = feeders.pop()
    if feeder not in names:
        raise ConfigError(
            f"stage {name!r}: input = {feeder!r} is neither 'frames' nor a stage before it, which are {names}"
        )
    outputs = before[names.index(feeder)].artifact.spec.outputs
    return names.index(feeder), tuple(_pick(name, t, feeder, each[t.name][1], outputs) for t in spec.inputs)


def _each(
    name: str, given: str | Mapping[str, str], spec: StepSpec, before: Sequence[Link]
) -> dict[str, tuple[str, str | None]]:
    """By input the stage and the output that it takes, None: its only one, or the one of the input's name."""
    inputs = [t.name for t in spec.inputs]
    if isinstance(given, str):
        given = dict.fromkeys(inputs, given)
    if set(given) != set(inputs):
        raise ConfigError(f"stage {name!r}: input is for {sorted(given)}, the model has inputs {inputs}")
    found = {}
    for key, value in given.items():
        feeder, dot, output = value.partition(".")
        found[key] = (feeder, output if dot else None)
    return found


def _pick(name: str, tensor: TensorSpec, feeder: str, output: str | None, outputs: Sequence[TensorSpec]) -> int:
    names = [t.name for t in outputs]
    if output is None and len(names) > 1:
        output = tensor.name
    if output is not None and output not in names:
        raise ConfigError(
            f"stage {name!r}: input '{tensor.name}' takes '{feeder}.{output}', stage {feeder!r} has outputs {names}"
        )
    place = names.index(output) if output is not None else 0
    found = outputs[place]
    if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
        raise ConfigError(
            f"stage {name!r}: input '{tensor.name}' is {tensor.dtype} {tensor.shape}, '{feeder}.{found.name}' is {found.dtype} {found.shape}; "
            "expected the same"
        )
    return place


def _same_frames(name: str, spec: StepSpec, first: Link) -> None:
    have, want = ([(t.shape, t.dtype) for t in s.inputs] for s in (spec, first.artifact.spec))
    if have != want:
        raise ConfigError(f"stage {name!r}: takes frames {have}, stage {first.name!r} takes {want}; expected the same")


def watched(link: Link, gate: Gate, name: str) -> tuple[int, int]:
    """The output that a gate looks at, and which of its values. link: the stage that has it; name: of the stage with the gate. Raises ConfigError."""
    spec, where = link.artifact.spec, f"stage {name!r}: gate"
    names = [t.name for t in spec.outputs]
    if (gate.output is None and len(names) > 1) or (gate.output is not None and gate.output not in names):
        raise ConfigError(
            f"{where}.output = {gate.output!r}: stage {link.name!r} has outputs {names}, expected one of them"
        )
    output = 0 if gate.output is None else names.index(gate.output)
    tensor, value = spec.outputs[output], gate.value
    size, labels = math.prod(tensor.shape), list(spec.labels or ())
    if tensor.dtype != "float32":
        raise ConfigError(f"{where}: output '{tensor.name}' of stage {link.name!r} is {tensor.dtype}, expected float32")
    if gate.off is not None and gate.off > gate.on:
        raise ConfigError(f"{where}.off = {gate.off} and on = {gate.on}: expected off at or below on")
    if isinstance(value, str):
        if value not in labels or len(labels) != size:
            raise ConfigError(f"{where}.value = {value!r} is no label of stage {link.name!r}, which has {labels}")
        value = labels.index(value)
    if value is None and size != 1:
        raise ConfigError(
            f"{where}: output '{tensor.name}' has shape {tensor.shape}; say which of its values with value"
        )
    if not 0 <= (value or 0) < size:
        raise ConfigError(f"{where}.value = {value}: output '{tensor.name}' has {size} values")
    return output, value or 0
