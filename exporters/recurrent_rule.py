"""LSTM, GRU and RNN: the state of the layer becomes a state of the step graph."""

from collections.abc import Sequence

import numpy as np
import onnx

from .step_graph import StepGraph
from .timing import aligned, hold
from .tracked import BATCH, FEATURE, TIME, Final, Frames, Known, Node, Tensor, uniform

_NAMES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
LAYER_KEY = "undertow.layer"


def recurrent(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The layer over the step's frames, from the state inputs `<layer>.h` (and `<layer>.c`) to `<layer>.h_next`.

    While frames come late, the states stay what they were at the start until the first of them is there.
    """
    layer = next((p.value for p in node.proto.metadata_props if p.key == LAYER_KEY), node.proto.name or node.hint)
    x = aligned(step, _checked(node, layer))
    states = ("h", "c") if node.op == "LSTM" else ("h",)
    names = [step.state(f"{layer}.{s}", _initial(node, 5 + i)) for i, s in enumerate(states)]
    lead, many = step.ints(0), x.clock.per_step > 1
    inputs = [x.name] if many else step.emit("Unsqueeze", [x.name, lead], f"{layer}.x")
    inputs += [_weight(node, step, layer, i) for i in range(1, 4)] + [""]
    inputs += [step.emit("Unsqueeze", [name, lead], f"{name}.in")[0] for name in names]
    inputs += [_weight(node, step, layer, 7)] if node.input(7) is not None else []
    kept = {
        a.name: onnx.helper.get_attribute_value(a)
        for a in node.proto.attribute
        if a.name not in ("layout", "direction")
    }
    outputs = (f"{layer}.y" if many else "", *(f"{name}.out" for name in names))
    made = step.emit(node.op, inputs, layer, outputs, **kept)
    for name, out in zip(names, made[1:], strict=True):
        held = x.clock.delay > 0
        after = step.emit("Squeeze", [out, lead], f"{name}.new" if held else f"{name}_next")[0]
        step.set_next(name, hold(step, x.clock, name, after, 2))
    final = Final((layer,))
    y = Frames(made[0] if many else made[1], (TIME, FEATURE, BATCH, FEATURE), node.shapes[0], x.clock)
    return [y, final, final][: len(node.proto.output)]


def _checked(node: Node, layer: str) -> Frames:
    """The layer's input, where the layer can be stepped."""
    direction = node.attribute("direction", b"forward")
    if direction != b"forward":
        raise node.refuse(
            f"layer '{layer}' is {direction.decode()}: the first frame's output needs the last frame",
            "use a forward layer, this version has no bounded lookahead",
        )
    if node.attribute("layout", 0):
        raise node.refuse(f"layer '{layer}' has layout=1", "export it with layout=0 (time first)")
    if node.input(4) is not None:
        raise node.refuse(
            f"layer '{layer}' is given the sequences' lengths", "streams have no padding; leave sequence_lens out"
        )
    x = node.frames(0)
    if x.labels != (TIME, BATCH, FEATURE):
        first = {BATCH: "the batch", FEATURE: "features"}.get(x.labels[0], "the batch and time in one")
        raise node.refuse(
            f"layer '{layer}' runs along an axis that is {first}, not time",
            "check batch_first and time_axis: the layer must run over the axis that `time_axis` names",
        )
    return x


def _initial(node: Node, index: int) -> np.ndarray:
    """The state (H,) of a stream that has seen nothing."""
    given = node.input(index)
    if given is None:
        return np.zeros(int(node.attribute("hidden_size")), np.float32)
    if not isinstance(given, Known):
        raise node.refuse(
            f"its {_NAMES[index]} is computed from the frames of the sequence",
            "start from zeros or from a learned parameter",
        )
    value, _ = uniform(node, given)
    return value.reshape(value.shape[-1])


def _weight(node: Node, step: StepGraph, layer: str, index: int) -> str:
    array = node.constant(index)
    return "" if array is None else step.constant(array, f"{layer}.{_NAMES[index]}")
