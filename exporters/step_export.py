"""A `StepModule` to a step artifact: torch's graph of one step is the step graph."""

import inspect
from collections.abc import Sequence as Several
from typing import Any

import msgspec
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..engine.artifact import Artifact, StateSpec, StepSpec, TensorSpec
from ..engine.errors import ExportError
from .calling import keys, output_name
from .certifying import Truth
from .finishing import Asked, written
from .origins import origin_of
from .parity import SEEDS, lengths_for
from .recurrent import single_operators
from .report import ExportReport
from .sequences import Sequence, draws, random_sequences
from .step_graph import StepGraph, dtype_name
from .step_module import StepModule
from .stepping import Outputs
from .torch_graph import as_onnx, evaluation, explained, first_line, quiet

_PROBES = (5, 3)  # batches; the first is traced


def export_step(module: StepModule, example: Any, asked: Asked) -> ExportReport:
    """The report of the artifact that it wrote; see `undertow.export`. example: a frame of a batch."""
    if not asked.path.parent.is_dir():
        raise ExportError(f"{asked.path}: the folder does not exist; make it first")
    with evaluation(module), torch.no_grad():
        call = _StepCall(module, example)
        model = _graph(call)
        spec = msgspec.structs.replace(_spec(call, model), origin=origin_of(module))
        return written(model, spec, asked, lambda artifact: _truth(call, artifact), _notes(spec, model))


def _truth(call: "_StepCall", artifact: Artifact) -> Truth:
    """What the module gives for random sequences, frame by frame."""
    examples = {name: t.detach().cpu().numpy() for name, t in zip(call.frames, call.example, strict=True)}
    ways = draws(artifact.spec, artifact.model, examples)
    sequences = random_sequences(ways, lengths_for(artifact.spec), SEEDS)
    return Truth(f"torch {torch.__version__}", sequences, _by_torch(call, sequences))


class _StepCall(nn.Module):
    """A StepModule as a function of its frames' and states' tensors to those of its outputs and next states, all in order.

    frames, states, outputs: their names. example: of the frames. initial: of the states, one stream each.
    """

    def __init__(self, module: StepModule, example: Any):
        super().__init__()
        self.module = module
        first = next(iter(inspect.signature(module.forward).parameters))
        found, self._frame = pytree.tree_flatten_with_path(example)
        self.example = [leaf for _, leaf in found]
        named = isinstance(example, dict)
        self.frames = [".".join(keys(p) if named else [first, *keys(p)]) for p, _ in found]
        for name, leaf in zip(self.frames, self.example, strict=True):
            if not isinstance(leaf, Tensor) or leaf.dim() < 1 or not leaf.shape[0]:
                got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                raise ExportError(
                    f"input '{name}': the example has {got}, expected one frame of a batch, a tensor (B, *frame)"
                )
        if not found or len({leaf.shape[0] for leaf in self.example}) > 1:
            sizes = {n: t.shape[0] for n, t in zip(self.frames, self.example, strict=True)}
            raise ExportError(
                f"the frames have batches of {sizes}, expected at least one tensor, all of the same batch"
            )
        state, self._state = self._initial(1)
        self.states = [name for name, _ in state]
        self.initial = [tensor for _, tensor in state]
        self._check_initial()
        self.outputs = self._check_step()

    def _initial(self, batch: int) -> tuple[list[tuple[str, Tensor]], Any]:
        """The states by name, and how they nest."""
        leaves, structure = pytree.tree_flatten_with_path(self.module.init_state(batch))
        named = [(".".join(["state", *keys(p)]), leaf) for p, leaf in leaves]
        for name, leaf in named:
            if not isinstance(leaf, Tensor) or leaf.dim() < 1 or leaf.shape[0] != batch:
                got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                raise ExportError(
                    f"'{name}': init_state({batch}) gives {got}, expected a tensor of shape ({batch}, ...): a row for each stream"
                )
        return named, structure

    def _check_initial(self) -> None:
        for batch in _PROBES:
            state, structure = self._initial(batch)
            if structure != self._state:
                raise ExportError(f"init_state(1) and init_state({batch}) nest differently: {self._state}, {structure}")
            for (name, tensor), first in zip(state, self.initial, strict=True):
                same = tensor.dtype == first.dtype and tensor.shape[1:] == first.shape[1:]
                if not same or not torch.equal(tensor, first.expand_as(tensor)):
                    raise ExportError(
                        f"'{name}': init_state({batch}) gives other values, dtype or shape than init_state(1), or not the same for each stream; "
                        "a new stream must begin the same in any batch"
                    )

    def sized(self, batch: int) -> list[Tensor]:
        """Frames and states of a batch."""
        frames = [t[torch.arange(batch, device=t.device) % t.shape[0]] for t in self.example]
        return [*frames, *(t.expand(batch, *t.shape[1:]).clone() for t in self.initial)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found, after = self.step(tensors)
        return (*(leaf for _, leaf in found), *after)

    def step(self, tensors: Several[Tensor]) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        """The outputs by name, and the next states."""
        frame = pytree.tree_unflatten(list(tensors[: len(self.frames)]), self._frame)
        state = pytree.tree_unflatten(list(tensors[len(self.frames) :]), self._state)
        given = self.module(frame, state)
        if not isinstance(given, tuple) or len(given) != 2:
            raise ExportError(
                f"forward gives a {type(given).__name__}, expected the two of (out, state): what the frame gives and the next state"
            )
        after, structure = pytree.tree_flatten(given[1])
        if structure != self._state:
            raise ExportError(f"forward nests the state as {structure}, init_state as {self._state}; keep it the same")
        found = [(output_name(p), leaf) for p, leaf in pytree.tree_flatten_with_path(given[0])[0] if leaf is not None]
        taken = {*self.frames, *self.states}
        return [(f"{name}_out" if name in taken else name, leaf) for name, leaf in found], after

    def _check_step(self) -> list[str]:
        """The outputs' names, where a step keeps to the protocol."""
        outputs: list[str] = []
        for batch in _PROBES:
            tensors = self.sized(batch)
            try:
                found, after = self.step(tensors)
            except ExportError:
                raise
            except Exception as error:  # the module's own
                shapes = {n: tuple(t.shape) for n, t in zip([*self.frames, *self.states], tensors, strict=True)}
                raise ExportError(
                    f"the module fails on frames and states of shapes {shapes} ({type(error).__name__}: {first_line(error)}); "
                    "the example must be one frame of a batch, and any batch size must do"
                ) from error
            for name, old, new in zip(self.states, tensors[len(self.frames) :], after, strict=True):
                if not isinstance(new, Tensor) or (new.shape, new.dtype) != (old.shape, old.dtype):
                    got = f"{new.dtype} {tuple(new.shape)}" if isinstance(new, Tensor) else f"a {type(new).__name__}"
                    raise ExportError(
                        f"'{name}' is {old.dtype} {tuple(old.shape)} before a step and {got} after it; a state keeps its shape and dtype "
                        "(a buffer that grows must become one of fixed size)"
                    )
            if not found:
                raise ExportError("forward gives no output; return (out, state)")
            outputs = [name for name, _ in found]
            for name, leaf in found:
                if not isinstance(leaf, Tensor) or leaf.dim() < 1 or leaf.shape[0] != batch:
                    got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                    raise ExportError(
                        f"output '{name}': is {got} for a batch of {batch}, expected a tensor ({batch}, ...)"
                    )
        return outputs


def _graph(call: _StepCall) -> onnx.ModelProto:
    """torch's ONNX graph of a step of any batch, each input and output by its name."""
    batch = torch.export.Dim("batch")
    names = [*call.frames, *call.states]
    example = tuple(call.sized(_PROBES[0]))
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


def _spec(call: _StepCall, model: onnx.ModelProto) -> StepSpec:
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


def _by_torch(call: _StepCall, sequences: list[Sequence]) -> Outputs:
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
