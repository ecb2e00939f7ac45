"""The wider operator set of the compiled backend, many operators to a graph, against ONNX's reference and ONNX Runtime."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from undertow.engine import Engine
from undertow.engine.artifact import Artifact
from undertow.engine.compiler import generate, missing
from undertow.engine.errors import BatchError, FrameError

from .checks import assert_close, assert_same_bits
from .graphs import bare, frames
from .naive import NaiveEngine
from .step_graph import StepGraph
from .wide_graphs import wide_step_graphs

ROWS = 67
NOT_BY_REFERENCE = {
    "average_line"
}  # with ceil_mode it begins the first window before the first entry; ONNX Runtime does not
INTS = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "uint8": TensorProto.UINT8, "int8": TensorProto.INT8}


def products() -> Artifact:
    """Products of two computed values, of constants on either side and of any rank; the batch axis in several places."""
    g = StepGraph(opset=18)
    q, kv, h = g.input("q", (2, 5)), g.input("kv", (2, 9, 5)), g.state("h", (2, 9, 5), initial=0.25)
    g.next("h", kv)
    scores = g.op("MatMul", g.op("Unsqueeze", q, g.ints(2)), g.op("Transpose", kv, perm=[0, 1, 3, 2]))
    g.output("scores", scores, (2, 1, 9))
    g.output("attended", g.op("MatMul", g.op("Softmax", scores), h), (2, 1, 5))
    g.output("left", g.op("MatMul", g.noise(3, 9), kv), (2, 3, 5))
    g.output("ranked", g.op("MatMul", kv, g.noise(2, 5, 33)), (2, 9, 33))
    g.output("spread", g.op("MatMul", g.op("Unsqueeze", q, g.ints(1)), g.noise(4, 5, 3)), (4, 2, 3))
    g.output("vector", g.op("MatMul", kv, g.noise(5)), (2, 9))
    g.output("row", g.op("MatMul", g.noise(9), kv), (2, 5))
    turned = g.op("Transpose", g.op("Flatten", q), perm=[1, 0])
    g.output("trans_a", g.op("Gemm", turned, g.noise(10, 4), g.noise(4), transA=1, alpha=0.5), (4,))
    back = g.op("Gemm", g.noise(6, 10), turned, alpha=2.0)
    g.output("constant_first", g.op("Transpose", back, perm=[1, 0]), (6,))
    bias = g.op("Slice", g.op("Flatten", q), g.ints(0), g.ints(4), g.ints(1))
    g.output("computed_bias", g.op("Gemm", g.op("Flatten", q), g.noise(10, 4), bias, beta=0.5), (4,))
    middle = g.op("Transpose", q, perm=[1, 0, 2])
    g.output("batch_inside", g.op("Transpose", g.op("MatMul", middle, g.noise(2, 5, 3)), perm=[1, 0, 2]), (2, 3))
    for name, equation, other, shape in [
        ("weights", "bhd,dhe->bhe", g.noise(5, 2, 3), (2, 3)),
        ("attention", "bhd,bhtd->bth", kv, (9, 2)),
        ("outer", "bhd,bhe->bhde", q, (2, 5, 5)),
        ("summed", "bhd,bhd->b", q, ()),
    ]:
        g.output(f"einsum_{name}", g.op("Einsum", q, other, equation=equation), shape)
    return g.artifact()


def windows() -> Artifact:
    """Convolutions and pools over one and two feature axes, padding, and the norms."""
    g = StepGraph(opset=23)
    x, h = g.input("x", (4, 6, 7)), g.state("h", (4, 6, 7), initial=0.5)
    line = g.input("line", (4, 11))
    g.next("h", g.op("Tanh", x))
    g.output(
        "conv", g.op("Conv", x, g.noise(6, 2, 3, 2), g.noise(6), group=2, pads=[1, 0, 2, 1], strides=[2, 1]), (6, 4, 7)
    )
    g.output("dilated", g.op("Conv", x, g.noise(3, 4, 2, 3), dilations=[2, 1], pads=[1, 1, 1, 1]), (3, 6, 7))
    for pad in ("SAME_LOWER", "VALID"):
        g.output(
            f"line_{pad}",
            g.op("Conv", line, g.noise(2, 4, 4), auto_pad=pad, strides=[2]),
            (2, 4 if pad == "VALID" else 6),
        )
    pool: dict[str, Any] = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    g.output("max", g.op("MaxPool", x, **pool), (4, 3, 4))
    g.output("max_dilated", g.op("MaxPool", line, kernel_shape=[3], dilations=[2]), (4, 7))
    g.output("average", g.op("AveragePool", x, **pool), (4, 3, 4))
    g.output("average_pads", g.op("AveragePool", x, count_include_pad=1, **pool), (4, 3, 4))
    g.output("average_line", g.op("AveragePool", line, kernel_shape=[4], strides=[3], ceil_mode=1), (4, 4))
    g.output("global", g.op("GlobalAveragePool", x), (4, 1, 1))
    g.output("global_max", g.op("GlobalMaxPool", h), (4, 1, 1))
    pads = g.ints(0, 1, 0, 2, 0, 0, 3, 1)
    g.output("pad", g.op("Pad", x, pads, g.weight(-1.5)), (5, 9, 10))
    for mode in ("reflect", "edge"):
        g.output(f"pad_{mode}", g.op("Pad", line, g.ints(0, 0, 3, 0, 0, 2), mode=mode), (4, 16))
    g.output("group", g.op("GroupNormalization", x, g.noise(4), g.noise(4), num_groups=2, epsilon=1e-3), (4, 6, 7))
    g.output("instance", g.op("InstanceNormalization", line, g.noise(4), g.noise(4)), (4, 11))
    positive = g.weight(np.array([0.5, 1.0, 2.0, 0.25]))
    g.output("batch", g.op("BatchNormalization", x, g.noise(4), g.noise(4), g.noise(4), positive), (4, 6, 7))
    for kind in ("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"):
        g.output(f"{kind}_last", g.op(kind, x, g.ints(-1), keepdims=0), (4, 6))
    g.output("root", g.op("RMSNormalization", line, g.noise(11), axis=-1, epsilon=1e-4), (4, 11))
    g.output("log_sum", g.op("ReduceLogSum", g.op("Abs", x), g.ints(2, 3), keepdims=0), (4,))
    return g.artifact()


def places() -> Artifact:
    """Indices that are constants, inputs, and computed in bounds; scatters, scans, one-hot, the k largest."""
    g = StepGraph(opset=18)
    x, n = g.input("x", (3, 6)), g.input("n", (2,), "int64")
    token, at = g.state("token", (), "int64", initial=2), g.state("at", (1,), "int32", initial=0)
    h = g.state("h", (3, 6), initial=np.arange(18.0).reshape(3, 6))
    best = g.op("ArgMax", x, axis=2, keepdims=0)
    g.next(
        "h",
        g.op(
            "ScatterElements",
            h,
            g.op("Unsqueeze", best, g.ints(2)),
            g.op("Slice", x, g.ints(0), g.ints(1), g.ints(2)),
            axis=2,
        ),
    )
    g.next("token", g.op("Squeeze", g.op("Slice", best, g.ints(1), g.ints(2), g.ints(1)), g.ints(1)))
    g.next("at", g.op("Mod", g.op("Add", at, g.weight([1], "int32")), g.weight([6], "int32")))
    g.output("embedded", g.op("Gather", g.noise(6, 4), token), (4,))
    g.output(
        "ring",
        g.op("GatherElements", h, g.op("Expand", g.op("Unsqueeze", at, g.ints(1)), g.ints(1, 3, 1)), axis=2),
        (3, 1),
    )
    g.output("rows", g.op("Gather", g.noise(11, 2), g.op("Cast", n, to=TensorProto.INT32)), (2, 2))
    g.output("several", g.op("Gather", x, g.ints(4, 0, 0, -1), axis=2), (3, 4))
    g.output("table", g.op("Gather", x, g.weight([[0, 2], [1, -1]], "int64"), axis=1), (2, 2, 6))
    g.output("backwards", g.op("Gather", x, g.ints(5, 3, 1), axis=-1), (3, 3))
    clipped = g.op("Clip", g.op("Sub", n, g.ints(4)), g.weight(-3, "int64"), g.weight(2, "int64"))
    wanted = g.op("Unsqueeze", clipped, g.ints(2))
    g.output("own", g.op("GatherND", x, wanted, batch_dims=1), (2, 6))
    g.output("elements", g.op("GatherElements", x, g.op("Expand", wanted, g.ints(1, 1, 6)), axis=1), (2, 6))
    turned, updates = g.op("Transpose", x, perm=[1, 2, 0]), g.op("Transpose", h, perm=[1, 2, 0])
    piece = g.op("Slice", updates, g.ints(0), g.ints(2), g.ints(0))
    nd = g.op("ScatterND", turned, g.weight([[2], [-3]], "int64"), piece)
    g.output("scatter_nd", g.op("Transpose", nd, perm=[2, 0, 1]), (3, 6))
    added = g.op("ScatterND", turned, g.weight([[2], [2]], "int64"), piece, reduction="add")
    g.output("scatter_add", g.op("Transpose", added, perm=[2, 0, 1]), (3, 6))
    g.output("sum", g.op("CumSum", x, g.weight(1, "int64")), (3, 6))
    for more in ({"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        g.output(f"sum_{'_'.join(more)}", g.op("CumSum", x, g.weight(-1, "int64"), **more), (3, 6))
    rounded = g.op("Round", x)
    g.output("least", g.op("ArgMin", rounded, axis=1), (1, 6), "int64")
    g.output("last_most", g.op("ArgMax", rounded, axis=-1, keepdims=0, select_last_index=1), (3,), "int64")
    for axis, shape in ((1, (2, 6)), (2, (3, 2))):
        names = [g.fresh(), g.fresh()]
        values, where = g.op_many("TopK", rounded, g.ints(2), names=names, axis=axis, largest=axis - 1)
        g.output(f"top_{axis}", values, shape)
        g.output(f"top_{axis}_at", where, shape, "int64")
    g.output("sum_whole", g.op("CumSum", n, g.weight(1, "int64")), (2,), "int64")
    g.output("hot", g.op("OneHot", g.op("Sub", n, g.ints(5)), g.weight(5, "int64"), g.weight([0.25, 2.0])), (2, 5))
    g.output("hot_first", g.op("OneHot", n, g.weight(3, "int64"), g.weight([0, 7], "int64"), axis=1), (3, 2), "int64")
    return g.artifact()


def numbers() -> Artifact:
    """Powers, angles, whole numbers, types between, broadcasting of constants, shapes that are computed."""
    g = StepGraph(opset=20)
    x, n, h = g.input("x", (3, 5)), g.input("n", (4,), "int64"), g.state("h", (3, 5), initial=0.75)
    g.next("h", g.op("Add", g.op("Abs", x), g.weight([0.25])))
    wide = g.op("Mul", x, g.weight([2500.0]))
    for kind in ("Sin", "Cos"):
        g.output(f"{kind}_wide", g.op(kind, wide), (3, 5))
    g.output("tan", g.op("Tan", x), (3, 5))
    for p in (2.0, 3.0, 0.5, -1.0, 5.0, -3.0, 1.7, 0.0):
        g.output(f"pow_{p}", g.op("Pow", h, g.weight(p)), (3, 5))
    g.output("pow_odd", g.op("Pow", x, g.weight(5.0)), (3, 5))
    g.output("pow_each", g.op("Pow", h, g.noise(5)), (3, 5))
    g.output("pow_computed", g.op("Pow", h, x), (3, 5))
    g.output("cubes", g.op("Pow", n, g.weight(3, "int64")), (4,), "int64")
    seven = g.op("Sub", g.op("Mul", n, g.ints(3)), g.ints(7))
    for d in (4, -3):
        g.output(f"div_{d}", g.op("Div", seven, g.ints(d)), (4,), "int64")
        g.output(f"mod_{d}", g.op("Mod", seven, g.ints(d)), (4,), "int64")
        g.output(f"fmod_{d}", g.op("Mod", seven, g.ints(d), fmod=1), (4,), "int64")
    g.output("fmod", g.op("Mod", x, g.weight([0.75]), fmod=1), (3, 5))
    g.output("sign", g.op("Sign", seven), (4,), "int64")
    g.output("total", g.op("ReduceSum", seven, g.ints(1), keepdims=0), (), "int64")
    g.output("most", g.op("ReduceMax", seven, g.ints(1)), (1,), "int64")
    for name, kind in INTS.items():
        g.output(f"cast_{name}", g.op("Cast", g.op("Cast", n, to=kind), to=TensorProto.FLOAT), (4,))
    for name, kind in (("float64", TensorProto.DOUBLE), ("float16", TensorProto.FLOAT16)):
        there = g.op("Cast", x, to=kind)
        doubled = g.op("Mul", there, there) if name == "float64" else there
        g.output(f"cast_{name}", g.op("Cast", doubled, to=TensorProto.FLOAT), (3, 5))
    nan = g.op("Sqrt", x)
    g.output("nan", g.op("IsNaN", nan), (3, 5), "bool")
    g.output("infinite", g.op("IsInf", g.op("Div", h, g.weight([0.0]))), (3, 5), "bool")
    mask = g.weight(np.tri(3, 5) > 0, "bool")
    g.output("where", g.op("Where", mask, x, g.weight(-np.inf)), (3, 5))
    g.output("where_column", g.op("Where", g.op("Greater", x, g.weight(np.zeros((3, 1)))), g.noise(5), h), (3, 5))
    g.output("masked", g.op("Softmax", g.op("Add", x, g.weight(np.where(np.tri(3, 5), 0, -np.inf)))), (3, 5))
    for upper in (0, 1):
        g.output(f"triangle_{upper}", g.op("Trilu", x, g.weight(1, "int64"), upper=upper), (3, 5))
    g.output("tile", g.op("Tile", x, g.ints(1, 2, 3)), (6, 15))
    batch = g.op("Shape", x, end=1)
    rest = g.op("Slice", g.op("Shape", x), g.ints(1), g.ints(3), g.ints(0))
    g.output("shaped", g.op("Reshape", h, g.op("Concat", batch, g.ints(-1), axis=0)), (15,))
    zeros = g.op("ConstantOfShape", g.op("Concat", batch, rest, axis=0), value=tensor(0.5))
    g.output("zeros", g.op("Add", zeros, x), (3, 5))
    position = g.op(
        "Cast",
        g.op(
            "Range", g.weight(0, "int64"), g.op("Gather", g.op("Shape", x), g.weight(2, "int64")), g.weight(1, "int64")
        ),
        to=TensorProto.FLOAT,
    )
    g.output("expanded", g.op("Expand", position, g.op("Concat", batch, g.ints(2, 5), axis=0)), (2, 5))
    g.output(
        "late_batch",
        g.op("Transpose", g.op("Mul", g.op("Transpose", x, perm=[1, 2, 0]), g.noise(5, 1)), perm=[2, 0, 1]),
        (3, 5),
    )
    return g.artifact()


def tensor(value: float) -> Any:
    return numpy_helper.from_array(np.array([value], np.float32))


GRAPHS: dict[str, Callable[[], Artifact]] = {
    "products": products,
    "windows": windows,
    "places": places,
    "numbers": numbers,
}


@cache
def known(name: str) -> tuple[Artifact, Engine]:
    artifact = GRAPHS[name]()
    return artifact, Engine(artifact, backend="numba", max_streams=ROWS + 1)


def batch(artifact: Artifact, seed: int) -> dict[str, np.ndarray]:
    return frames(artifact.spec, ROWS, seed)


def by_reference(artifact: Artifact, parts: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Steps of the whole batch, by the evaluator that comes with the ONNX specification."""
    spec, evaluator, steps = artifact.spec, ReferenceEvaluator(artifact.model), []
    states = {s.name: np.stack([s.initial_value()] * ROWS) for s in spec.states}
    names = [v.name for v in artifact.model.graph.output]
    for part in parts:
        with np.errstate(all="ignore"):
            results = dict(zip(names, evaluator.run(None, part | states), strict=True))
        states = {s.name: results[s.next] for s in spec.states}
        steps.append({t.name: results[t.name] for t in spec.outputs if t.name not in NOT_BY_REFERENCE})
    return steps


@pytest.mark.parametrize("name", GRAPHS)
def test_like_the_reference(name: str) -> None:
    """Three steps of 67 streams give what ONNX's own reference gives of the batch, and one row alone has the same bits."""
    artifact, engine = known(name)
    assert missing(artifact) == []
    parts = [batch(artifact, seed) for seed in range(3)]
    expected = by_reference(artifact, parts)
    for key in list(engine.keys()):
        engine.drop(key)
    for part, wanted in zip(parts, expected, strict=True):
        got, _ = engine.step(range(ROWS), bare(artifact.spec, part))
        assert_close({n: v for n, v in got.items() if n not in NOT_BY_REFERENCE}, wanted, name, rtol=2e-5, atol=2e-5)
        engine_alone = {n: a[41:42] for n, a in part.items()}
        alone, _ = engine.step(["alone"], bare(artifact.spec, engine_alone))
        assert_same_bits({n: v[0] for n, v in alone.items()}, {n: v[41] for n, v in got.items()}, name)


@pytest.mark.parametrize("name", GRAPHS)
def test_like_onnx_runtime(name: str) -> None:
    """The same graphs on ONNX Runtime: within 1e-5 of the compiled program, whole numbers equal."""
    artifact, engine = known(name)
    other = Engine(artifact, backend="ort", max_streams=ROWS)
    for key in list(engine.keys()):
        engine.drop(key)
    for seed in range(2):
        part = bare(artifact.spec, batch(artifact, seed + 10))
        got, wanted = (e.step(range(ROWS), part)[0] for e in (engine, other))
        assert_close(got, wanted, name, rtol=1e-5, atol=1e-5)


@settings(max_examples=3)
@given(wide_step_graphs())
def test_random_graphs(artifact: Artifact) -> None:
    """Whatever graph the operators make: the oracle's outputs, ONNX Runtime's, and for a row alone the same bits as in a crowd."""
    engine = Engine(artifact, backend="numba", max_streams=ROWS + 1)
    other = Engine(artifact, backend="ort", max_streams=ROWS)
    parts = [batch(artifact, seed) for seed in range(3)]
    naive = NaiveEngine(artifact)
    for part in parts:
        got, _ = engine.step(range(ROWS), bare(artifact.spec, part))
        row = bare(artifact.spec, {n: a[41:42] for n, a in part.items()})
        alone, _ = engine.step(["alone"], row)
        mine = {n: v[41:42] for n, v in got.items()} if isinstance(got, dict) else got[41:42]
        assert_same_bits(alone, mine)
        assert_close(mine, naive.push("alone", row))
        assert_close(got, other.step(range(ROWS), bare(artifact.spec, part))[0], rtol=3e-5, atol=3e-5)


def oddities() -> Artifact:
    """What neither ONNX's reference nor ONNX Runtime takes, by the oracle: dilated padding by itself, pads that cut, a state as an index."""
    g = StepGraph()
    x = g.input("x", (3, 9))
    at = g.state("at", (1,), "int64", initial=3)
    g.next("at", g.op("Mod", g.op("Add", at, g.ints(2)), g.ints(4)))
    padded = g.op("Pad", x, g.ints(0, -1, 2, 0, 0, -3))
    g.output("pad", padded, (2, 8))
    g.output("conv", g.op("Conv", padded, g.noise(3, 2, 3), dilations=[2], auto_pad="SAME_UPPER"), (3, 8))
    g.output("wrap", g.op("Pad", x, g.ints(0, 0, 2, 0, 0, 3), mode="wrap"), (3, 14))
    g.output("table", g.op("Gather", g.noise(4, 3), at), (1, 3))
    return g.artifact()


def test_oddities() -> None:
    """Against the oracle, over steps in which the index comes from the state."""
    artifact = oddities()
    chunk = frames(artifact.spec, 6, seed=1)["x"]
    got = Engine(artifact, backend="numba", max_streams=2).push("a", chunk)
    assert_close(got, NaiveEngine(artifact).push("a", chunk))


def small(build: Callable[[StepGraph, str], str], shape: tuple[int, ...], dtype: str = "float32") -> Artifact:
    g = StepGraph(opset=18)
    x = g.input("x", (3, 4), dtype)
    g.state("count", (2,), "int64")
    g.next("count", g.op("Add", "count", g.ints(1)))
    g.output("y", build(g, x), shape)
    return g.artifact()


REFUSED: dict[str, tuple[Callable[[StepGraph, str], str], tuple[int, ...], str]] = {
    "a counter that grows": (lambda g, x: g.op("Gather", g.noise(5, 2), "count"), (2, 2), "Clip it in the graph"),
    "a float that was cast": (
        lambda g, x: g.op("Gather", g.noise(5, 2), g.op("Cast", x, to=TensorProto.INT64)), (3, 4, 2), "Clip it in the graph",
    ),
    "a part of an input": (
        lambda g, x: g.op("Gather", g.noise(5, 2), g.op("Slice", g.input("n", (2,), "int64"), g.ints(0), g.ints(1), g.ints(1))),
        (1, 2),
        "Clip it in the graph",
    ),
    "every stream into every stream": (
        lambda g, x: g.op("Gather", x, g.op("ArgMax", x, axis=2, keepdims=0), axis=1), (3, 3, 4), "every stream",
    ),
    "arithmetic with the batch": (
        lambda g, x: g.op("Reshape", x, g.op("Mul", g.op("Shape", x), g.ints(1, 1, 1))), (3, 4), "batch size",
    ),
    "the batch as a number": (
        lambda g, x: g.op("Mul", x, g.op("Cast", g.op("Shape", x, end=1), to=TensorProto.FLOAT)), (3, 4), "batch size",
    ),
    "a sum over the batch": (lambda g, x: g.op("CumSum", x, g.weight(0, "int64")), (3, 4), "batch axis"),
    "a product over the batch": (
        lambda g, x: g.op("MatMul", g.op("Transpose", x, perm=[1, 2, 0]), g.op("Transpose", x, perm=[1, 0, 2])), (4, 4), "batch",
    ),
    "an equation with a diagonal": (lambda g, x: g.op("Einsum", x, x, equation="bii,bij->bj"), (4,), "equation"),
    "an unknown operator": (lambda g, x: g.op("Atanh", x), (3, 4), "compiled set"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    """What cannot be compiled, or not safely, is refused with the node and the reason: nothing is guessed."""
    build, shape, reason = REFUSED[name]
    (message,) = missing(small(build, shape))
    assert message.startswith("node '")
    assert reason in message


def test_an_input_used_as_an_index_is_checked() -> None:
    """Through a cast and a reshape it is the stream's own error, before the step; the other stream goes on."""
    g = StepGraph(opset=18)
    n = g.input("n", (2,), "int64")
    g.output(
        "y",
        g.op("Gather", g.noise(5, 3), g.op("Reshape", g.op("Cast", n, to=TensorProto.INT32), g.ints(0, 2, 1))),
        (2, 1, 3),
    )
    engine = Engine(g.artifact(), backend="numba", max_streams=4)
    with pytest.raises(BatchError) as failed:
        engine.step(["good", "bad"], np.array([[-5, 4], [0, 5]]))
    assert set(failed.value.errors) == {"bad"}
    assert isinstance(failed.value.errors["bad"], FrameError)
    values, _ = failed.value.result
    np.testing.assert_array_equal(values[0, 0], engine.step(["good"], np.array([[0, 0]]))[0][0, 0])


def test_scratch_is_given_out_again() -> None:
    """A chain of a hundred operators needs the room of a few; a view keeps what it is a view of."""
    g = StepGraph()
    x = g.input("x", (64,))
    view = g.op("Slice", g.op("Tanh", x), g.ints(40), g.ints(64), g.ints(1))
    y = x
    for _ in range(100):
        y = g.op("Tanh", y)
    g.output("y", g.op("Add", g.op("Slice", y, g.ints(0), g.ints(24), g.ints(1)), view), (24,))
    source = generate(g.artifact())
    assert source.scratch_row <= 6 * (64 * 4 + 64) + 128
