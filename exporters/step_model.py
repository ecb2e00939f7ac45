"""The finished step graph as an ONNX model, with its spec."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..engine.artifact import StepSpec, TensorSpec
from .bands import Band
from .clocks import plain
from .step_graph import StepGraph, dtype_name
from .timing import transposed
from .tracked import BATCH, FEATURE, Frames


@dataclass(frozen=True, slots=True)
class Step:
    """A step graph with what it means. time_axes: where each output has its time axis in the whole-sequence graph; below zero
    where it has none, and is a value of all frames so far. running: some output is, or depends on one.

    finals: outputs of the whole-sequence graph that are states after the last frame, and so no outputs of a step.
    windows: attention scores that were held to the window that was asked for. lookahead: of reverse layers without one of their own.
    """

    model: onnx.ModelProto
    spec: StepSpec
    time_axes: dict[str, int]
    running: bool
    sources: dict[str, str]
    finals: tuple[str, ...]
    windows: dict[str, Band]
    lookahead: int


def assembled(
    model: onnx.ModelProto, step: StepGraph, inputs: dict[str, Frames], outputs: dict[str, tuple[str, Frames]]
) -> Step:
    """The step graph as a model, with its spec. outputs: by their names in the step graph, with their old names."""
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]}
    clock, frames = next(iter(outputs.values()))[1].clock, step.frames_per_step
    clock = replace(clock, lengths=()) if plain(clock, frames) else clock
    ordered = {name: _time_second(step, name, value) for name, (_, value) in outputs.items()}
    _name_outputs(step, {name: value.name for name, value in ordered.items()})
    step.prune(list(outputs))
    if step.valid_input or not step.endless:
        step.valid()
    given = [(v.name, types[name], _frame_shape(v)) for name, v in inputs.items()]
    made = [(name, types[outputs[name][0]], _frame_shape(value)) for name, value in ordered.items()]
    states = [(s, helper.np_dtype_to_tensor_dtype(np.dtype(s.dtype))) for s in step.states]
    valid = [(step.valid_input, TensorProto.INT64, [])] if step.valid_input else []
    graph = helper.make_graph(
        step.nodes,
        "step",
        [*_values(given, frames), *_values([(s.name, t, list(s.shape)) for s, t in states]), *_values(valid)],
        [*_values(made, clock.per_step), *_values([(s.next, t, list(s.shape)) for s, t in states])],
        step.initializers(),
    )
    opsets = [o for o in model.opset_import if o.domain in ("", "ai.onnx")]
    result = helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version, producer_name="undertow")
    onnx.checker.check_model(result, full_check=True)
    spec = StepSpec(
        inputs=_specs(given),
        outputs=_specs(made),
        states=tuple(step.states),
        delay=clock.delay * frames // clock.per_step,
        frames_per_step=frames,
        outputs_per_step=clock.per_step,
        lengths=clock.lengths,
        valid_input=step.valid_input,
    )
    axes = {name: v.time if not v.running or v.shapes[0] != v.shapes[2] else -1 for name, (_, v) in outputs.items()}
    return Step(
        result,
        spec,
        axes,
        any(v.running for _, v in outputs.values()),
        {n: old for n, (old, _) in outputs.items()},
        (),
        {},
        0,
    )


def _time_second(step: StepGraph, name: str, x: Frames) -> Frames:
    """An output with its batch axis in front and time after it, as the artifact has it."""
    if x.clock.per_step == 1:
        return x
    order = [x.labels.index(BATCH), x.time]
    return transposed(step, x, order + [i for i in range(len(x.labels)) if i not in order], f"{name}.turned")


def _frame_shape(x: Frames) -> list[int]:
    """One frame's features."""
    return [size for size, label in zip(x.shapes[0], x.labels, strict=True) if label == FEATURE]


def _values(tensors: Sequence[tuple[str, int, list[int]]], count: int = 1) -> list[onnx.ValueInfoProto]:
    """count: how many of each a step has."""
    steps = [count] if count > 1 else []
    return [helper.make_tensor_value_info(name, kind, ["B", *steps, *shape]) for name, kind, shape in tensors]


def _specs(tensors: list[tuple[str, int, list[int]]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(n, tuple(shape), dtype_name(helper.tensor_dtype_to_np_dtype(kind))) for n, kind, shape in tensors
    )


def _name_outputs(step: StepGraph, wanted: dict[str, str]) -> None:
    """Calls each output's tensor by the output's name; one that has another use at the boundary is copied."""
    fixed = {s.name for s in step.states} | {s.next for s in step.states}
    made = {name for node in step.nodes for name in node.output}
    for name, tensor in wanted.items():
        if tensor in fixed or tensor not in made:
            step.nodes.append(helper.make_node("Identity", [tensor], [name], name))
            continue
        for node in step.nodes:
            for names in (node.input, node.output):
                names[:] = [name if n == tensor else n for n in names]
            node.name = name if node.name == tensor else node.name
        if tensor in step.matrices:
            step.matrices.add(name)
        fixed.add(name)
        wanted.update({n: name for n, t in wanted.items() if t == tensor and n != name})
