"""A `StepModule` to a step artifact: torch's graph of one step is the step graph."""

from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from ..engine.artifact import Artifact, StateSpec, StepSpec, TensorSpec
from ..engine.errors import ExportError
from .certifying import Truth
from .finishing import Asked, written
from .origins import origin_of
from .parity import SEEDS, lengths_for
from .recurrent import single_operators
from .report import ExportReport
from .sequences import Sequence, draws, random_sequences
from .step_call import PROBES, StepCall
from .step_graph import StepGraph, dtype_name
from .step_module import StepModule
from .stepping import Outputs
from .torch_graph import as_onnx, evaluation, explained, quiet


def export_step(module: StepModule, example: Any, asked: Asked) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export`. example: a frame of a batch."""
    if not asked.path.parent.is_dir():
        raise ExportError(f"{asked.path}: the folder does not exist; make it first")
    with evaluation(module), torch.no_grad():
        call = StepCall(module, example)
        model = step_graph_of(call)
        spec = msgspec.structs.replace(spec_of(call, model), origin=origin_of(module))
        return written(model, spec, asked, lambda artifact: _truth(call, artifact), _notes(spec, model))


def _truth(call: StepCall, artifact: Artifact) -> Truth:
    """What the module gives for random sequences, frame by frame."""
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.frames, call.example, strict=True)}
    ways = draws(artifact.spec, artifact.model, examples)
    sequences = random_sequences(ways, lengths_for(artifact.spec), SEEDS)
    return Truth(f"torch {torch.__version__}", sequences, _by_torch(call, sequences))


def step_graph_of(call: StepCall) -> onnx.ModelProto:
    """torch's ONNX graph of a step of any batch, each input and output by its name."""
    batch = torch.export.Dim("batch")
    names = [*call.frames, *call.states]
    example = tuple(call.sized(PROBES[0]))
    with single_operators(call.module), quiet():
        try:
            shapes = (tuple({0: batch} for _ in names),)
            program = torch.export.export(call, example, dynamic_shapes=shapes, strict=False)
        except ExportError:
            raise
        except Exception as error:  # torch.export raises errors of many unrelated classes
            raise ExportError(explained(error)) from error
        model = as_onnx(program, names, None)
    _named(model.graph, [*call.outputs, *(f"{name}_next" for name in call.states)], set(names))
    found = call(*example)
    for value, tensor in zip(model.graph.output, found, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(tensor.detach().cpu().numpy().dtype)
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["B", *tensor.shape[1:]]))
    for value, tensor in zip(model.graph.input, example, strict=True):
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, ["B", *tensor.shape[1:]]))
    del model.graph.value_info[:]
    model.producer_name = "undertow"
    return model


def _named(graph: onnx.GraphProto, wanted: list[str], inputs: set[str]) -> None:
    """Calls the outputs so, each a tensor of its own: one that is an input, a constant or an output already is copied."""
    made = {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in [*node.input, *node.output]} | inputs
    used |= {t.name for t in graph.initializer}
    clash = {name: f"{name}#inner" for name in wanted if name in used}
    _rename(graph, clash)
    done: dict[str, str] = {}
    for value, name in zip(graph.output, wanted, strict=True):
        source = clash.get(value.name, value.name)
        if (source in made or source in clash.values()) and source not in done:
            done[source] = name
            value.name = name
            continue
        graph.node.append(helper.make_node("Identity", [source], [name], name))
        value.name = name
    _rename(graph, done)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(n, n) for n in ends]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def spec_of(call: StepCall, model: onnx.ModelProto) -> StepSpec:
    written = StepGraph()
    for name, tensor in zip(call.states, call.initial, strict=True):
        written.state(name, tensor[0].detach().cpu().numpy())
    states = tuple(StateSpec(s.name, f"{s.name}_next", s.shape, s.dtype, s.initial) for s in written.states)
    return StepSpec(
        inputs=tuple(map(_tensor, list(model.graph.input)[: len(call.frames)])),
        outputs=tuple(map(_tensor, list(model.graph.output)[: len(call.outputs)])),
        states=states,
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    dtype = dtype_name(helper.tensor_dtype_to_np_dtype(kind.elem_type or TensorProto.FLOAT))
    return TensorSpec(value.name, tuple(d.dim_value for d in kind.shape.dim[1:]), dtype)


def _by_torch(call: StepCall, sequences: list[Sequence]) -> Outputs:
    """What the module itself gives for each sequence, alone, step by step."""
    results = []
    for sequence in sequences:
        state = [t.clone() for t in call.initial]
        outs: list[dict[str, np.ndarray]] = []
        for t in range(len(next(iter(sequence.values())))):
            frames = [
                torch.from_numpy(np.ascontiguousarray(sequence[name][t][None])).to(example.device)
                for name, example in zip(call.frames, call.example, strict=True)
            ]
            found, state = call.step([*frames, *state])
            outs.append({name: leaf[0].cpu().numpy() for name, leaf in found})
        results.append({name: np.stack([out[name] for out in outs]) for name in call.outputs})
    return results


def _notes(spec: StepSpec, model: onnx.ModelProto) -> tuple[str, ...]:
    made = {node.output[0]: node for node in model.graph.node if node.op_type == "Identity"}
    kept = []
    for s in spec.states:
        name = s.next
        while name in made:
            name = made[name].input[0]
        kept += [s.name] if name == s.name else []
    return tuple(
        f"'{name}' never changes: forward gives it on as it was; make it a buffer of the module" for name in kept
    )
