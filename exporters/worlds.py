"""What a whole-sequence graph does at a few concrete sizes: every tensor's shape, and values that depend on sizes alone.

Shape arithmetic is not re-implemented: the graph is run, once for each of a few (batch, length) pairs, with every
tensor as an output. An axis that always has the batch's size is the batch; a value that no input reaches, and that is
the same in every world, is a constant.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime

from ..engine.errors import ExportError
from .bodies import captured, is_random

# (batch, length) of three worlds: no constant follows them, no two axes can be mistaken. Lengths are tried one after the other, until the
# graph runs: some need many frames, or a multiple of a number.
BATCHES = (3, 5, 3)
LENGTHS = ((7, 11), (24, 40), (60, 84), (360, 504), (1080, 1800), (5040, 7560), (15_120, 25_200))

Feed = Mapping[str, np.ndarray]
Lengths = Sequence[tuple[int, int]]


class NeedsLonger(Exception):
    """The worlds are too short to tell."""


class Worlds:
    """shapes[tensor]: its shape in each world. known[tensor]: its value in each, for tensors that no input's value reaches.

    sizes: (batch, length) of each world. dtypes: by tensor. Raises ExportError where the graph runs on no length.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feed: Callable[[int, int], Feed],
        lengths: Lengths = LENGTHS,
        constant: Collection[str] = (),
    ):
        """lengths: the pairs to try. constant: inputs that are no frames."""
        free = value_free(model.graph, constant)
        names = [name for node in model.graph.node for name in node.output if name]
        self.sizes, feeds, runs = _first_that_runs(model, names, feed, lengths)
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self.known = {name: tuple(run[name] for run in runs) for name in names if name in free}
        self.known |= {name: (array,) * len(runs) for name, array in constants.items()}
        self.shapes = {name: tuple(run[name].shape for run in runs) for name in names}
        self.shapes |= {v.name: tuple(f[v.name].shape for f in feeds) for v in model.graph.input}
        self.shapes |= {name: (array.shape,) * len(runs) for name, array in constants.items()}
        self.dtypes = {name: array.dtype.name for name, array in runs[0].items()}


def _first_that_runs(
    model: onnx.ModelProto, names: list[str], feed: Callable[[int, int], Feed], lengths: Lengths
) -> tuple[tuple[tuple[int, int], ...], list[Feed], list[dict[str, np.ndarray]]]:
    """The sizes, inputs and tensors of the first worlds in which the graph runs and no tensor is empty."""
    session, failed = _session(model, names), None
    for short, long in lengths:
        sizes = tuple(zip(BATCHES, (short, short, long), strict=True))
        feeds = [feed(*size) for size in sizes]
        try:
            if runs_empty(model, feeds[0]):
                continue
            runs = [_run(session, names, f) for f in feeds]
        except ExportError as error:
            failed = failed or error
            continue
        if all(array.size for run in runs for array in run.values() if array.ndim > 1):
            return sizes, feeds, runs
    raise failed or ExportError(
        f"a tensor of the whole-sequence graph is empty for every length up to {LENGTHS[-1][1]} frames: the model needs more of them for an output; use shorter windows"
    )


def runs_empty(model: onnx.ModelProto, feed: Feed) -> bool:
    """Whether some tensor is empty. Raises ExportError where the graph does not take that length.

    ONNX Runtime ends the process where a GRU is given no frames, and not where an RNN is, with the same shapes: so that is tried.
    """
    if not any(node.op_type == "GRU" for node in model.graph.node):
        return False
    tame = onnx.ModelProto()
    tame.CopyFrom(model)
    del tame.graph.node[:]
    for node in model.graph.node:
        tame.graph.node.extend(_as_rnn(node) if node.op_type == "GRU" else [node])
    names = [name for node in model.graph.node for name in node.output if name]
    made = _run(_session(tame, names), names, feed)
    return any(array.size == 0 for array in made.values() if array.ndim > 1)


def _as_rnn(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """An RNN with the first of the GRU's matrices: tensors of the same names and shapes."""
    size = next(a.i for a in node.attribute if a.name == "hidden_size")
    found, inputs = [], list(node.input)
    for at, rows in ((1, size), (2, size), (3, 2 * size)):
        if at < len(inputs) and inputs[at]:
            name = f"{node.output[0] or node.output[1]}.cut{at}"
            bounds = [onnx.numpy_helper.from_array(np.array([v]), f"{name}.{i}") for i, v in enumerate((0, rows, 1))]
            found += [onnx.helper.make_node("Constant", [], [b.name], value=b) for b in bounds]
            found.append(onnx.helper.make_node("Slice", [inputs[at], *(b.name for b in bounds)], [name]))
            inputs[at] = name
    kept = {
        a.name: onnx.helper.get_attribute_value(a)
        for a in node.attribute
        if a.name in ("hidden_size", "direction", "layout")
    }
    return [*found, onnx.helper.make_node("RNN", inputs, list(node.output), **kept)]


def value_free(graph: onnx.GraphProto, constant: Collection[str] = ()) -> set[str]:
    """Names of the tensors that depend on constants and on sizes of inputs, and on no input's values but those that are `constant`."""
    free = {t.name for t in graph.initializer} | {"", *constant}
    for node in graph.node:
        reached = node.op_type in ("Shape", "Size") or all(name in free for name in [*node.input, *captured(node)])
        if reached and not is_random(node):
            free.update(node.output)
    return free - {""}


def _session(model: onnx.ModelProto, names: list[str]) -> onnxruntime.InferenceSession:
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return plain_session(watched)


def plain_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime as a plain interpreter: one thread, no rewriting of the graph, no chatter on stderr."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise ExportError(f"ONNX Runtime cannot load the graph: {error}") from error


def _run(session: onnxruntime.InferenceSession, names: list[str], feed: Feed) -> dict[str, np.ndarray]:
    wanted = {i.name for i in session.get_inputs()}
    try:
        values = session.run(names, {k: v for k, v in feed.items() if k in wanted})
    except Exception as error:  # as above
        shapes = {name: array.shape for name, array in feed.items()}
        raise ExportError(
            f"the whole-sequence graph does not run on inputs of shapes {shapes}: {error}; "
            "the module must take any number of streams and any length"
        ) from error
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
