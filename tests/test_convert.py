"""Whole-sequence ONNX models, from any framework: converted, the steps give what ONNX Runtime gives for the whole."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

import undertow as ut
from undertow.cli_adopt import convert_command

from .certificates import compiled, without_compiling  # noqa: F401
from .onnx_texts import noise, pushed, saved

BIN = Path(sys.executable).parent


def gru(path, dims=("B", "T", 4), opset=17, direction="forward", time_first=False):
    """A GRU of 5 units between transposes, as other frameworks write it, and a linear layer."""
    rng, hidden, count = np.random.default_rng(0), 5, 2 if direction == "bidirectional" else 1
    weights = {
        "w": rng.normal(0, 0.5, (count, 3 * hidden, 4)),
        "r": rng.normal(0, 0.5, (count, 3 * hidden, hidden)),
        "b": rng.normal(0, 0.5, (count, 6 * hidden)),
        "head": rng.normal(0, 0.5, (hidden, 3)),
    }
    perm = [0, 1, 2] if time_first else [1, 0, 2]
    squeeze = ([], {"axes": [1]}) if opset < 13 else (["one"], {})
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=perm),
        helper.make_node("GRU", ["xt", "w", "r", "b"], ["ys"], hidden_size=hidden, direction=direction),
        helper.make_node("Slice", ["ys", "zero", "one", "one"], ["first"]),
        helper.make_node("Squeeze", ["first", *squeeze[0]], ["flat"], **squeeze[1]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
        helper.make_node("Transpose", ["scores"], ["y"], perm=perm),
    ]
    held = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    held += [numpy_helper.from_array(np.array([v]), n) for n, v in (("zero", 0), ("one", 1))]
    value = helper.make_tensor_value_info
    out = [*dims[:-1], 3]
    graph = helper.make_graph(nodes, "g", [value("x", 1, dims)], [value("y", 1, out)], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def check(report, source, shape=(4,), batch=0, time=1, backend="ort", lengths=(50, 1, 13)):
    """Streams in chunks beside ONNX Runtime on each whole sequence."""
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    sequences = noise(*((n, *shape) for n in lengths), seed=3)
    for given, x in zip(pushed(report.path, sequences, backend), sequences, strict=True):
        (whole,) = session.run(None, {"x": np.moveaxis(x[None], (0, 1), (batch, time))})
        np.testing.assert_allclose(given, np.moveaxis(whole, (batch, time), (0, 1))[0], atol=1e-5)


def test_on_both_backends(tmp_path, compiled):  # noqa: F811
    """A GRU between transposes is one step, its state found; both backends are certified against the whole sequence."""
    source = gru(tmp_path / "whole.onnx")
    report = ut.convert(source, tmp_path / "step.onnx", sample_rate_hz=50, labels=["a", "b", "c"])
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    assert "whole.onnx on the whole sequence" in report.parity[0].reference
    assert [s.shape for s in report.spec.states] == [(5,)]
    assert report.spec.labels == ("a", "b", "c")
    assert ut.verify(report.path).ok
    check(report, source, backend="numba")


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_operator_sets(opset, tmp_path):
    """Older operator sets are converted first; the reference stays the model as it was."""
    source = gru(tmp_path / "whole.onnx", opset=opset)
    report = ut.convert(source, tmp_path / "step.onnx")
    assert report.spec.origin.versions["opset"] == str(opset)
    check(report, source)


@pytest.mark.parametrize("axes", [{"time_axis": 0}, {"time_axis": 0, "batch_axis": 1}])
def test_time_before_batch(axes, tmp_path):
    """The batch axis is the other one of the first two where it is not said."""
    source = gru(tmp_path / "whole.onnx", dims=("T", "B", 4), time_first=True)
    check(ut.convert(source, tmp_path / "step.onnx", **axes), source, batch=1, time=0)


def test_attention_as_one_operator(tmp_path):
    """ONNX Attention with two heads and a mask of frames from 3 before to 1 after: a window of keys and values, exact at both ends."""
    body = """
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)
        zero = Constant<value = int64 {0}>()
        one = Constant<value = int64 {1}>()
        behind = Constant<value = int64 {-3}>()
        first = Constant<value = int64[1] {0}>()
        second = Constant<value = int64[1] {1}>()
        sizes = Shape<start = 1, end = 2>(x)
        length = Squeeze(sizes)
        places = Range(zero, length, one)
        columns = Unsqueeze(places, first)
        rows = Unsqueeze(places, second)
        offset = Sub(columns, rows)
        soon = LessOrEqual(offset, one)
        near = GreaterOrEqual(offset, behind)
        seen = And(soon, near)
        y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v, seen)
    """
    source = saved(tmp_path / "whole.onnx", "(float[B,T,8] x) => (float[B,T,8] y)", body, opset=23)
    whole = onnx.load(source)
    rng = np.random.default_rng(0)
    whole.graph.initializer.extend(
        numpy_helper.from_array(rng.normal(0, 0.5, (8, 8)).astype(np.float32), n) for n in ("wq", "wk", "wv")
    )
    onnx.save(whole, source)
    report = ut.convert(source, tmp_path / "step.onnx")
    assert report.spec.delay == 1
    check(report, source, shape=(8,))


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resized_time(mode, coordinates, tmp_path):
    """Resize by a whole number along time, of frames that come late, with every way to count places that no length decides."""
    nearest = ', nearest_mode = "floor"' if coordinates == "asymmetric" else ""
    body = f"""
        w = Constant<value = float[4,1,3] {{1.0, -0.5, 0.25, 1.0, 2.0, 0.5, -1.0, 0.5, 0.75, 0.1, 0.2, 0.3}}>()
        xt = Transpose<perm = [0, 2, 1]>(x)
        late = Conv<group = 4, pads = [1, 1]>(xt, w)
        scales = Constant<value = float[3] {{1.0, 1.0, 3.0}}>()
        r = Resize<mode = "{mode}", coordinate_transformation_mode = "{coordinates}"{nearest}>(late, , scales)
        y = Transpose<perm = [0, 2, 1]>(r)
    """
    source = saved(tmp_path / "whole.onnx", "(float[B,T,4] x) => (float[B,U,4] y)", body)
    report = ut.convert(source, tmp_path / "step.onnx")
    assert report.spec.outputs_per_step == 3
    check(report, source)


def test_places_that_the_length_decides_are_refused(tmp_path):
    """Corners that are aligned depend on how long the sequence is."""
    body = """
        scales = Constant<value = float[3] {1.0, 1.0, 2.0}>()
        xt = Transpose<perm = [0, 2, 1]>(x)
        r = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(xt, , scales)
        y = Transpose<perm = [0, 2, 1]>(r)
    """
    source = saved(tmp_path / "whole.onnx", "(float[B,T,4] x) => (float[B,U,4] y)", body)
    with pytest.raises(ut.ExportError, match=r"Resize.*align_corners\) depend on how long.*align_corners=False"):
        ut.convert(source, tmp_path / "step.onnx")


def test_a_choice_that_sizes_decide(tmp_path):
    """An If on the rank or on a feature's size is the branch that it takes, as older torch exporters write a squeeze; frames go through it."""
    body = """
        last = Constant<value = int64[1] {2}>()
        four = Constant<value = int64[1] {4}>()
        sizes = Shape(x)
        size = Gather(sizes, last)
        same = Equal(size, four)
        c = If(same) <
            then_branch = taken () => (float[B,T,4] a) { n = Neg(x) a = Tanh(n) },
            else_branch = other () => (float[B,T,4] b) { b = Exp(x) }
        >
        y = Add(c, x)
    """
    source = saved(tmp_path / "whole.onnx", "(float[B,T,4] x) => (float[B,T,4] y)", body)
    report = ut.convert(source, tmp_path / "step.onnx")
    assert [n.op_type for n in ut.read_artifact(report.path).model.graph.node] == ["Neg", "Tanh", "Add"]
    check(report, source)


def test_a_batch_fixed_at_one(tmp_path):
    """Reshapes that hold the 1 of a fixed batch are freed; the certificate's batches of all sequences prove it."""
    body = """
        sizes = Constant<value = int64[3] {1, -1, 4}>()
        pairs = Constant<value = int64[4] {1, -1, 2, 2}>()
        p = Reshape(x, pairs)
        t = Transpose<perm = [0, 1, 3, 2]>(p)
        r = Reshape(t, sizes)
        y = Tanh(r)
    """
    source = saved(tmp_path / "whole.onnx", "(float[1,T,4] x) => (float[1,T,4] y)", body)
    check(ut.convert(source, tmp_path / "step.onnx"), source)


def test_external_data(tmp_path):
    """Weights beside the model are read from there, and are in the artifact."""
    whole = onnx.load(gru(tmp_path / "plain.onnx"))
    source = tmp_path / "whole.onnx"
    onnx.save(whole, source, save_as_external_data=True, location="weights.bin", size_threshold=0)
    report = ut.convert(source, tmp_path / "step.onnx")
    (tmp_path / "weights.bin").rename(tmp_path / "elsewhere.bin")
    check(report, tmp_path / "plain.onnx")


def test_fewer_outputs_than_frames(tmp_path):
    """A strided convolution takes several frames a step, and a note says so; streams that end between steps are exact too."""
    body = """
        t = Transpose<perm = [0, 2, 1]>(x)
        weight = Constant<value = float {0.25}>()
        ws = Constant<value = int64[3] {3, 4, 3}>()
        w = Expand(weight, ws)
        c = Conv<strides = [2], pads = [1, 1], kernel_shape = [3]>(t, w)
        y = Transpose<perm = [0, 2, 1]>(c)
    """
    source = saved(tmp_path / "whole.onnx", "(float[B,T,4] x) => (float[B,S,3] y)", body)
    report = ut.convert(source, tmp_path / "step.onnx")
    assert report.spec.frames_per_step == 2
    assert any("a step takes 2 frames" in note for note in report.notes)
    check(report, source)


def test_tokens(tmp_path):
    """Integers are drawn from all rows of the table that they index."""
    table = numpy_helper.from_array(np.random.default_rng(0).normal(0, 1, (11, 3)).astype(np.float32), "table")
    nodes = [helper.make_node("Gather", ["table", "x"], ["e"]), helper.make_node("Tanh", ["e"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 7, ["B", "T"])], [value("y", 1, ["B", "T", 3])], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "whole.onnx")
    report = ut.convert(tmp_path / "whole.onnx", tmp_path / "step.onnx")
    engine = ut.Engine(report.path, backend="ort")
    tokens = np.arange(11)
    np.testing.assert_allclose(engine.push("a", tokens), np.tanh(numpy_helper.to_array(table)), atol=1e-6)


def test_frames_of_no_fixed_size(tmp_path):
    """A frame's shape is what the caller says where the graph leaves it open."""
    source = saved(tmp_path / "whole.onnx", "(float[B,T,F] x) => (float[B,T,F] y)", "y = Tanh(x)")
    with pytest.raises(
        ut.ExportError, match=r"a frame has an axis of no fixed size; say one frame's shape, as in shapes"
    ):
        ut.convert(source, tmp_path / "step.onnx")
    check(ut.convert(source, tmp_path / "step.onnx", shapes={"x": (6,)}), source, shape=(6,))


MIXED = "m = ReduceMean<axes = [0], keepdims = 1>(x) y = Sub(x, m)"
REFUSED = [
    (
        "(float[B,20,4] x) => (float[B,20,4] y)",
        "y = Tanh(x)",
        {},
        "the time axis 1 is fixed at 20 frames; export it with a free",
    ),
    (
        "(float[7,T,4] x) => (float[7,T,4] y)",
        "y = Tanh(x)",
        {},
        "axis 0 is fixed at 7, expected a batch of free size or 1",
    ),
    (
        "(float[B] x) => (float[B] y)",
        "y = Tanh(x)",
        {},
        "has no batch axis 0 and time axis 1; every input must be frames",
    ),
    (
        "(float[B,T,4] x) => (float[B,T,4] y)",
        "y = Tanh(x)",
        {"time_axis": 0, "batch_axis": 0},
        "expected two different axes",
    ),
    ("(float[B,T,4] x) => (float[B,T,4] y)", "y = Tanh(x)", {"frames_per_step": 0}, "frames_per_step is 0"),
    ("(float[B,T,4] x) => (float[B,T,4] y)", "y = Tanh(x)", {"shapes": {"q": (4,)}}, "shapes: there is no input 'q'"),
    (
        "(float[B,T,4] x) => (float[B,T,4] y)",
        "y = Tanh(x)",
        {"shapes": {"x": (5,)}},
        "a frame of input 'x'.*is .4., .5. was given",
    ),
    ("(float[B,T,4] x) => (float[B,T,4] y)", "y = Tanh(x)", {"labels": ["a"]}, "1 labels are given"),
    (
        "(float[B,T,4] x) => (float[B,T,4] y)",
        MIXED,
        {},
        "works along axis 0, the batch; streams must not depend on each other",
    ),
]


@pytest.mark.parametrize(("signature", "body", "options", "message"), REFUSED, ids=range(len(REFUSED)))
def test_refusals(signature, body, options, message, tmp_path):
    """Models without free axes, options that do not fit and models whose streams see each other are refused, and nothing is written."""
    source = saved(tmp_path / "whole.onnx", signature, body)
    with pytest.raises(ut.ExportError, match=message):
        ut.convert(source, tmp_path / "step.onnx", **options)
    assert not (tmp_path / "step.onnx").exists()


def test_layers_that_need_the_future(tmp_path):
    """A bidirectional layer over time is refused with its node."""
    source = gru(tmp_path / "whole.onnx", direction="bidirectional")
    with pytest.raises(ut.ExportError, match=r"GRU.*bidirectional|bidirectional.*GRU"):
        ut.convert(source, tmp_path / "step.onnx")
    with pytest.raises(ut.ExportError, match="the folder does not exist"):
        ut.convert(source, tmp_path / "none" / "step.onnx")


def test_command_line(tmp_path):
    """`undertow convert` writes the artifact and prints its report; a refusal is exit 1 with the reason on stderr."""
    source = gru(tmp_path / "whole.onnx")
    command = [BIN / "undertow", "convert", source, "-o", tmp_path / "step.onnx", "--labels", "a,b,c"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"]["labels"] == ["a", "b", "c"]
    assert ut.read_artifact(tmp_path / "step.onnx").spec.labels == ("a", "b", "c")
    failed = subprocess.run([*command, "--shape", "q=3"], capture_output=True, text=True, check=False)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "shapes: there is no input 'q'" in failed.stderr
    wrong = subprocess.run([*command, "--window", "few"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "expected a number of frames, or two" in wrong.stderr


def test_the_command_line_passes_its_options_on(tmp_path, monkeypatch):
    """Every option of `undertow convert` arrives under its name and as the kind of value that `convert` takes."""
    given = {}

    def convert(source, path, **options):
        given.update(options)
        raise ut.ExportError("enough")

    monkeypatch.setattr("undertow.exporters.convert", convert)
    source = gru(tmp_path / "whole.onnx")
    options = (
        "--time-axis 2 --batch-axis 1 --shape x=4,3 --frames-per-step 8 --window 5,2 --lookahead all --reduce running"
    )
    options += " --sample-rate 50 --labels a,b --quantize int8 -q"
    result = CliRunner().invoke(convert_command, [str(source), "-o", str(tmp_path / "s.onnx"), *options.split()])
    assert str(result.exception) == "enough"
    assert given == {
        "time_axis": 2,
        "batch_axis": 1,
        "shapes": {"x": (4, 3)},
        "frames_per_step": 8,
        "window": (5, 2),
        "lookahead": "all",
        "reduce": "running",
        "sample_rate_hz": 50.0,
        "labels": ["a", "b"],
        "quantize": "int8",
        "progress": None,
    }
