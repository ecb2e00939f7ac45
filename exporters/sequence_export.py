"""A whole-sequence graph as it is, for `lookahead="all"`: the engine collects a stream's frames and runs it at the end.

Where the graph mixes time in recurrent layers alone, each is given the sequences' lengths, so ragged streams go through it padded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from ..engine.artifact import Stage, StepSpec, TensorSpec, length_of
from ..engine.errors import ExportError
from .recurrent_rule import LOOKAHEAD_KEY
from .sequence_graph import bounded, framewise, give_lengths
from .step_graph import dtype_name
from .step_pass import Step
from .worlds import Feed, Worlds, plain_session, runs_empty

_TRIED = 64  # sequences of as many frames say how many outputs the graph gives
_LARGEST = 16  # factor between frames and outputs, each way
_ALWAYS_ONE: tuple[Stage, ...] = ((1, 2**20 - 1, 2**20, 0),)


@dataclass(frozen=True, slots=True)
class _Output:
    """An output of the graph: its axes of batch and of time, None where it has one row a stream; and its features."""

    name: str
    kind: int
    batch: int
    time: int | None
    shape: tuple[int, ...]


def to_sequence(
    model: onnx.ModelProto,
    feed: Callable[[int, int], Feed],
    *,
    time_axis: int,
    batch_axis: int,
    lone_name: str | None = None,
) -> Step:
    """The graph with the batch first and time second at its boundary, and what that means."""
    _check_exact(model)
    worlds = Worlds(model, feed)
    outputs, finals = _chosen([_output(v, worlds) for v in model.graph.output])
    takes_lengths = framewise(model, worlds, feed, time_axis, batch_axis, [o.name for o in outputs])
    lengths = () if takes_lengths else _lengths(model, feed, outputs, max(n for _, n in worlds.sizes))
    alone = lone_name is not None and len(outputs) == 1 < len(model.graph.output)
    names = {lone_name if alone and lone_name else o.name: o for o in outputs}
    made, inputs = bounded(
        model, worlds, {n: (o.name, o.batch, o.time) for n, o in names.items()}, time_axis, batch_axis
    )
    given = give_lengths(made) if takes_lengths else None
    onnx.checker.check_model(made, full_check=True)
    spec = StepSpec(
        inputs=inputs,
        outputs=tuple(
            TensorSpec(n, o.shape, dtype_name(helper.tensor_dtype_to_np_dtype(o.kind))) for n, o in names.items()
        ),
        states=(),
        lengths=lengths,
        sequence=True,
        lengths_input=given,
    )
    axes = {n: -1 if o.time is None else o.time for n, o in names.items()}
    return Step(made, spec, axes, False, {n: o.name for n, o in names.items()}, finals, {}, 0)


def _check_exact(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if any(p.key == LOOKAHEAD_KEY for p in node.metadata_props):
            raise ExportError(
                f"layer '{node.name}' has a lookahead of its own, so it can be stepped: export the module with lookahead=0"
            )


def _output(value: onnx.ValueInfoProto, worlds: Worlds) -> _Output:
    small, more, long = worlds.shapes[value.name]
    batch, time = ([i for i, (a, b) in enumerate(zip(small, other, strict=True)) if a != b] for other in (more, long))
    if len(batch) != 1 or len(time) > 1:
        raise ExportError(
            f"output '{value.name}' has shapes {worlds.shapes[value.name]} for (batch, length) {worlds.sizes}; "
            "expected one axis that is the batch, and at most one other that grows with the length"
        )
    shape = tuple(d for i, d in enumerate(small) if i not in (*batch, *time))
    return _Output(value.name, value.type.tensor_type.elem_type, batch[0], time[0] if time else None, shape)


def _chosen(outputs: list[_Output]) -> tuple[list[_Output], tuple[str, ...]]:
    """Those that have a row for each frame, where there are such; and the names of the others."""
    timed = [o for o in outputs if o.time is not None] or outputs
    for o in timed:
        if o.time is None and o.batch != 0:
            raise ExportError(
                f"output '{o.name}' has one row a stream and the batch at axis {o.batch}; return it with the batch first"
            )
    return timed, tuple(o.name for o in outputs if o not in timed)


def _lengths(
    model: onnx.ModelProto, feed: Callable[[int, int], Feed], outputs: list[_Output], longest: int
) -> tuple[Stage, ...]:
    """How many outputs so many frames give: found by running the graph, for the outputs together."""
    if outputs[0].time is None:
        return _ALWAYS_ONE
    session = plain_session(model)
    counts: dict[int, int] = {}
    for n in sorted({*range(1, _TRIED + 1), longest, longest + 1, 2 * longest + 3}):
        found = _counts(session, model, feed(2, n), outputs)
        if len(set(found.values())) > 1:
            raise ExportError(
                f"outputs have different numbers of frames ({found} of a sequence of {n}), and an artifact gives as many of each; export them apart"
            )
        if found:
            counts[n] = next(iter(found.values()))
    stage = _stage(counts)
    return () if stage == (1, 0, 1, 0) else (stage,)


def _counts(
    session: onnxruntime.InferenceSession, model: onnx.ModelProto, feed: Feed, outputs: list[_Output]
) -> dict[str, int]:
    """How many rows each output has; empty where the graph does not take that length."""
    try:
        if runs_empty(model, feed):
            return {o.name: 0 for o in outputs}
        made = session.run([o.name for o in outputs], dict(feed))
    except Exception:  # a length that it does not take; onnxruntime's errors share no public base
        return {}
    return {o.name: np.asarray(y).shape[o.time or 0] for o, y in zip(outputs, made, strict=True)}


def _stage(counts: Mapping[int, int]) -> Stage:
    """The stage that gives the counts of all lengths. Raises ExportError where none does."""
    sizes = sorted(counts)
    for divide in range(1, _LARGEST + 1):
        for multiply in range(1, _LARGEST + 1):
            longest = sizes[-1]
            for add in range(
                counts[longest] * divide - multiply * longest, (counts[longest] + 1) * divide - multiply * longest
            ):
                stage = (multiply, add, divide, 0)
                if all(length_of((stage,), n) == counts[n] for n in sizes):
                    return stage
    raise ExportError(
        f"the number of outputs follows no simple rule of the number of frames: {dict(list(counts.items())[:12])}; "
        "give an output for each frame, or for every k-th"
    )
