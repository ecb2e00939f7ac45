"""An encoder and its decoder to one artifact: the encoder's graph of whole sources, the decoder's step graph, what fills what."""

import inspect
import time
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import onnx
import torch
from torch import nn

from ..engine.artifact import Artifact, EncoderSpec, StateSpec, StepSpec, write_artifact
from ..engine.errors import ExportError
from .calling import Call
from .certifying import made
from .decoder_module import DecoderModule
from .finishing import Asked, check_labels, checked
from .origins import origin_of
from .report import ExportReport
from .seq2seq_certificate import certified_pair
from .seq2seq_modules import LENGTH, Beginning, Begun, DecoderStep, begun_by
from .seq2seq_torch import Torch
from .step_call import StepCall
from .step_export import spec_of, step_graph_of
from .step_graph import Bounds
from .torch_export import reference_of, stepped
from .torch_graph import evaluation, whole_sequence


@dataclass(frozen=True, slots=True)
class Room:
    """max_memory: positions. start, stop: tokens."""

    max_memory: int
    start: int | None
    stop: int | None


def export(
    encoder: nn.Module, decoder: DecoderModule, source: Any, token: Any, room: Room, asked: Asked
) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export_seq2seq`."""
    _check(encoder, decoder, room, asked)
    both = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    with evaluation(both), torch.no_grad():
        call, beginning = Call(encoder, source, 1), Beginning(encoder, decoder)
        call.module = beginning
        beginning.begun = begun = begun_by(call, beginning)
        whole, small = _encoder(call, both, asked)
        asked.say("the decoder's step graph")
        token = torch.zeros(2, dtype=torch.int64, device=_device(decoder)) if token is None else token
        first = next(iter(inspect.signature(decoder.forward).parameters))
        step = StepCall(DecoderStep(decoder, begun, room.max_memory), token, first, ())
        model, spec = _step(step, begun, room, asked)
        spec = msgspec.structs.replace(spec, origin=origin_of(both), labels=asked.labels)
        check_labels(spec)
        artifact = made(model, spec, asked.path, whole)
        artifact = certified_pair(artifact, small, Torch(call, beginning, step, begun), asked)
    return _written(artifact, asked)


def _check(encoder: Any, decoder: Any, room: Room, asked: Asked) -> None:
    if not isinstance(encoder, nn.Module) or isinstance(encoder, torch.jit.ScriptModule):
        raise ExportError(f"encoder is a {type(encoder).__name__}, expected a torch.nn.Module (not a scripted one)")
    if not isinstance(decoder, DecoderModule):
        raise ExportError(
            f"decoder is a {type(decoder).__name__}, expected a subclass of undertow.DecoderModule: a step that is given memory and state"
        )
    if not isinstance(room.max_memory, int) or room.max_memory < 1:
        raise ExportError(f"max_memory is {room.max_memory!r}, expected a number of positions, 1 or more")
    asked.check()


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _encoder(call: Call, both: nn.Module, asked: Asked) -> tuple[Artifact, Artifact | None]:
    """The encoder's own artifact with its certificate; and with small weights, where they are asked for."""
    bounds = Bounds(whole=True)
    asked.say("tracing the encoder")
    whole = whole_sequence(call, ahead=True)
    step = stepped(call, whole, asked, bounds)
    reference, origin = reference_of(call, whole, step, bounds), origin_of(both)
    wishes = [replace(asked, labels=None, quantize=kind) for kind in dict.fromkeys((None, asked.quantize))]
    found = [checked(step, wish, origin, reference) for wish in wishes]
    return found[0], found[1] if len(found) > 1 else None


def _step(call: StepCall, begun: Begun, room: Room, asked: Asked) -> tuple[onnx.ModelProto, StepSpec]:
    """The decoder's step graph, whose memory goes through as it is, and what it means."""
    model = step_graph_of(call)
    constant = {leaf.name for leaf in begun.leaves if leaf.constant} | {LENGTH}
    for name in constant:
        _hand_on(model.graph, name)
    spec = spec_of(call, model)
    states = tuple(_as_it_is(s) if s.name in constant else s for s in spec.states)
    pairs = {
        kept: tuple((leaf.name, leaf.name) for leaf in begun.leaves if leaf.positions is kept) for kept in (True, False)
    }
    encoder = EncoderSpec(room.max_memory, pairs[True], pairs[False], LENGTH, room.start, room.stop)
    return model, msgspec.structs.replace(spec, states=states, encoder=encoder, sample_rate_hz=asked.sample_rate_hz)


def _hand_on(graph: onnx.GraphProto, name: str) -> None:
    """The state's next value is the input itself, without a copy."""
    value = next(o for o in graph.output if o.name == f"{name}_next")
    at = next(i for i, n in enumerate(graph.node) if value.name in n.output)
    if graph.node[at].op_type != "Identity" or graph.node[at].input[0] != name:
        raise ExportError(
            f"'{name}': memory must not change, and torch's graph computes it anew; please report this with the module"
        )
    del graph.node[at]
    value.name = name


def _as_it_is(state: StateSpec) -> StateSpec:
    return msgspec.structs.replace(state, next=state.name)


def _written(artifact: Artifact, asked: Asked) -> ExportReport:
    write_artifact(asked.path, artifact.model, artifact.spec, artifact.encoder)
    size, seconds = asked.path.stat().st_size, time.monotonic() - asked.began
    return ExportReport(asked.path, artifact.spec, artifact.spec.certificate, (), size, seconds)
