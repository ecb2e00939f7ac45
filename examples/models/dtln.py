"""DTLN (a noise suppressor, MIT licence) as one step artifact: raw samples in, clean samples out.

It is published as two ONNX graphs, a mask over magnitudes and a refinement in time, with Fourier code between them that everyone writes
again. Here that code is three small graphs of constant matrices, and all five are adopted as a chain:

    samples -> analysis -> model_1 -> synthesis -> model_2 -> overlap_add -> clean
                       `- real, imag --^

    python examples/models/dtln.py dtln.onnx
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
from fetch import fetch
from onnx import TensorProto, helper, numpy_helper

import undertow as ut
from undertow.exporters import ExportReport

BLOCK, SHIFT = 512, 128
BINS, KEPT = BLOCK // 2 + 1, BLOCK - SHIFT
OPSET = 13


def dtln(folder: Path, output: Path) -> ExportReport:
    """Writes the artifact. folder: for the graphs between."""
    models = fetch()
    between = {"analysis": analysis(), "synthesis": synthesis(), "overlap_add": overlap_add()}
    for name, model in between.items():
        onnx.save(model, folder / f"{name}.onnx")
    chain = [
        folder / "analysis.onnx",
        models["model_1.onnx"],
        folder / "synthesis.onnx",
        models["model_2.onnx"],
        folder / "overlap_add.onnx",
    ]
    return ut.adopt(
        chain,
        output,
        states={"input_3": "tf_op_layer_stack_2", "input_5": "tf_op_layer_stack_5", "sums": "sums_next"},
        links={"magnitude": "input_2", "activation_2": "mask", "enhanced": "input_4", "conv1d_3": "refined"},
        outputs=["clean"],
        overlap={"samples": KEPT},
        time_axis=1,
        frames_per_step=SHIFT,
        outputs_per_step=SHIFT,
        sample_rate_hz=16_000,
    )


def analysis() -> onnx.ModelProto:
    """samples (N, 512) -> the magnitude and the real and imaginary part (N, 1, 257) of their Fourier transform."""
    turns = 2 * np.pi * np.outer(np.arange(BLOCK), np.arange(BINS)) / BLOCK
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "one"], ["block"]),
        helper.make_node("MatMul", ["block", "cosines"], ["real"]),
        helper.make_node("MatMul", ["block", "sines"], ["imag"]),
        helper.make_node("Mul", ["real", "real"], ["real2"]),
        helper.make_node("Mul", ["imag", "imag"], ["imag2"]),
        helper.make_node("Add", ["real2", "imag2"], ["power"]),
        helper.make_node("Sqrt", ["power"], ["magnitude"]),
    ]
    weights = {"one": np.array([1]), "cosines": np.cos(turns), "sines": -np.sin(turns)}
    spectrum = {"magnitude": [1, BINS], "real": [1, BINS], "imag": [1, BINS]}
    return _model(nodes, {"samples": [BLOCK]}, spectrum, weights)


def synthesis() -> onnx.ModelProto:
    """The samples (N, 1, 512) of a spectrum times a mask."""
    turns = 2 * np.pi * np.outer(np.arange(BINS), np.arange(BLOCK)) / BLOCK
    twice = np.where((np.arange(BINS) == 0) | (np.arange(BINS) == BINS - 1), 1, 2)[:, None] / BLOCK
    nodes = [
        helper.make_node("Mul", ["real", "mask"], ["kept_real"]),
        helper.make_node("Mul", ["imag", "mask"], ["kept_imag"]),
        helper.make_node("MatMul", ["kept_real", "cosines"], ["even"]),
        helper.make_node("MatMul", ["kept_imag", "sines"], ["odd"]),
        helper.make_node("Add", ["even", "odd"], ["enhanced"]),
    ]
    weights = {"cosines": twice * np.cos(turns), "sines": -twice * np.sin(turns)}
    given = {"real": [1, BINS], "imag": [1, BINS], "mask": [1, BINS]}
    return _model(nodes, given, {"enhanced": [1, BLOCK]}, weights)


def overlap_add() -> onnx.ModelProto:
    """The oldest 128 samples of the sum of this block and of what earlier blocks left for it; the rest is left for later ones."""
    nodes = [
        helper.make_node("Squeeze", ["refined", "one"], ["block"]),
        helper.make_node("Pad", ["sums", "pads"], ["before"]),
        helper.make_node("Add", ["block", "before"], ["total"]),
        helper.make_node("Slice", ["total", "zero", "shift", "one"], ["clean"]),
        helper.make_node("Slice", ["total", "shift", "block_end", "one"], ["sums_next"]),
    ]
    numbers = {"one": [1], "zero": [0], "shift": [SHIFT], "block_end": [BLOCK], "pads": [0, 0, 0, SHIFT]}
    given = {"refined": [1, BLOCK], "sums": [KEPT]}
    return _model(nodes, given, {"clean": [SHIFT], "sums_next": [KEPT]}, {k: np.array(v) for k, v in numbers.items()})


def _model(
    nodes: list[onnx.NodeProto], given: dict[str, list[int]], made: dict[str, list[int]], weights: dict[str, np.ndarray]
) -> onnx.ModelProto:
    def values(tensors: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", *shape]) for n, shape in tensors.items()]

    held = [
        numpy_helper.from_array(w.astype(np.float32 if w.dtype.kind == "f" else np.int64), n)
        for n, w in weights.items()
    ]
    graph = helper.make_graph(nodes, "between", values(given), values(made), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="the artifact to write")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as place:
        print(dtln(Path(place), output))
