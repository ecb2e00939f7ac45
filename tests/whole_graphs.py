"""Small graphs of whole sequences, and what each gives of a sequence alone by the oracle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from undertow.engine.artifact import Artifact, Stage, StepSpec, TensorSpec, make_artifact

from .naive import run_graph

SIZE, OUT = 3, 5  # SIZE as in tests.pipelines


def bidirectional_whole() -> Artifact:
    """A bidirectional LSTM that is told the sequences' lengths, and the mean of both directions' outputs over them."""
    noise = np.random.default_rng(1)
    weights = [
        numpy_helper.from_array(noise.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in (("w", (2, 4 * OUT, SIZE)), ("r", (2, 4 * OUT, OUT)), ("b", (2, 8 * OUT)))
    ]
    nodes = [
        helper.make_node("Cast", ["lengths"], ["lens"], to=TensorProto.INT32),
        helper.make_node("Transpose", ["x"], ["frames"], perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["frames", "w", "r", "b", "lens"], ["both"], hidden_size=OUT, direction="bidirectional"
        ),
        helper.make_node("ReduceMean", ["both"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Transpose", ["mean"], ["y"], perm=[1, 0, 2]),
    ]
    return _artifact(nodes, weights, OUT, lengths_input="lengths")


def attention_whole() -> Artifact:
    """Each frame beside all of its sequence; it takes sequences of one length alone."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["share"], axis=-1),
        helper.make_node("MatMul", ["share", "x"], ["y"]),
    ]
    return _artifact(nodes, [], SIZE)


def window_whole(kernel: int = 4) -> Artifact:
    """Sums of windows of frames: kernel - 1 fewer outputs than frames; a shorter sequence fails where the metadata claims an output."""
    weights = [numpy_helper.from_array(np.ones((SIZE, 1, kernel), np.float32), "w")]
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["turned", "w"], ["sums"], group=SIZE),
        helper.make_node("Transpose", ["sums"], ["y"], perm=[0, 2, 1]),
    ]
    return _artifact(nodes, weights, SIZE, lengths=((1, 1 - kernel, 1, 1),))


def failing_whole() -> Artifact:
    """Fails on sequences of fewer than 4 frames, and claims an output for each frame."""
    weights = [numpy_helper.from_array(np.ones((SIZE, 1, 4), np.float32), "w")]
    pads = numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 3], np.int64), "pads")
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["turned", "w"], ["sums"], group=SIZE),
        helper.make_node("Pad", ["sums", "pads"], ["wide"]),
        helper.make_node("Transpose", ["wide"], ["y"], perm=[0, 2, 1]),
    ]
    return _artifact(nodes, [*weights, pads], SIZE)


def _artifact(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto],
    out: int,
    lengths_input: str | None = None,
    lengths: tuple[Stage, ...] = (),
) -> Artifact:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", SIZE])]
    given += [helper.make_tensor_value_info(lengths_input, TensorProto.INT64, ["B"])] if lengths_input else []
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", "rows", out])]
    graph = helper.make_graph(list(nodes), "whole", given, made, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    spec = StepSpec(
        (TensorSpec("x", (SIZE,), "float32"),),
        (TensorSpec("y", (out,), "float32"),),
        (),
        lengths=lengths,
        sequence=True,
        lengths_input=lengths_input,
    )
    return make_artifact(model, spec)


def by_oracle(artifact: Artifact, sequence: Any) -> np.ndarray:
    """The outputs of a sequence alone, in float64; a layer that goes over nothing but the sequence needs no lengths."""
    spec = artifact.spec
    if not len(sequence) or not spec.outputs_of(len(sequence)):
        return np.zeros((0, *spec.outputs[0].shape))
    model = onnx.ModelProto()
    model.CopyFrom(artifact.model)
    for node in model.graph.node:
        if node.op_type == "LSTM":
            node.input[4] = ""
    feeds = {"x": np.asarray(sequence)[None]}
    if spec.lengths_input:
        feeds[spec.lengths_input] = np.array([len(sequence)])
    return run_graph(model, feeds)["y"][0]
