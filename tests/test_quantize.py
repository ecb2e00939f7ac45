"""Weights stored as int8 or float16: what is stored, that both backends compute with it, and that the stated error is true."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import undertow as ut
from undertow.cli_adopt import adopt_command, convert_command
from undertow.cli_inspect import inspect_command
from undertow.engine.artifact import make_artifact, write_artifact
from undertow.engine.folding import dequantized as folded
from undertow.exporters.certifying import Truth, certified
from undertow.exporters.parity import scales, tolerances, worst_errors
from undertow.exporters.quantizing import dequantized, quantized
from undertow.exporters.stepping import stepped_alone, stepped_together

from .checks import assert_close
from .naive import run_graph
from .step_graph import StepGraph, gru_step, lstm_step, rnn_step

KINDS = ("int8", "float16")


@pytest.fixture
def interpreted(monkeypatch):
    """Certificates are about `ort` alone: a compiled backend takes seconds a model."""
    monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))


def convolutional():
    """Conv and ConvTranspose over feature axes, an embedding, a MatMul and a Gemm, and a matrix that is no layer's weight."""
    g = StepGraph(seed=3)
    x, token = g.input("x", (4, 12)), g.input("token", (), "int64")
    y = g.op("Conv", x, g.noise(16, 4, 5, scale=0.2), pads=[2, 2])
    y = g.op("ConvTranspose", y, g.noise(16, 8, 3, scale=0.2), pads=[1, 1])
    y = g.op("Tanh", g.op("Add", y, g.noise(1, 8, 12)))
    row = g.op("MatMul", g.op("Gather", g.noise(40, 24), token), g.noise(24, 96, scale=0.2))
    y = g.op("Add", g.op("Flatten", y), row)
    g.output("y", g.linear(y, 96, 6), (6,))
    return g.artifact()


MODELS = {
    "lstm": lambda: lstm_step(12, 24, layers=2, outputs=5),
    "gru": lambda: gru_step(12, 24, outputs=5),
    "rnn": lambda: rnn_step(20, 24, outputs=5),
    "convolutional": convolutional,
}


def sequences(artifact, lengths=(1, 6, 30)):
    rng = np.random.default_rng(0)
    draw = {"f": lambda s: rng.normal(size=s), "i": lambda s: rng.integers(0, 40, s)}
    return [
        {t.name: draw[np.dtype(t.dtype).kind]((n, *t.shape)).astype(t.dtype) for t in artifact.spec.inputs}
        for n in lengths
    ]


def weights(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def small(artifact, kind):
    return make_artifact(quantized(artifact.model, kind), artifact.spec)


@pytest.mark.parametrize("model", MODELS)
def test_int8_has_a_scale_for_each_output_channel(model):
    """Every large weight is int8, no number is off by more than half of its own channel's step, and small ones stay as they are."""
    artifact = MODELS[model]()
    before, made = weights(artifact.model), quantized(artifact.model, "int8")
    after, plain = weights(made), weights(dequantized(made))
    large = {n for n, w in before.items() if w.dtype == np.float32 and w.ndim > 1 and w.nbytes >= 1024}
    assert large
    nodes = {n.output[0]: n for n in made.graph.node if n.op_type == "DequantizeLinear"}
    assert set(nodes) == large
    for name in large:
        axis = nodes[name].attribute[0].i
        numbers, scale = after[f"{name}.int8"], after[f"{name}.scale"]
        others = tuple(i for i in range(numbers.ndim) if i != axis)
        assert numbers.dtype == np.int8
        assert scale.shape == (numbers.shape[axis],)
        np.testing.assert_allclose(scale, np.abs(before[name]).max(others) / 127, rtol=1e-6)
        assert (np.abs(plain[name] - before[name]) <= 0.5001 * np.expand_dims(scale, others)).all()
    for name in set(before) - large:
        np.testing.assert_array_equal(after[name], before[name])


CHANNELS = [
    ("Gemm", [(5, 300)], {"transB": 1}, 0),
    ("Gemm", [(300, 5)], {}, 1),
    ("MatMul", [(300, 5)], {}, 1),
    ("Conv", [(6, 50, 3)], {}, 0),
    ("ConvTranspose", [(50, 6, 3)], {}, 1),
    ("LSTM", [(1, 80, 20), (1, 80, 20)], {"hidden_size": 20}, 1),
]


@pytest.mark.parametrize(("op", "shapes", "attributes", "axis"), CHANNELS)
def test_channels(op, shapes, attributes, axis):
    """The axis of the scales is that of the layer's outputs: of gates' rows, of filters, of a product's columns."""
    arrays = [numpy_helper.from_array(np.ones(s, np.float32), f"w{i}") for i, s in enumerate(shapes)]
    node = helper.make_node(op, ["x", *(a.name for a in arrays)], ["y"], **attributes)
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [node], "g", [info], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], arrays
    )
    made = quantized(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), "int8")
    found = [n.attribute[0].i for n in made.graph.node if n.op_type == "DequantizeLinear"]
    assert found == [axis] * len(shapes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", MODELS)
def test_backends_compute_with_the_stored_weights(model, kind):
    """ONNX Runtime, optimising, and the compiled backend give what a float64 oracle gives with the stored weights, not with the exact."""
    artifact = small(MODELS[model](), kind)
    plain = make_artifact(dequantized(artifact.model), artifact.spec)
    given = sequences(artifact, (9,))[0]
    expected = []
    states = {s.name: s.initial_value()[None].astype(np.float64) for s in plain.spec.states}
    for t in range(9):
        results = run_graph(plain.model, {n: a[t][None] for n, a in given.items()} | states)
        states = {s.name: results[s.next] for s in plain.spec.states}
        expected.append(results[plain.spec.outputs[0].name][0])
    for backend in ("ort", "numba"):
        engine = ut.Engine(artifact, backend=backend)
        got = engine.push("one", given if len(given) > 1 else next(iter(given.values())))
        assert_close(got, np.stack(expected), backend, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_certificate_states_the_error(kind, tmp_path):
    """The stated error is what the exact graph is off by, measured here; the certificate is about the graph as stored; sizes are stated."""
    exact = lstm_step(32, 64, layers=2, outputs=8)
    given = sequences(exact)
    expected = stepped_alone(exact, given)
    artifact = certified(exact, Truth("the exact graph", given, expected), quantize=kind)
    path = tmp_path / "small.onnx"
    write_artifact(path, artifact.model, artifact.spec)
    (asked,) = ut.read_artifact(path).spec.approximations
    assert (asked.kind, asked.parameter, asked.reference, asked.lengths) == (
        "quantize",
        kind,
        "the exact graph",
        (1, 6, 30),
    )
    error, scale = worst_errors(stepped_together(artifact, given), expected)["y"], scales(expected)["y"]
    assert asked.max_abs_error["y"] == pytest.approx(error)
    assert asked.max_rel_error["y"] == pytest.approx(error / scale)
    assert 1e-6 < asked.max_rel_error["y"] < (0.05 if kind == "int8" else 0.002)
    assert asked.exact_bytes == exact.model.ByteSize()
    assert path.stat().st_size < (0.3 if kind == "int8" else 0.55) * asked.exact_bytes
    for line in artifact.spec.certificate:
        assert line.max_abs_error["y"] <= line.tolerance["y"] < asked.max_abs_error["y"]
    assert "weights as float32" in artifact.spec.certificate[0].reference
    assert ut.verify(path).ok


def test_a_wrong_exact_graph_is_not_hidden_by_quantising(interpreted):
    """The step graph is compared with its reference before its weights are made small: an error that they would hide is found."""
    exact = gru_step(12, 24, outputs=5)
    given = sequences(exact)
    off = [{n: a + np.float32(1e-3) for n, a in one.items()} for one in stepped_alone(exact, given)]
    with pytest.raises(ut.ExportError, match=r"the step graph is not the model.*nothing was written"):
        certified(exact, Truth("a reference", given, off, "model"), quantize="int8")


def test_refused():
    """Nothing to make small, a kind that is none, numbers that float16 or int8 have none for, an old operator set: each says what to do."""
    tiny, wide = gru_step(2, 3), gru_step(12, 24)
    with pytest.raises(ut.ExportError, match=r"no weight is a float32 matrix of 1024 bytes.*without quantize"):
        quantized(tiny.model, "int8")
    with pytest.raises(ut.ExportError, match=r"quantize is 'int4', expected 'int8', 'float16' or None"):
        quantized(wide.model, "int4")
    changed = onnx.ModelProto()
    changed.CopyFrom(wide.model)
    at = next(i for i, t in enumerate(changed.graph.initializer) if np.prod(t.dims) > 256)
    name, array = changed.graph.initializer[at].name, numpy_helper.to_array(changed.graph.initializer[at]).copy()
    array.reshape(-1)[0] = 7e4
    changed.graph.initializer[at].CopyFrom(numpy_helper.from_array(array, name))
    with pytest.raises(
        ut.ExportError, match=rf"weight '{name}' reaches 70000, float16 ends at 65504; use quantize='int8'"
    ):
        quantized(changed, "float16")
    array.reshape(-1)[0] = np.inf
    changed.graph.initializer[at].CopyFrom(numpy_helper.from_array(array, name))
    with pytest.raises(ut.ExportError, match=rf"weight '{name}' has a number that is not finite"):
        quantized(changed, "int8")
    changed.opset_import[0].version = 12
    with pytest.raises(ut.ExportError, match=r"operator set 12, int8 weights need 13"):
        quantized(changed, "int8")


def test_a_channel_of_zeros_stays_zero():
    """A channel of which every weight is 0 has no largest magnitude to scale by; it is stored, and read, as zeros."""
    g = StepGraph(seed=1)
    weight = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    weight[:, 3] = 0
    g.output("y", g.op("MatMul", g.input("x", (40,)), g.weight(weight)), (16,))
    made = weights(dequantized(quantized(g.artifact().model, "int8")))
    assert (made["w0"][:, 3] == 0).all()
    assert np.isfinite(made["w0"]).all()


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("zero", [None, 3])
def test_folding_of_dequantize_linear(axis, zero):
    """The compiled backend reads quantised constants as ONNX Runtime does: one scale or one of each place, with a zero point or none."""
    rng, shape = np.random.default_rng(0), (6, 5)
    numbers = rng.integers(-128, 128, shape).astype(np.int8)
    scale = np.float32(0.1) if axis is None else rng.uniform(0.01, 1, shape[axis]).astype(np.float32)
    inputs = [numbers, np.asarray(scale)]
    if zero is not None:
        inputs.append(np.full(np.shape(scale), zero, np.int8))
    g = StepGraph()
    names = [g.weight(a, a.dtype.name) for a in inputs]
    table = g.op("DequantizeLinear", *names, **({} if axis is None else {"axis": axis}))
    g.output("y", g.op("MatMul", g.input("x", (6,)), table), (5,))
    artifact, x = g.artifact(), np.eye(6, dtype=np.float32)
    got = [ut.Engine(artifact, backend=b).push(0, x) for b in ("numba", "ort")]
    np.testing.assert_array_equal(got[0], got[1])
    node = next(n for n in artifact.model.graph.node if n.op_type == "DequantizeLinear")
    np.testing.assert_array_equal(folded(node, inputs), got[0])


def test_tolerance_is_not_widened_by_quantising():
    """What rounding may do is as little in the quantised model as in the exact one; the approximation is beside it, not in it."""
    exact = lstm_step(12, 24, outputs=5)
    made, given = small(exact, "int8"), sequences(exact)
    allowed = [tolerances(a, given, stepped_together(a, given), stepped_together(a, given))["y"] for a in (exact, made)]
    assert allowed[1] < 2 * allowed[0] < 1e-4


def test_inspect_states_it(tmp_path, interpreted):
    """`undertow inspect` says what was approximated by request and what it costs, as text and as JSON."""
    exact = gru_step(12, 24, outputs=5)
    given = sequences(exact)
    artifact = certified(exact, Truth("a reference", given, stepped_alone(exact, given)), quantize="int8")
    path = tmp_path / "m.onnx"
    write_artifact(path, artifact.model, artifact.spec)
    text = CliRunner().invoke(inspect_command, [str(path)]).stdout
    assert "by request       quantize int8" in text
    found = json.loads(CliRunner().invoke(inspect_command, [str(path), "--json"]).stdout)
    assert found["approximations"][0]["parameter"] == "int8"


def whole_graph():
    """A whole-sequence graph: (B, T, 24) times a matrix, then tanh."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.2, (24, 16)).astype(np.float32), "weight")
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Tanh", ["y"], ["out"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", "T", s]) for n, s in (("x", 24), ("out", 16)))
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], [weight]), opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )


def test_adopt_and_convert(tmp_path, interpreted):
    """What comes from ONNX is made small by the same option, with its error against what the user's own graph gives."""
    step = gru_step(12, 24, outputs=5)
    onnx.save(step.model, tmp_path / "step.onnx")
    onnx.save(whole_graph(), tmp_path / "whole.onnx")
    states, told = {s.name: s.next for s in step.spec.states}, []
    ut.adopt(tmp_path / "step.onnx", tmp_path / "a.onnx", states=states, quantize="int8", progress=told.append)
    ut.convert(tmp_path / "whole.onnx", tmp_path / "c.onnx", quantize="int8")
    assert "certificate on numba" in told
    for name, reference in (("a.onnx", "step.onnx in a loop"), ("c.onnx", "whole.onnx")):
        artifact = ut.read_artifact(tmp_path / name)
        (asked,) = artifact.spec.approximations
        assert (asked.kind, asked.parameter) == ("quantize", "int8")
        assert reference in asked.reference
        assert all(1e-5 < error < 0.05 for error in asked.max_rel_error.values())
        assert any(t.data_type == TensorProto.INT8 for t in artifact.model.graph.initializer)


def test_commands(tmp_path, interpreted):
    """`undertow adopt` and `undertow convert` take --quantize too, and end with the same tables."""
    onnx.save(whole_graph(), tmp_path / "whole.onnx")
    where = [str(tmp_path / "whole.onnx"), "-o", str(tmp_path / "c.onnx"), "--quantize", "float16"]
    done = CliRunner().invoke(convert_command, where)
    assert done.exit_code == 0, done.output
    assert "quantize float16" in done.stdout
    step = gru_step(12, 24, outputs=5)
    onnx.save(step.model, tmp_path / "step.onnx")
    pairs = [text for s in step.spec.states for text in ("--state", f"{s.name}={s.next}")]
    where = [str(tmp_path / "step.onnx"), "-o", str(tmp_path / "a.onnx"), "--quantize", "int8", *pairs]
    done = CliRunner().invoke(adopt_command, where)
    assert done.exit_code == 0, done.output
    assert "quantize int8" in done.stdout
