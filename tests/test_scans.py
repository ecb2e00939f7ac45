"""Recurrences that graphs write as Scan and Loop, or with an operator's rarer attributes: the steps give what ONNX Runtime gives for the whole."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import undertow as ut
from undertow.engine.compiler import missing

from .onnx_texts import pushed, saved


@pytest.fixture(autouse=True)
def _without_compiling(monkeypatch):
    """Certifies ONNX Runtime alone; that the compiler takes the graph is checked by itself."""
    monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))


def check(source, tmp_path, time_axis=1, compiled=True, **options):
    """Converts, then compares streams in chunks with ONNX Runtime over whole sequences; gives the report."""
    path = tmp_path / "step.onnx"
    report = ut.convert(source, path, time_axis=time_axis, **options)
    if compiled:
        assert missing(ut.read_artifact(path)) == []
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    frame = report.spec.inputs[0].shape
    sequences = [rng.normal(0, 1, (n, *frame)).astype(np.float32) for n in (1, 2, 13)]
    for x, got in zip(sequences, pushed(path, sequences), strict=True):
        whole = np.asarray(session.run(None, {"x": np.expand_dims(x, 1 - time_axis)})[0]).squeeze(1 - time_axis)
        np.testing.assert_allclose(got, whole, atol=2e-5, rtol=1e-4)
    return report


BODY = """body (float[B,3] h, float[] n, float[B,3] f) => (float[B,3] h_next, float[] n_next, float[B,3] y) {
    half = Mul(h, weight)
    h_next = Add(half, f)
    n_next = Add(n, one)
    y = Div(h_next, n_next)
}"""
HEAD = """
    one = Constant<value = float {1.0}>()
    none = Constant<value = float {0.0}>()
    weight = Constant<value = float[3] {0.5, -0.25, 0.9}>()
    first = Constant<value = float[3] {1.0, 2.0, 3.0}>()
    shape = Shape(x)
    at = Constant<value_ints = [0]>()
    to = Constant<value_ints = [1]>()
    three = Constant<value_ints = [3]>()
    batch = Slice(shape, at, to)
    rows = Concat<axis = 0>(batch, three)
    h0 = Expand(first, rows)
"""


def test_scan_carries_states_and_a_count(tmp_path):
    """Carried values are states with their learned beginning, one of them without a batch axis; weights are read from around the body."""
    nodes = f"{HEAD} h, n, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], body = {BODY}>(h0, none, x)"
    report = check(saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes), tmp_path)
    h, n = report.spec.states
    assert (h.shape, n.shape) == ((3,), ())
    np.testing.assert_array_equal(h.initial_value(), [1, 2, 3])


def test_scan_waits_for_frames_that_come_late(tmp_path):
    """After a convolution that looks ahead the states hold until the first frame is there."""
    weights = ", ".join(str(v) for v in np.round(np.random.default_rng(1).normal(0, 0.5, 27), 3))
    kernel = f"k = Constant<value = float[3,3,3] {{{weights}}}>()"
    conv = f"{kernel} xt = Transpose<perm = [0, 2, 1]>(x) c = Conv<pads = [1, 1]>(xt, k)"
    nodes = f"{HEAD} {conv} f = Transpose<perm = [2, 0, 1]>(c) h, n, ys = Scan<num_scan_inputs = 1, body = {BODY}>(h0, none, f) y = Transpose<perm = [1, 0, 2]>(ys)"
    report = check(saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes), tmp_path)
    assert report.spec.delay == 1


def test_scan_of_several_frames_a_step(tmp_path):
    """With several frames a step the body is there once for each, and the end of a stream may lie within a step."""
    nodes = f"{HEAD} h, n, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], body = {BODY}>(h0, none, x)"
    source = saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes)
    assert check(source, tmp_path, frames_per_step=4).spec.frames_per_step == 4


def loop(read, tmp_path, end="more = Identity(go)", scan="xf"):
    """A whole-sequence graph whose Loop reads frame i as `read` says; the scan output is `scan`'s running mean."""
    body = f"""body (int64 i, bool go, float[B,3] h) => (bool more, float[B,3] h_next, float[B,3] y) {{
        {end}
        {read}
        half = Mul(h, weight)
        h_next = Add(half, {scan})
        y = Tanh(h_next)
    }}"""
    nodes = f"""{HEAD} yes = Constant<value = bool {{1}}>()
        axis = Constant<value_ints = [1]>() size = Slice(shape, axis, two) trips = Squeeze(size, at)
        i0 = Constant<value = int64 {{0}}>() i1 = Constant<value = int64 {{1}}>()
        h, ys = Loop<body = {body}>(trips, yes, h0)
        y = Transpose<perm = [1, 0, 2]>(ys)"""
    nodes = nodes.replace("axis = Constant", "two = Constant<value_ints = [2]>() axis = Constant")
    return saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes)


READS = {
    "Gather by a number": "xf = Gather<axis = 1>(x, i)",
    "Gather by a list": "li = Unsqueeze(i, at) g = Gather<axis = 1>(x, li) xf = Squeeze(g, axis)",
    "Slice": "a = Unsqueeze(i, at) b = Add(a, to) s = Slice(x, a, b, axis) xf = Squeeze(s, axis)",
    "the number itself": "xg = Gather<axis = 1>(x, i) fi = Cast<to = 1>(i) xf = Mul(xg, fi)",
}


@pytest.mark.parametrize("read", READS)
def test_loop_whose_body_is_a_step(tmp_path, read):
    """A Loop over the frames, as Keras and JAX export recurrences, becomes a step, however its body selects the frame."""
    report = check(loop(READS[read], tmp_path), tmp_path)
    assert len(report.spec.states) == (2 if read == "the number itself" else 1)


def test_loop_that_fills_a_tensor_and_counts_by_itself(tmp_path):
    """torch.while_loop: a carried counter ends the loop, results are written into a carried tensor, frames are carried unchanged."""
    body = """body (int64 i, bool go, int64 t, float[B,3] h, float[T,B,3] out, float[T,B,3] all) =>
        (bool more, int64 t_next, float[B,3] h_next, float[T,B,3] out_next, float[T,B,3] same) {
        lt = Unsqueeze(t, at)
        g = Gather<axis = 0>(all, lt)
        f = Squeeze(g, at)
        half = Mul(h, weight)
        h_next = Add(half, f)
        y1 = Unsqueeze(h_next, at)
        where = Unsqueeze(lt, to)
        out_next = ScatterND(out, where, y1)
        t_next = Add(t, i1)
        more = Less(t_next, trips)
        same = Identity(all)
    }"""
    nodes = f"""{HEAD} yes = Constant<value = bool {{1}}>() i1 = Constant<value = int64 {{1}}>() i0 = Constant<value = int64 {{0}}>()
        xt = Transpose<perm = [1, 0, 2]>(x)
        tshape = Shape(xt) size = Slice(tshape, at, to) trips = Squeeze(size, at)
        blank = ConstantOfShape(tshape)
        t, h, out, all = Loop<body = {body}>(, yes, i0, h0, blank, xt)
        y = Transpose<perm = [1, 0, 2]>(out)"""
    report = check(saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes), tmp_path)
    assert [s.shape for s in report.spec.states] == [(3,)]


REFUSED = {
    "the frame before": (
        "m = Sub(i, i1) k = Max(m, i0) xf = Gather<axis = 1>(x, k)",
        {},
        r"iteration i does not read frame i of 'x'",
    ),
    "no frame": (
        "m = ReduceMean<axes = [1], keepdims = 0>(x) xf = Mul(h, m)",
        {},
        r"selects no frame by the number of the iteration",
    ),
    "ends by value": (
        "xf = Gather<axis = 1>(x, i)",
        {"end": "big = ReduceMax<keepdims = 0>(h) more = Less(big, one)"},
        r"how often it runs depends on the values of frames",
    ),
    "every frame": (
        "xg = Gather<axis = 1>(x, i) m = ReduceMean<axes = [1], keepdims = 0>(x) xf = Add(xg, m)",
        {},
        r"its body reads 'x', which has all frames",
    ),
    "over streams": (
        "xg = Gather<axis = 1>(x, i) m = ReduceMean<axes = [0], keepdims = 1>(xg) xf = Add(xg, m)",
        {},
        r"axis 0, the batch; streams must not depend",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_loops_that_are_no_step_are_refused(tmp_path, case):
    """The message says what the body does that a step cannot."""
    read, options, message = REFUSED[case]
    with pytest.raises(ut.ExportError) as caught:
        ut.convert(loop(read, tmp_path, **options), tmp_path / "s.onnx")
    assert re.search(message, str(caught.value)), str(caught.value)


def test_scans_backwards_and_from_frames_are_refused(tmp_path):
    """A Scan from the last frame is refused with what to do, and so is one that begins with what frames give."""
    nodes = f"{HEAD} h, n, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], scan_input_directions = [1], body = {BODY}>(h0, none, x)"
    source = saved(tmp_path / "w.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes)
    with pytest.raises(ut.ExportError, match=r"from the last frame to the first.*run it forwards"):
        ut.convert(source, tmp_path / "s.onnx")
    nodes = f"{HEAD} last = ReduceMax<axes = [2], keepdims = 1>(x) h1 = Gather<axis = 1>(x, zero) h, n, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], body = {BODY}>(h1, none, x)"
    nodes = nodes.replace("h1 =", "zero = Constant<value = int64 {0}>() h1 =")
    source = saved(tmp_path / "w2.onnx", "(float[B,T,3] x) => (float[B,T,3] y)", nodes)
    with pytest.raises(
        ut.ExportError, match=r"begins with a value that is computed from the frames|selects frames along axis 1"
    ):
        ut.convert(source, tmp_path / "s.onnx")


# ------------------------------------------------------------------------------------------- LSTM, GRU and RNN themselves


def layer(path, kind, gates, layout=0, lens=None, **attributes):
    """One layer of 4 units over 3 features with a learned initial state, and the optional inputs that are asked for."""
    rng, hidden = np.random.default_rng(0), 4
    wanted = {"w": (1, gates * hidden, 3), "r": (1, gates * hidden, hidden), "b": (1, 2 * gates * hidden)}
    if attributes.pop("peepholes", False):
        wanted["p"] = (1, 3 * hidden)
    held = [numpy_helper.from_array(rng.normal(0, 0.6, s).astype(np.float32), n) for n, s in wanted.items()]
    first = rng.normal(0, 1, (1, 1, hidden)).astype(np.float32)
    held += [numpy_helper.from_array(first, "first"), numpy_helper.from_array(np.array([hidden]), "four")]
    held += [numpy_helper.from_array(np.array([v]), f"i{v}") for v in range(3)]
    order = [0, 1, 2] if layout else [1, 0, 2]
    text = helper.make_node
    sizes = ["batch", "i1", "four"] if layout else ["i1", "batch", "four"]
    nodes = [
        text("Shape", ["x"], ["shape"]),
        text("Slice", ["shape", "i0", "i1"], ["batch"]),
        text("Slice", ["shape", "i1", "i2"], ["length"]),
        text("Concat", sizes, ["rows"], axis=0),
        text("Expand", ["first", "rows"], ["h0"]),
        text("Transpose", ["x"], ["xt"], perm=order),
    ]
    if lens is not None:
        nodes += [text("Add", ["length", f"i{lens}"], ["longer"]), text("Expand", ["longer", "batch"], ["many"])]
        nodes += [text("Cast", ["many"], ["lens"], to=TensorProto.INT32)]
    states = ["h0", "h0" if kind == "LSTM" else ""]
    inputs = ["xt", "w", "r", "b", "lens" if lens is not None else "", *states, "p" if "p" in wanted else ""]
    while not inputs[-1]:
        inputs.pop()
    nodes.append(text(kind, inputs, ["ys"], hidden_size=hidden, layout=layout, **attributes))
    nodes.append(text("Squeeze", ["ys", "i2" if layout else "i1"], ["flat"]))
    nodes.append(text("Transpose", ["flat"], ["y"], perm=order))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["B", "T", 3])], [value("y", 1, ["B", "T", 4])], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


LAYERS = {
    "peepholes and clip": ("LSTM", 4, {"peepholes": True, "clip": 0.4}),
    "coupled gates": ("LSTM", 4, {"input_forget": 1}),
    "LSTM activations": ("LSTM", 4, {"activations": ["HardSigmoid", "Softsign", "Relu"]}),
    "linear before reset": ("GRU", 3, {"linear_before_reset": 1, "clip": 0.5}),
    "reset before linear": ("GRU", 3, {"linear_before_reset": 0}),
    "GRU activations": (
        "GRU",
        3,
        {"activations": ["Sigmoid", "ScaledTanh"], "activation_alpha": [0.7], "activation_beta": [0.5]},
    ),
    "RNN activation": ("RNN", 1, {"activations": ["LeakyRelu"], "activation_alpha": [0.1]}),
    "lengths of all frames": ("LSTM", 4, {"lens": 0}),
}


@pytest.mark.parametrize("case", LAYERS)
def test_every_attribute_of_recurrent_layers(tmp_path, case):
    """Peepholes, clipping, activations and their numbers, both kinds of GRU: as ONNX Runtime computes them over the whole sequence."""
    kind, gates, attributes = LAYERS[case]
    report = check(layer(tmp_path / "w.onnx", kind, gates, **attributes), tmp_path, compiled="activations" not in case)
    assert np.abs(report.spec.states[0].initial_value()).min() > 0


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_batch_first_layers(tmp_path, kind, gates):
    """layout=1, which ONNX Runtime does not run: the steps give what ONNX's own reference gives."""
    source = layer(tmp_path / "w.onnx", kind, gates, layout=1)
    ut.convert(source, tmp_path / "s.onnx")
    same = layer(tmp_path / "same.onnx", kind, gates, layout=0)
    x = np.random.default_rng(3).normal(0, 1, (1, 9, 3)).astype(np.float32)
    expected = np.asarray(ReferenceEvaluator(str(same)).run(None, {"x": x})[0])[0]
    np.testing.assert_allclose(pushed(tmp_path / "s.onnx", [x[0]])[0], expected, atol=2e-5, rtol=1e-4)


def test_other_lengths_than_the_frames_are_refused(tmp_path):
    """sequence_lens that are not the number of frames mean padding, which streams do not have."""
    rest = layer(tmp_path / "w.onnx", "GRU", 3, lens=0)
    model = onnx.load(rest)
    node = next(n for n in model.graph.node if n.op_type == "Add" and "longer" in n.output)
    node.op_type = "Sub"
    node.input[1] = "i1"
    onnx.save(model, rest)
    with pytest.raises(ut.ExportError, match=r"lengths that are not those of the frames.*leave sequence_lens out"):
        ut.convert(rest, tmp_path / "s.onnx")
