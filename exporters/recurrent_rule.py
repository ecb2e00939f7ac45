"""LSTM, GRU and RNN: the state of the layer becomes a state of the step graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from .clocks import Clock
from .step_graph import StepGraph
from .timing import aligned, batch_first, delayed, first_index, history, hold, length, steps
from .tracked import BATCH, FEATURE, TIME, Final, Frames, Known, Node, Tensor, uniform

_NAMES = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
LAYER_KEY, LOOKAHEAD_KEY = "undertow.layer", "undertow.lookahead"


def recurrent(node: Node, step: StepGraph) -> Sequence[Tensor]:
    """The layer over the step's frames, from the state inputs `<layer>.h` (and `<layer>.c`) to `<layer>.h_next`.

    While frames come late, the states stay what they were at the start until the first of them is there. A reverse layer has a
    lookahead: its output at frame t is that of the layer run from frame min(t + lookahead, T - 1) back to t.
    """
    layer = _property(node, LAYER_KEY) or node.proto.name or node.hint
    x, direction = _checked(node, step, layer), node.attribute("direction", b"forward")
    ahead = 0 if direction == b"forward" else _lookahead(node, step)
    x = aligned(step, x)
    if direction == b"forward":
        made = _forward(node, step, layer, x)
    else:
        late = delayed(step, x, x.clock.delay + ahead + -ahead % x.clock.per_step)
        behind = _reverse(node, step, layer, x, late.clock, ahead)
        ahead_of = [_forward(node, step, layer, late)] if direction == b"bidirectional" else []
        made = step.emit("Concat", [*ahead_of, behind], f"{layer}.both", axis=1 if x.clock.per_step > 1 else 0)[0]
        x = late
    final = Final((layer,))
    y = Frames(made, (TIME, FEATURE, BATCH, FEATURE), node.shapes[0], x.clock)
    return [y, final, final][: len(node.proto.output)]


def _forward(node: Node, step: StepGraph, layer: str, x: Frames) -> str:
    """Its output: (1, B, H), or (n, 1, B, H) where a step has n > 1 frames."""
    states = ("h", "c") if node.op == "LSTM" else ("h",)
    names = [step.state(f"{layer}.{s}", _initial(node, 5 + i, 0)) for i, s in enumerate(states)]
    lead, many = step.ints(0), x.clock.per_step > 1
    inputs = [x.name] if many else [*step.emit("Unsqueeze", [x.name, lead], f"{layer}.x")]
    inputs += [_weight(node, step, layer, i, 0) for i in range(1, 4)] + [""]
    inputs += [step.emit("Unsqueeze", [name, lead], f"{name}.in")[0] for name in names]
    inputs += [_weight(node, step, layer, 7, 0)] if node.input(7) is not None else []
    outputs = (f"{layer}.y" if many else "", *(f"{name}.out" for name in names))
    made = step.emit(node.op, inputs, layer, outputs, **_attributes(node, 0))
    for name, out in zip(names, made[1:], strict=True):
        held = x.clock.delay > 0
        after = step.emit("Squeeze", [out, lead], f"{name}.new" if held else f"{name}_next")[0]
        step.set_next(name, hold(step, x.clock, name, after, 2))
    return made[0] if many else made[1]


def _reverse(node: Node, step: StepGraph, layer: str, x: Frames, clock: Clock, ahead: int) -> str:
    """The reverse direction's output for the elements of `clock`, as `_forward` gives it: from each, `ahead` frames on and back again."""
    which, lead = (1 if node.attribute("direction") == b"bidirectional" else 0), step.ints(0)
    n, late = x.clock.per_step, clock.delay - x.clock.delay
    window = history(step, batch_first(step, x), late, np.array(0.0), f"{layer}.ahead")
    at, letters = clock.per_step, ("h", "c") if node.op == "LSTM" else ("h",)
    weights = [_weight(node, step, layer, i, which) for i in range(1, 4)]
    peep = [_weight(node, step, layer, 7, which)] if node.input(7) is not None else []
    frames = step.emit("Transpose", [window], f"{layer}.ahead.frames", perm=[1, 0, 2])[0]
    slices = [
        step.emit("Slice", [frames, step.ints(j), step.ints(j + 1), lead], f"{layer}.ahead.{j}")[0]
        for j in range(late + n)
    ]
    real = _real(step, clock, late + n, layer)
    results = []
    for e in range(at):
        state = [_first(node, step, layer, 5 + i, which) for i in range(len(letters))]
        for j in range(min(e + ahead, late + n - 1), e - 1, -1):
            outputs = ("", *(f"{layer}.back.{letter}" for letter in letters))
            new = step.emit(
                node.op, [slices[j], *weights, "", *state, *peep], f"{layer}.back", outputs, **_attributes(node, which)
            )
            state = [
                step.emit("Where", [real[j], a, b], f"{layer}.back.kept")[0]
                for a, b in zip(new[1:], state, strict=True)
            ]
        results.append(state[0])
    if n == 1:
        return results[0]
    parts = [step.emit("Unsqueeze", [r, lead], f"{layer}.back.frame")[0] for r in results]
    return step.emit("Concat", parts, f"{layer}.back.frames", axis=0)[0]


def _real(step: StepGraph, clock: Clock, count: int, layer: str) -> list[str]:
    """For each element of the window, from the first of the block on, bool (1, B, 1): whether the sequence has it."""
    first, end = first_index(step, clock), length(step, clock)
    found = []
    for j in range(count):
        at = step.emit("Add", [first, step.constant(np.array(j, np.int64), "number")], f"{layer}.ahead.index")[0]
        there = step.emit("Less", [at, end], f"{layer}.ahead.there")[0]
        found.append(step.emit("Unsqueeze", [there, step.ints(0, 2)], f"{layer}.ahead.real")[0])
    return found


def _first(node: Node, step: StepGraph, layer: str, index: int, which: int) -> str:
    """The state (1, B, H) from which a reverse layer begins."""
    value = step.constant(_initial(node, index, which)[None, None], f"{layer}.back.{_NAMES[index]}")
    batch = step.emit(
        "Unsqueeze",
        [step.emit("Mul", [steps(step), step.constant(np.array(0, np.int64), "number")], "none")[0], step.ints(0, 2)],
        "none.row",
    )[0]
    return step.emit("Add", [value, step.emit("Cast", [batch], "none.float", to=1)[0]], f"{layer}.back.start")[0]


def _property(node: Node, key: str) -> str | None:
    return next((p.value for p in node.proto.metadata_props if p.key == key), None)


def one_direction(attributes: Mapping[str, Any], which: int) -> dict[str, Any]:
    """A layer's attributes for its first (0) or second (1) direction alone, without the direction itself."""
    kept = {name: value for name, value in attributes.items() if name != "direction" and not name.startswith("_")}
    if attributes.get("direction") == b"bidirectional":
        for name in ("activations", "activation_alpha", "activation_beta"):
            if name in kept:
                half = len(kept[name]) // 2
                kept[name] = kept[name][which * half : (which + 1) * half]
    return kept


def _attributes(node: Node, which: int) -> dict[str, Any]:
    """The node's attributes for one direction."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.proto.attribute if a.name != "layout"}
    return one_direction(found, which)


def _lookahead(node: Node, step: StepGraph) -> int:
    own = _property(node, LOOKAHEAD_KEY)
    step.used.update(() if own is not None else ("lookahead",))
    return int(own) if own is not None else step.bounds.lookahead


def _checked(node: Node, step: StepGraph, layer: str) -> Frames:
    """The layer's input, where the layer can be stepped."""
    direction = node.attribute("direction", b"forward")
    if direction != b"forward" and _lookahead(node, step) == 0:
        raise node.refuse(
            f"layer '{layer}' is {direction.decode()}: the first frame's output needs the last frame",
            "use a forward layer, or lookahead=R (each output sees R frames more, and comes R frames late; the difference is measured), "
            "or lookahead='all' (a stream's outputs come at its end)",
        )
    x = node.frames(0)
    if node.attribute("layout", 0):
        raise node.refuse(f"layer '{layer}' has layout=1", "export it with layout=0 (time first)")
    if x.labels != (TIME, BATCH, FEATURE):
        first = {BATCH: "the batch", FEATURE: "features"}.get(x.labels[0], "the batch and time in one")
        raise node.refuse(
            f"layer '{layer}' runs along an axis that is {first}, not time",
            "check batch_first and time_axis: the layer must run over the axis that `time_axis` names",
        )
    if not _whole_lengths(node, x):
        raise node.refuse(
            f"layer '{layer}' is given sequences' lengths that are not those of the frames",
            "streams have no padding; leave sequence_lens out",
        )
    return x


def _whole_lengths(node: Node, x: Frames) -> bool:
    """Whether sequence_lens are left out, or the length of all frames for every stream."""
    given = node.input(4)
    if not isinstance(given, Known):
        return given is None
    return all((lens == shape[x.time]).all() for lens, shape in zip(given.values, x.shapes, strict=True))


def _initial(node: Node, index: int, which: int) -> np.ndarray:
    """The state (H,) of a stream that has seen nothing, of one direction."""
    given = node.input(index)
    if given is None:
        return np.zeros(int(node.attribute("hidden_size")), np.float32)
    if not isinstance(given, Known):
        raise node.refuse(
            f"its {_NAMES[index]} is computed from the frames of the sequence",
            "start from zeros or from a learned parameter",
        )
    value, _ = uniform(node, given)
    return value.reshape(-1, value.shape[-1])[which]


def _weight(node: Node, step: StepGraph, layer: str, index: int, which: int) -> str:
    """(1, ...), of one direction."""
    array = node.constant(index)
    name = f"{layer}.{'back.' if which else ''}{_NAMES[index]}"
    return "" if array is None else step.constant(array[which : which + 1], name)
