"""ONNX graphs that are steps already: adopted, they give what a plain loop over one stream gives."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import undertow as ut

from .certificates import compiled, without_compiling  # noqa: F401
from .onnx_texts import LEAKY, leaky, naive_leaky, noise, pushed, saved


def check_leaky(path, shape=(4,), **close):
    """Three streams of different lengths beside NumPy."""
    sequences = noise((5, *shape), (1, *shape), (13, *shape))
    for given, x in zip(pushed(path, sequences), sequences, strict=True):
        np.testing.assert_allclose(given, naive_leaky(x, **close), atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("h", "h_next"),
        ("h0", "hn"),
        ("h_0", "h_n"),
        ("state", "stateN"),
        ("prev_h", "new_h"),
        ("cache_in", "cache_out"),
        ("past_a", "present_a"),
        ("onnx_memory_1", "onnx_memory_1_updated"),
    ],
)
def test_names_pair_states(old, new, tmp_path):
    """A state and its next value are found by the ways in which exporters name them, although the frame has the state's shape."""
    report = ut.adopt(leaky(tmp_path / "step.onnx", old, new), tmp_path / "out.onnx")
    assert [(s.name, s.next) for s in report.spec.states] == [(old, new)]
    assert [t.name for t in report.spec.inputs] == ["x"]
    assert [t.name for t in report.spec.outputs] == ["y"]
    check_leaky(report.path)


def test_pairs_that_are_said(tmp_path):
    """Names that tell nothing are paired as the caller says."""
    report = ut.adopt(leaky(tmp_path / "step.onnx", "u", "v"), tmp_path / "out.onnx", states={"u": "v"})
    check_leaky(report.path)


def test_a_state_is_found_by_its_shape_where_its_name_says_that_it_is_one(tmp_path):
    """`hidden` goes with the one output of its shape, whatever that is called."""
    body = "one = Constant<value_ints = [1]>() s = ReduceSum<keepdims = 1>(x, one) v = Add(hidden, s) y = Tanh(v)"
    body += " z = Concat<axis = 1>(y, y)"
    path = saved(tmp_path / "s.onnx", "(float[B,4] x, float[B,1] hidden) => (float[B,2] z, float[B,1] v)", body)
    assert [(s.name, s.next) for s in ut.adopt(path, tmp_path / "out.onnx").spec.states] == [("hidden", "v")]


@pytest.mark.parametrize("shape", ["B,4", "1,4"])
def test_both_backends(shape, tmp_path, compiled):  # noqa: F811
    """The certificate has a line for each backend, verify agrees, and the compiled one runs three streams as NumPy does."""
    report = ut.adopt(leaky(tmp_path / "step.onnx", shape=shape), tmp_path / "out.onnx")
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    assert "step.onnx in a loop" in report.parity[0].reference
    assert ut.verify(report.path).ok
    sequences = noise((5, 4), (2, 4), (9, 4))
    for given, x in zip(pushed(report.path, sequences, "numba"), sequences, strict=True):
        np.testing.assert_allclose(given, naive_leaky(x), atol=1e-5)


def test_batch_axis_of_a_state_is_not_the_first(tmp_path):
    """A state (layers, batch, features), as torch has it, is a state (layers, features) of each stream."""
    body = """
        zero = Constant<value_ints = [0]>()
        up = Unsqueeze(x, zero)
        both = Concat<axis = 0>(up, up)
        half = Constant<value = float {0.5}>()
        old = Mul(half, h)
        h_next = Add(old, both)
        all = Tanh(h_next)
        i = Constant<value_int = 1>()
        y = Gather<axis = 0>(all, i)
    """
    path = saved(tmp_path / "s.onnx", "(float[N,4] x, float[2,N,4] h) => (float[N,4] y, float[2,N,4] h_next)", body)
    report = ut.adopt(path, tmp_path / "out.onnx")
    assert report.spec.states[0].shape == (2, 4)
    check_leaky(report.path)


def test_batch_axis_of_an_input_that_is_said(tmp_path):
    """Frames (features, batch) are turned where the caller says so."""
    body = LEAKY.replace("y = Tanh(h_next)", "t = Tanh(h_next) y = Identity(t)")
    path = saved(tmp_path / "s.onnx", "(float[4,N] x, float[4,N] h) => (float[4,N] y, float[4,N] h_next)", body)
    report = ut.adopt(path, tmp_path / "out.onnx", batch_axes={"x": 1, "h": 1})
    assert report.spec.inputs[0].shape == (4,)
    check_leaky(report.path)


FIXED = """
    flat = Constant<value = int64[2] {1, -1}>()
    full = Constant<value = int64[3] {1, 2, 2}>()
    square = Reshape(x, full)
    t = Transpose<perm = [0, 1, 2]>(square)
    line = Reshape(t, flat)
    half = Constant<value = float {0.5}>()
    old = Mul(half, h)
    h_next = Add(old, line)
    y = Tanh(h_next)
"""


def test_a_batch_fixed_at_one_is_freed(tmp_path):
    """Reshapes to constant sizes with a 1 in them take any batch, and the engine steps three streams in one call."""
    path = saved(tmp_path / "s.onnx", "(float[1,4] x, float[1,4] h) => (float[1,4] y, float[1,4] h_next)", FIXED)
    report = ut.adopt(path, tmp_path / "out.onnx")
    assert report.spec.batchable
    assert report.notes == ()
    check_leaky(report.path)


@pytest.mark.parametrize("axes", ["1,1,4", "1,4,1"])
def test_the_batch_axis_among_several_of_size_one(axes, tmp_path):
    """Which 1 of a state's shape is the batch is found by trying: only with the right one three streams keep apart."""
    turned = "1,4" if axes == "1,1,4" else "4,1"
    perm = [1, 0] if turned == "4,1" else [0, 1]
    body = f"""
        shape = Constant<value = int64[3] {{{axes}}}>()
        xt = Transpose<perm = {perm}>(x)
        zero = Constant<value_ints = [0]>()
        up = Unsqueeze(xt, zero)
        half = Constant<value = float {{0.5}}>()
        old = Mul(half, h)
        h_next = Add(old, up)
        t = Tanh(h_next)
        down = Squeeze(t, zero)
        y = Transpose<perm = {perm}>(down)
    """
    path = saved(tmp_path / "s.onnx", f"(float[1,4] x, float[{axes}] h) => (float[1,4] y, float[{axes}] h_next)", body)
    report = ut.adopt(path, tmp_path / "out.onnx")
    assert report.spec.batchable
    assert np.prod(report.spec.states[0].shape) == 4
    check_leaky(report.path)


COUNTING = """
    one = Constant<value = float {1.0}>()
    count_next = Add(count, one)
    y = Div(x, count_next)
"""


def test_a_graph_that_takes_one_stream_at_a_time(tmp_path):
    """A counter that all rows of a batch would share makes the graph unbatchable: the note says why, streams still keep apart."""
    path = saved(tmp_path / "s.onnx", "(float[B,4] x, float count) => (float[B,4] y, float count_next)", COUNTING)
    report = ut.adopt(path, tmp_path / "out.onnx", states={"count": "count_next"})
    assert not report.spec.batchable
    assert "'count' has no batch axis" in report.notes[0]
    sequences = noise((5, 4), (2, 4), (9, 4))
    for given, x in zip(pushed(report.path, sequences), sequences, strict=True):
        np.testing.assert_allclose(given, x / np.arange(1, len(x) + 1)[:, None], rtol=1e-6)
    with pytest.raises(ut.BackendError, match="a graph that takes one stream at a time; use backend='ort'"):
        ut.Engine(report.path, backend="numba")
    assert ut.verify(report.path).ok
    assert ut.Engine(report.path).backend == "ort"


def test_a_graph_that_mixes_its_batch_is_run_one_by_one(tmp_path):
    """Where three streams do not give what each gives alone, though the graph runs them, it is not batched."""
    body = (
        LEAKY.replace("y = Tanh(h_next)", "m = ReduceMean<axes = [0], keepdims = 1>(h_next) d = Sub(h_next, m)")
        + "e = Add(d, m) y = Add(e, m)"
    )
    path = saved(tmp_path / "s.onnx", "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next)", body)
    report = ut.adopt(path, tmp_path / "out.onnx")
    assert not report.spec.batchable
    assert "is not that of the three alone" in report.notes[0]


CHOICE = """
    fast = Constant<value = int64 {16000}>()
    is_fast = Equal(sr, fast)
    h_next, y = If (is_fast) <
        then_branch = a () => (float[N,4] n, float[N,4] o) {
            half = Constant<value = float {0.5}>()
            old = Mul(half, h)
            n = Add(old, x)
            size = Shape(x)
            one = Constant<value_ints = [1]>()
            features = Gather(size, one)
            four = Constant<value_ints = [4]>()
            same = Equal(features, four)
            o = If (same) <
                then_branch = c () => (float[N,4] p) { p = Tanh(n) },
                else_branch = d () => (float[N,4] p) { p = Sin(n) }
            >
        },
        else_branch = b () => (float[N,4] n, float[N,4] o) { n = Sub(x, h) o = Neg(n) }
    >
"""


def test_constants_choose_branches(tmp_path):
    """Ifs whose condition a constant or a size decides are gone, nested ones too, and each value gives its own model."""
    path = saved(
        tmp_path / "s.onnx",
        "(float[B,4] x, int64 sr, float[B,4] h) => (float[B,4] y, float[B,4] h_next)",
        CHOICE,
    )
    fast = ut.adopt(path, tmp_path / "fast.onnx", constants={"sr": 16000})
    slow = ut.adopt(path, tmp_path / "slow.onnx", constants={"sr": 8000})
    for report in (fast, slow):
        assert "If" not in {n.op_type for n in onnx.load(report.path).graph.node}
        assert [t.name for t in report.spec.inputs] == ["x"]
    check_leaky(fast.path)
    (x,) = noise((3, 4))
    expected = [-x[0], x[0] - x[1], x[1] - x[0] - x[2]]
    np.testing.assert_allclose(pushed(slow.path, [x])[0], expected, atol=1e-6)


def test_a_constant_with_a_row_for_each_stream(tmp_path):
    """A constant whose first axis is the batch is repeated for every stream."""
    body = LEAKY.replace("h_next = Add(old, x)", "g = Mul(x, gain) h_next = Add(old, g)")
    signature = "(float[B,4] x, float[B,1] gain, float[B,4] h) => (float[B,4] y, float[B,4] h_next)"
    report = ut.adopt(saved(tmp_path / "s.onnx", signature, body), tmp_path / "out.onnx", constants={"gain": 2})
    assert report.spec.batchable
    (x,) = noise((6, 4))
    np.testing.assert_allclose(pushed(report.path, [x])[0], naive_leaky(2 * x), atol=1e-5)


SUMS = """
    one = Constant<value_ints = [1]>()
    s = ReduceSum<keepdims = 1>(x, one)
    h_next = Add(h, s)
    y = Identity(h_next)
"""


def naive_sums(x, block, extra):
    """Running sums of overlapping blocks."""
    padded = np.concatenate([np.zeros(extra, np.float32), x])
    sums = [padded[i : i + block + extra].sum() for i in range(0, len(x) // block * block, block)]
    return np.cumsum(sums)[:, None]


def test_overlap_in_samples(tmp_path):
    """With frames_per_step raw samples are pushed, in any chunks; the graph sees those of the last step again, first zeros."""
    path = saved(tmp_path / "s.onnx", "(float[B,T] x, float[B,1] h) => (float[B,1] y, float[B,1] h_next)", SUMS)
    report = ut.adopt(path, tmp_path / "out.onnx", overlap={"x": 3}, frames_per_step=8)
    assert report.spec.inputs[0].shape == ()
    assert [s.shape for s in report.spec.states] == [(3,), (1,)]
    sequences = noise((37,), (8,), (5,))
    for given, x in zip(pushed(report.path, sequences), sequences, strict=True):
        np.testing.assert_allclose(given, naive_sums(x, 8, 3).reshape(-1, 1), atol=1e-4)


@pytest.mark.parametrize("extra", [3, 11])
def test_overlap_in_frames(extra, tmp_path):
    """Frames of 8 samples, overlap shorter or longer than a frame."""
    size = 8 + extra
    path = saved(tmp_path / "s.onnx", f"(float[1,{size}] x, float[1,1] h) => (float[1,1] y, float[1,1] h_next)", SUMS)
    report = ut.adopt(path, tmp_path / "out.onnx", overlap={"x": extra})
    assert report.spec.inputs[0].shape == (8,)
    (x,) = noise((6, 8))
    np.testing.assert_allclose(pushed(report.path, [x])[0], naive_sums(x.ravel(), 8, extra), atol=1e-4)


def test_several_frames_a_step_and_several_outputs(tmp_path):
    """A graph over blocks (B, features, time): frames (features,) go in, as many outputs come out, whole steps only."""
    body = """
        axis = Constant<value = int64 {2}>()
        sums = CumSum(x, axis)
        all = Add(sums, h)
        last = Constant<value_ints = [-1]>()
        end = Constant<value_ints = [1000]>()
        two = Constant<value_ints = [2]>()
        h_next = Slice(all, last, end, two)
        y = Identity(all)
    """
    path = saved(tmp_path / "s.onnx", "(float[B,3,T] x, float[B,3,1] h) => (float[B,3,T] y, float[B,3,1] h_next)", body)
    report = ut.adopt(path, tmp_path / "out.onnx", frames_per_step=4, outputs_per_step=4)
    sequences = noise((14, 3), (4, 3), (3, 3))
    for given, x in zip(pushed(report.path, sequences), sequences, strict=True):
        np.testing.assert_allclose(given, np.cumsum(x[: len(x) // 4 * 4], 0), atol=1e-5)


def test_a_time_axis_of_one_frame(tmp_path):
    """An axis of time that a step has once is no part of the frame, nor of the output."""
    path = leaky(tmp_path / "s.onnx", shape="B,1,4")
    report = ut.adopt(path, tmp_path / "out.onnx", time_axis=1)
    assert report.spec.inputs[0].shape == report.spec.outputs[0].shape == (4,)
    check_leaky(report.path)


@pytest.mark.parametrize("initial", [2.0, np.array([1.0, -2.0, 3.0, 0.5]), np.array([[1.0, -2.0, 3.0, 0.5]])])
def test_initial_states(initial, tmp_path):
    """A state starts as the caller says: a number, one stream's array, or the graph's own with its batch of one."""
    report = ut.adopt(leaky(tmp_path / "s.onnx"), tmp_path / "out.onnx", initial={"h": initial})
    check_leaky(report.path, h=np.broadcast_to(np.asarray(initial, np.float32), (1, 4))[0])


DOUBLE = "two = Constant<value = float {2.0}>() z = Mul(y, two)"


def test_chain_linked_by_name(tmp_path):
    """An earlier graph's output goes to the later graph's input of that name; inner names that both have are kept apart."""
    first = leaky(tmp_path / "first.onnx")
    second = saved(
        tmp_path / "second.onnx",
        "(float[B,4] y, float[B,4] h) => (float[B,4] z, float[B,4] h_next)",
        LEAKY.replace("y = Tanh(h_next)", "z = Tanh(h_next)").replace("Add(old, x)", "Add(old, y)"),
    )
    report = ut.adopt([first, second], tmp_path / "out.onnx")
    assert [s.name for s in report.spec.states] == ["h", "second.h"]
    assert [t.name for t in report.spec.outputs] == ["z"]
    (x,) = noise((7, 4))
    np.testing.assert_allclose(pushed(report.path, [x])[0], naive_leaky(naive_leaky(x)), atol=1e-5)


@pytest.mark.parametrize("opset", [11, 17])
def test_chain_linked_by_hand(opset, tmp_path):
    """Outputs go where `links` says, an output that is read stays one where it is asked for; operator sets may differ."""
    first = leaky(tmp_path / "first.onnx")
    body = DOUBLE.replace("y,", "a,")
    second = saved(tmp_path / "second.onnx", "(float[N,4] a) => (float[N,4] z)", body, opset)
    report = ut.adopt([first, second], tmp_path / "out.onnx", links={"y": "a"}, outputs=["z", "y"])
    (x,) = noise((7, 4))
    out = ut.Engine(report.path, backend="ort").push("a", x)
    np.testing.assert_allclose(out["y"], naive_leaky(x), atol=1e-5)
    np.testing.assert_allclose(out["z"], 2 * naive_leaky(x), atol=1e-5)


SUM_STEP = "h_next = Add(h, x) y = Identity(h_next)"
SUM_WHOLE = "axis = Constant<value = int64 {1}>() y = CumSum(x, axis)"


def test_reference_of_whole_sequences(tmp_path):
    """The certificate has lines about the whole-sequence model too, and a step that is not that model is refused."""
    step = saved(tmp_path / "s.onnx", "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next)", SUM_STEP)
    whole = saved(tmp_path / "whole.onnx", "(float[B,T,4] x) => (float[B,T,4] y)", SUM_WHOLE)
    report = ut.adopt(step, tmp_path / "out.onnx", reference=whole)
    assert [p.reference.split(", ")[1] for p in report.parity] == [
        "s.onnx in a loop",
        "whole.onnx on the whole sequence",
    ]
    other = leaky(tmp_path / "other.onnx")
    with pytest.raises(ut.ExportError, match=r"the step differs from its reference.*whole.onnx on the whole sequence"):
        ut.adopt(other, tmp_path / "other.out.onnx", reference=whole)
    assert not (tmp_path / "other.out.onnx").exists()


def test_external_data_and_inputs_with_values(tmp_path):
    """Weights beside the file are read into the artifact, and an input that has an initializer is a weight."""
    body = LEAKY.replace("half = Constant<value = float {0.5}>()", "")
    signature = "(float[B,4] x, float half, float[B,4] h) => (float[B,4] y, float[B,4] h_next)"
    model = onnx.load(saved(tmp_path / "s.onnx", signature, body))
    model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "half"))
    onnx.save(model, tmp_path / "s.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").exists()
    report = ut.adopt(tmp_path / "s.onnx", tmp_path / "out.onnx")
    (tmp_path / "weights.bin").unlink()
    check_leaky(report.path)


def test_frames_of_no_fixed_size(tmp_path):
    """One frame's shape is what the caller says where the graph leaves it open; the state's too."""
    path = leaky(tmp_path / "s.onnx", shape="B,F")
    report = ut.adopt(path, tmp_path / "out.onnx", shapes={"x": (4,), "h": (4,)})
    check_leaky(report.path)
    assert report.spec.inputs[0].shape == (4,)


def test_notes_on_layers_that_start_anew(tmp_path):
    """A recurrent layer that no state reaches, forwards or both ways, is named in a note: right inside of a frame, wrong over time."""
    for direction, count, words in (("forward", 1, "is reached by no state"), ("bidirectional", 2, "starts anew")):
        body = f"""
            one = Constant<value_ints = [1]>()
            weight = Constant<value = float {{0.25}}>()
            ws = Constant<value = int64[3] {{{count}, 8, 4}}>()
            w = Expand(weight, ws)
            rs = Constant<value = int64[3] {{{count}, 8, 2}}>()
            r = Expand(weight, rs)
            zero = Constant<value_ints = [0]>()
            up = Unsqueeze(x, zero)
            o, oh, oc = LSTM<hidden_size = 2, direction = "{direction}">(up, w, r)
            last = Squeeze(oh)
            h_next = Add(x, h)
            y = Tanh(h_next)
            z = ReduceSum<keepdims = 0>(o, zero)
        """
        signature = f"(float[B,4] x, float[B,4] h) => (float[B,4] y, float[{count},B,2] z, float[B,4] h_next)"
        report = ut.adopt(saved(tmp_path / "s.onnx", signature, body), tmp_path / "out.onnx")
        assert any(words in note and "LSTM" in note for note in report.notes), report.notes


def test_an_output_that_is_fed_back_and_given(tmp_path):
    """A graph that reads its own last output has it as state and as output; so does a chain whose last graph feeds its first."""
    body = "half = Constant<value = float {0.5}>() old = Mul(half, u) y = Add(old, x)"
    path = saved(tmp_path / "s.onnx", "(float[B,4] x, float[B,4] u) => (float[B,4] y)", body)
    report = ut.adopt(path, tmp_path / "out.onnx", states={"u": "y"}, outputs=["y"])
    first = saved(tmp_path / "a.onnx", "(float[B,4] x, float[B,4] u) => (float[B,4] a)", body.replace("y =", "a ="))
    second = saved(tmp_path / "b.onnx", "(float[B,4] b) => (float[B,4] y)", "y = Identity(b)")
    links = {"states": {"u": "y"}, "links": {"a": "b"}, "outputs": ["y"]}
    chain = ut.adopt([first, second], tmp_path / "chain.onnx", **links)
    (x,) = noise((9, 4))
    expected = np.zeros((10, 4), np.float32)
    for t in range(9):
        expected[t + 1] = 0.5 * expected[t] + x[t]
    for path in (report.path, chain.path):
        np.testing.assert_allclose(pushed(path, [x])[0], expected[1:], atol=1e-6)


def test_the_reference_is_the_graph_as_it_was(tmp_path):
    """An operator set that is too old is converted for the artifact alone: the loop runs the file's own graph."""
    body = (
        "p = Slice<axes = [1], starts = [0], ends = [4]>(x) half = Constant<value = float {0.5}>() old = Mul(half, h)"
    )
    body += " h_next = Add(old, p) y = Tanh(h_next)"
    signature = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next)"
    report = ut.adopt(saved(tmp_path / "s.onnx", signature, body, 9), tmp_path / "out.onnx")
    assert report.spec.origin.versions["opset"] == "9"
    assert onnx.load(report.path).opset_import[0].version >= 11
    check_leaky(report.path)
