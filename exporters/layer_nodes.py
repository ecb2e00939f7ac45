"""The operators of `exporters.nn` as ONNX nodes, traced by torch's exporter: scans with a body of one frame, bidirectional layers.

Bodies are in ONNX's own text. A Scan runs along its inputs' first axis, so time is put there and back.
"""

import ast
from typing import Any

import onnx
import onnx_ir as ir
import onnxscript
import torch

from .both_ways import as_node
from .nn import bidirectional, norms, scan  # noqa: F401  they register the operators that are translated here
from .recurrent import TRANSLATIONS as RECURRENT
from .recurrent_rule import LAYER_KEY, LOOKAHEAD_KEY

op: Any = onnxscript.opset18

_LINEAR = """linear_scan (float[] h, float[] a, float[] b) => (float[] h_next, float[] y) {
    kept = Mul (a, h)
    h_next = Add (kept, b)
    y = Identity (h_next)
}"""

_COMPLEX = """complex_scan (float[] re, float[] im, float[] x_re, float[] x_im, float[] decay_re, float[] decay_im)
    => (float[] re_next, float[] im_next, float[] y_re, float[] y_im) {
    a = Mul (decay_re, re)
    b = Mul (decay_im, im)
    c = Mul (decay_re, im)
    d = Mul (decay_im, re)
    turned_re = Sub (a, b)
    turned_im = Add (c, d)
    re_next = Add (turned_re, x_re)
    im_next = Add (turned_im, x_im)
    y_re = Identity (re_next)
    y_im = Identity (im_next)
}"""

_MOMENTS = """running_moments (float[] weight, float[] mean, float[] var, float[] x, float decay, float one)
    => (float[] weight_next, float[] mean_next, float[] var_next, float[] y_mean, float[] y_var) {
    kept = Mul (decay, weight)
    weight_next = Add (kept, one)
    share = Div (one, weight_next)
    rest = Div (kept, weight_next)
    off = Sub (x, mean)
    moved = Mul (share, off)
    mean_next = Add (mean, moved)
    spread = Mul (moved, off)
    widened = Add (var, spread)
    var_next = Mul (rest, widened)
    y_mean = Identity (mean_next)
    y_var = Identity (var_next)
}"""

_BODIES = ("linear_scan", "complex_scan", "running_moments")


def _scanned(body: str, states: list[Any], frames: list[Any], captured: list[Any]) -> list[Any]:
    """What the body's outputs (the states first) give along axis 1 of `frames`. captured: values that the body reads from outside."""
    graph = ir.serde.deserialize_graph(onnx.parser.parse_graph(body))
    for inner, outer in zip(graph.inputs[len(states) + len(frames) :], captured, strict=True):
        ir.convenience.replace_all_uses_with(inner, outer)
    del graph.inputs[len(states) + len(frames) :]
    turned = [op.Transpose(x, perm=_time_first(x)) for x in frames]
    node = op.Scan(*states, *turned, body=graph, num_scan_inputs=len(frames)).producer()
    node.resize_outputs(len(graph.outputs))
    results = node.outputs[len(states) :]
    for y in results:
        y.dtype = ir.DataType.FLOAT
    return [op.Transpose(y, perm=_time_first(frames[0])) for y in results]


def _time_first(x: Any) -> list[int]:
    return [1, 0, *range(2, len(x.shape))]


def _zeros(x: Any, size: int) -> Any:
    """(B, size) for x (B, ...)."""
    batch = op.Shape(x, start=0, end=1)
    return op.Expand(op.Constant(value_float=0.0), op.Concat(batch, op.Constant(value_ints=[size]), axis=0))


def _linear_scan(a: Any, b: Any, h0: Any) -> Any:
    return _scanned(_LINEAR, [h0], [a, b], [])[0]


def _complex_scan(decay_re: Any, decay_im: Any, x_re: Any, x_im: Any) -> Any:
    zeros = _zeros(x_re, int(x_re.shape[2]))
    return tuple(_scanned(_COMPLEX, [zeros, zeros], [x_re, x_im], [decay_re, decay_im]))


def _running_moments(x: Any, decay: float) -> Any:
    numbers = [op.Constant(value_float=decay), op.Constant(value_float=1.0)]
    zeros = _zeros(x, int(x.shape[2]))
    return tuple(_scanned(_MOMENTS, [_zeros(x, 1), zeros, zeros], [x], numbers))


def _latency_controlled(x, forward, reverse, kind="", lookahead=0, name=""):
    """One bidirectional node over x (B, T, F); its metadata says how far the reverse direction looks ahead."""
    y, _, _ = as_node(op.Transpose(x, perm=[1, 0, 2]), (forward, reverse), None, None, kind, name)
    y.producer().metadata_props[LOOKAHEAD_KEY] = str(lookahead)
    frames = op.Transpose(y, perm=[2, 0, 1, 3])  # (B, T, 2, H)
    return op.Reshape(frames, op.Constant(value_ints=[0, 0, 2 * int(forward[1].shape[1])]))


TRANSLATIONS = RECURRENT | {
    torch.ops.undertow.linear_scan.default: _linear_scan,
    torch.ops.undertow.complex_scan.default: _complex_scan,
    torch.ops.undertow.running_moments.default: _running_moments,
    torch.ops.undertow.latency_controlled.default: _latency_controlled,
}


def named_scans(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, in which each Scan that is written here is called by the module that it comes from, as recurrent layers are."""
    for node in model.graph.node:
        body = next((a.g.name for a in node.attribute if a.name == "body"), "")
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        if node.op_type == "Scan" and body in _BODIES:
            path = [""] + [scope for scope in ast.literal_eval(scopes) if scope.split(".")[0] == "module"]
            node.metadata_props.add(key=LAYER_KEY, value=path[-1].removeprefix("module").removeprefix(".") or body)
    return model
