"""What `adopt` does not guess: each refusal names the tensor, what was got and what to say instead, and writes nothing."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import undertow as ut

from .onnx_texts import LEAKY, leaky, naive_leaky, noise, pushed, saved

BIN = Path(sys.executable).parent
PLAIN = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next)"
LSTM = """
    weight = Constant<value = float {{0.25}}>()
    ws = Constant<value = int64[3] {{{count}, 8, 4}}>()
    w = Expand(weight, ws)
    rs = Constant<value = int64[3] {{{count}, 8, 2}}>()
    r = Expand(weight, rs)
    zero = Constant<value_ints = [0]>()
    up = Unsqueeze(x, zero)
    o, h_next, c_next = LSTM<hidden_size = 2, direction = "{direction}">(up, w, r, , , h, c)
    y = Squeeze(o, zero)
"""


@pytest.fixture(autouse=True)
def _without_compiling(monkeypatch):
    """A refusal comes before a backend is asked."""
    monkeypatch.setattr("undertow.exporters.step_certificate.BACKENDS", ("engine:ort",))


def refused(path, message, tmp_path, **options):
    out = tmp_path / "out.onnx"
    with pytest.raises(ut.ExportError, match=message) as caught:
        ut.adopt(path, out, **options)
    assert not out.exists()
    return str(caught.value)


def test_names_that_tell_nothing(tmp_path):
    """A frame and a state of one shape, called u and x, may be either: both candidates are listed."""
    text = refused(leaky(tmp_path / "s.onnx", "u", "v"), "no names tell its states", tmp_path)
    for pair in (
        "'x' float32 ['B', 4] -> 'y'",
        "'u' float32 ['B', 4] -> 'v'",
        "states={'u': 'v'}",
        "inputs=['x', 'u']",
    ):
        assert pair in text


def test_a_state_with_several_candidates(tmp_path):
    """A state that two outputs may follow is not paired with the first of them."""
    body = "h_next = Add(h, x) new_h = Sub(h, x) y = Tanh(h_next)"
    signature = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next, float[B,4] new_h)"
    text = refused(saved(tmp_path / "s.onnx", signature, body), "state 'h'.*several outputs", tmp_path)
    assert "'h_next' float32 ['B', 4], 'new_h' float32 ['B', 4]; say which, as in states={'h': 'h_next'}" in text


def test_an_output_with_several_candidates(tmp_path):
    """One output cannot be the next value of two inputs."""
    body = "a = Add(h0, x) hn = Add(a, h_prev) y = Tanh(hn)"
    signature = "(float[B,4] x, float[B,4] h0, float[B,4] h_prev) => (float[B,4] y, float[B,4] hn)"
    refused(
        saved(tmp_path / "s.onnx", signature, body), "output 'hn' may be the next value of several inputs", tmp_path
    )


def test_a_state_that_never_changes(tmp_path):
    """A next value that is the state itself, directly or through copies or a sum with zero, is no next value."""
    for body in (
        "i = Identity(h) h_next = Identity(i) y = Add(x, h)",
        "zero = Constant<value = float {0.0}>() h_next = Add(h, zero) y = Add(x, h)",
    ):
        refused(
            saved(tmp_path / "s.onnx", PLAIN, body),
            "state 'h' never changes: its next value 'h_next' is 'h' itself",
            tmp_path,
        )


def test_an_output_that_nothing_feeds_back(tmp_path):
    """An output that looks like a state's next value is not just given as an answer."""
    body = LEAKY + "c_next = Neg(h_next)"
    signature = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] h_next, float[B,4] c_next)"
    path = saved(tmp_path / "s.onnx", signature, body)
    refused(path, "output 'c_next' looks like the next value of a state, and nothing feeds it back", tmp_path)
    assert len(ut.adopt(path, tmp_path / "out.onnx", outputs=["y", "c_next"]).spec.outputs) == 2


def test_an_input_that_nothing_follows(tmp_path):
    """An input that looks like a state is not just taken for a frame."""
    body = LEAKY.replace("h_next = Add(old, x)", "s = Add(old, x) h_next = Add(s, c0)")
    signature = "(float[B,4] x, float[B,4] h, float[B,3] c0) => (float[B,4] y, float[B,4] h_next)"
    path = saved(tmp_path / "s.onnx", signature, body)
    refused(path, "input 'c0' float32 \\['B', 3\\] looks like a state, and no output is its next value", tmp_path)


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
def test_layers_that_run_backwards_from_a_state(direction, tmp_path):
    """A recurrent layer that is fed with a state and runs backwards would need the future."""
    count = 2 if direction == "bidirectional" else 1
    signature = (
        f"(float[B,4] x, float[{count},B,2] h, float[{count},B,2] c)"
        f" => (float[{count},B,2] y, float[{count},B,2] h_next, float[{count},B,2] c_next)"
    )
    path = saved(tmp_path / "s.onnx", signature, LSTM.format(count=count, direction=direction))
    refused(path, f"a {direction} LSTM is fed with a state", tmp_path)


OPTIONS = [
    ({"states": {"g": "h_next"}}, r"states: there is no input 'g'; the graph has \['h', 'x'\]"),
    ({"states": {"h": "z"}}, r"states: there is no output 'z'; the graph has \['h_next', 'y'\]"),
    ({"constants": {"sr": 1}}, "constants: there is no input 'sr'"),
    ({"links": {"y": "q"}}, "links: there is no input 'q'"),
    ({"inputs": ["q"]}, "inputs: there is no input 'q'"),
    ({"outputs": ["q"]}, "outputs: there is no output 'q'"),
    ({"overlap": {"h": 2}}, r"overlap: 'h' is no frame input; those are \['x'\]"),
    ({"overlap": {"x": 4}}, "overlap: 4 of input 'x'.*leaves nothing new of the 4 elements"),
    ({"initial": {"x": 1}}, r"initial: 'x' is no state; those are \['h'\]"),
    ({"initial": {"h": np.zeros(3)}}, r"initial: 'h' has shape \[3\], one stream's state has \[4\]"),
    ({"initial": {"h": np.nan}}, "initial: 'h' is not finite numbers"),
    ({"shapes": {"q": (4,)}}, "shapes: 'q' is no frame input or state"),
    ({"shapes": {"x": (5,)}}, "input 'x'.*axis 1 has 4 elements, and a step would give it 5"),
    ({"shapes": {"x": (2, 2)}}, "shapes: a frame of 'x'.*has 1 axes beside batch and time, .2, 2. has 2"),
    ({"batch_axes": {"h": 7}}, "batch_axes: state 'h'.*has no axis 7"),
    ({"time_axis": 5}, "time_axis: input 'x'.*has no axis 5"),
    ({"time_axis": 0}, "axis 0 cannot be batch and time at once"),
    ({"frames_per_step": 0}, "frames_per_step is 0, expected 1 or more"),
    ({"frames_per_step": 3}, "axis 1 has 4 elements, and a step would give it 3"),
    ({"outputs_per_step": 4}, "outputs_per_step is 4: say which axis they are on"),
    ({"frames_per_step": 4, "outputs_per_step": 3}, "output 'y' has shape .1, 4., and outputs_per_step=3 are expected"),
    ({"inputs": ["h"]}, "input 'x' float32 .'B', 4. is not among inputs=.'h'."),
    ({"outputs": []}, "every output is a state's next value or is read by another graph"),
    ({"constants": {"x": 1}}, "no input is left for frames"),
    ({"constants": {"x": "a"}, "inputs": []}, "no input is left for frames"),
    ({"labels": ["a"]}, "1 labels are given, and no output has as many features"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS, ids=[str(o) for o, _ in OPTIONS])
def test_options_that_do_not_fit(options, message, tmp_path):
    """Every option that names what is not there, or sizes that cannot be, is refused with what there is."""
    refused(leaky(tmp_path / "s.onnx"), message, tmp_path, **options)


def test_constants_of_other_shapes(tmp_path):
    """A constant has the shape that the graph takes, or is one number; text is none."""
    body = LEAKY.replace("half = Constant<value = float {0.5}>()", "")
    signature = "(float[B,4] x, float[2] half, float[B,4] h) => (float[B,4] y, float[B,4] h_next)"
    path = saved(tmp_path / "s.onnx", signature, body)
    message = r"constants: 'half' has shape \[3\], the graph takes 'half' float32 \[2\]"
    refused(path, message, tmp_path, constants={"half": [1, 2, 3]})
    refused(path, "constants: 'half' is 'fast', expected a number", tmp_path, constants={"half": "fast"})


def test_shapes_that_differ(tmp_path):
    """A next value of another shape than its state's cannot be fed back, said or found when the graph is run."""
    body = LEAKY + "s = Concat<axis = 1>(h_next, h_next)"
    signature = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,8] s)"
    path = saved(tmp_path / "s.onnx", signature, body)
    refused(path, "'h' float32 .'B', 4. and its next value 's' float32 .'B', 8. differ", tmp_path, states={"h": "s"})
    free = saved(tmp_path / "f.onnx", signature.replace("[B,8] s", "[B,N] s"), body)
    refused(free, r"state 'h' has shape \[1, 4\].*its next value 's' \[1, 8\]", tmp_path, states={"h": "s"})


def test_sizes_that_are_open(tmp_path):
    """Axes of no fixed size are asked for, of frames and of states."""
    path = leaky(tmp_path / "s.onnx", shape="B,F")
    refused(path, r"input 'x'.*axis 1 has no fixed size; say one frame's shape, as in shapes=\{'x'", tmp_path)
    refused(path, r"state 'h'.*axis 1 has no fixed size", tmp_path, shapes={"x": (4,)})


def test_links_that_are_not_clear(tmp_path):
    """An input of a later graph that several outputs fit is not given the first of them."""
    body = LEAKY + "z = Neg(y)"
    signature = "(float[B,4] x, float[B,4] h) => (float[B,4] y, float[B,4] z, float[B,4] h_next)"
    first = saved(tmp_path / "a.onnx", signature, body)
    second = saved(tmp_path / "b.onnx", "(float[B,4] q) => (float[B,4] r)", "r = Neg(q)")
    refused([first, second], r"input 'q'.*may read 'y'.*'z'.*say which, as in links=\{'y': 'q'\}", tmp_path)
    refused([first, first], "is in the chain already|may read", tmp_path)


def test_references_that_do_not_belong(tmp_path):
    """A reference with other inputs, outputs or lengths says what is wrong with it."""
    step = leaky(tmp_path / "s.onnx")
    more = saved(tmp_path / "m.onnx", "(float[B,T,4] x, float[B,T,4] u) => (float[B,T,4] y)", "y = Add(x, u)")
    refused(step, "m.onnx: the reference takes 'u' too", tmp_path, reference=more)
    body = "a = Constant<value_ints = [1]>() y = ReduceSum<keepdims = 0>(x, a)"
    short = saved(tmp_path / "w.onnx", "(float[B,T,4] x) => (float[B,4] y)", body)
    refused(
        step, "w.onnx: output 'y' has shape .1, 4. for 2 frames, the steps give 2 of .4.", tmp_path, reference=short
    )


def test_files_that_are_no_models(tmp_path):
    """A file that is no ONNX model, and an output folder that is not there."""
    (tmp_path / "s.onnx").write_bytes(b"no model")
    with pytest.raises(ut.ArtifactError, match="is not an ONNX file"):
        ut.adopt(tmp_path / "s.onnx", tmp_path / "out.onnx")
    with pytest.raises(ut.ExportError, match="the folder does not exist"):
        ut.adopt(leaky(tmp_path / "s.onnx"), tmp_path / "none" / "out.onnx")


def test_an_artifact_whose_graph_and_spec_disagree_on_batches(tmp_path):
    """`batchable` is checked against the graph: a batch of any size where it is true, of one where it is false."""
    report = ut.adopt(leaky(tmp_path / "s.onnx"), tmp_path / "out.onnx")
    model = onnx.load(report.path)
    from undertow.engine.artifact import StepSpec, make_artifact

    spec = report.spec
    wrong = StepSpec(spec.inputs, spec.outputs, spec.states, batchable=False)
    with pytest.raises(ut.ArtifactError, match=r"expected \[1, 4\] since it takes one stream at a time"):
        make_artifact(model, wrong)


def run(*arguments):
    return subprocess.run([BIN / "undertow", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_command_line(tmp_path):
    """`undertow adopt` takes every option by name, prints the report, and tells wrong usage from what it refuses."""
    body = (
        LEAKY.replace("half = Constant<value = float {0.5}>()", "").replace("h_next", "v").replace("half, h", "half, u")
    )
    signature = "(float[B,4] x, float half, float[B,4] u) => (float[B,4] y, float[B,4] v)"
    path = saved(tmp_path / "s.onnx", signature, body)
    np.save(tmp_path / "u.npy", np.ones(4))
    options = ("--state", "u=v", "--constant", "half=0.5", "--initial", f"u={tmp_path / 'u.npy'}", "--sample-rate", 50)
    done = run("adopt", path, "-o", tmp_path / "out.onnx", *options, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["spec"]["sample_rate_hz"] == 50
    assert [p["backend"] for p in report["parity"]] == ["ort", "numba"]
    (x,) = noise((5, 4))
    np.testing.assert_allclose(pushed(tmp_path / "out.onnx", [x])[0], naive_leaky(x, 1.0), atol=1e-5)
    refused_by = run("adopt", path, "-o", tmp_path / "no.onnx", "--constant", "half=0.5")
    assert (refused_by.returncode, refused_by.stdout) == (1, "")
    assert "no names tell its states" in refused_by.stderr
    wrong = run("adopt", path, "-o", tmp_path / "no.onnx", "--constant", "half=fast")
    assert wrong.returncode == 2
    assert "expected NAME=VALUE" in wrong.stderr
