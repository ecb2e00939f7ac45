"""What rounding may do to a model's outputs: enough for any right program, too little for a wrong one."""

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import undertow as ut
from undertow.engine.artifact import make_artifact
from undertow.exporters import parity, rounding
from undertow.exporters.certifying import Truth, certified
from undertow.exporters.stepping import stepped_alone, stepped_together

from .graphs import frames, random_graph
from .naive import NaiveEngine
from .step_graph import StepGraph, gru_step, lstm_step


@pytest.fixture
def interpreted(monkeypatch):
    """Certificates are about `ort` alone: a compiled backend takes seconds a model."""
    monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))


def given(artifact, lengths=(1, 7, 40)):
    return [frames(artifact.spec, n, seed) for seed, n in enumerate(lengths)]


def allowed(artifact, sequences):
    together = stepped_together(artifact, sequences)
    return parity.tolerances(artifact, sequences, together, together)


@pytest.mark.parametrize("seed", range(24))
def test_every_right_program_is_within_it(seed):
    """float32 beside an exact oracle in float64, over random step graphs: within half of the tolerance, and that is small."""
    artifact = random_graph(seed)
    sequences = given(artifact)
    exact = [NaiveEngine(artifact).run(s) for s in sequences]
    exact = [y if isinstance(y, dict) else {artifact.spec.outputs[0].name: y} for y in exact]
    errors = parity.worst_errors(stepped_together(artifact, sequences), exact)
    limits, scales = allowed(artifact, sequences), parity.scales(exact)
    for name, limit in limits.items():
        assert errors[name] <= limit / 2
        assert limit <= 2e-4 * max(scales[name], 1e-2)


def changed(artifact, change):
    """The artifact with its largest weight changed."""
    model = onnx.ModelProto()
    model.CopyFrom(artifact.model)
    at = max(range(len(model.graph.initializer)), key=lambda i: np.prod(model.graph.initializer[i].dims))
    tensor = model.graph.initializer[at]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return make_artifact(model, artifact.spec)


def swapped_gates(weight):
    half = weight.shape[1] // 4
    return np.concatenate([weight[:, half : 2 * half], weight[:, :half], weight[:, 2 * half :]], axis=1)


def one_number(weight):
    weight.reshape(-1)[7] += 1e-2
    return weight


WRONG = {
    "gates in another order": swapped_gates,
    "all weights off by 1e-4": lambda w: w * np.float32(1.0001),
    "one number": one_number,
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_step_graph_is_no_export(wrong, interpreted):
    """A step graph whose weights are not the reference's fails the certificate, and with it the export, with both numbers."""
    right = lstm_step(6, 16, outputs=3)
    sequences = given(right, (1, 7, 50))
    truth = Truth("the right graph", sequences, stepped_alone(right, sequences), "model")
    certified(right, truth)
    with pytest.raises(
        ut.ExportError, match=r"the step graph is not the model: .*allowed [\d.e-]+\); nothing was written"
    ):
        certified(changed(right, WRONG[wrong]), truth)


def test_a_state_that_is_not_carried_is_no_export(interpreted):
    """A step graph that forgets its state is told from one that remembers."""
    right = gru_step(6, 16, outputs=3)
    forgetful = onnx.ModelProto()
    forgetful.CopyFrom(right.model)
    layer = next(n for n in forgetful.graph.node if n.op_type == "GRU")
    layer.input[5] = ""
    sequences = given(right)
    truth = Truth("the right graph", sequences, stepped_alone(right, sequences))
    with pytest.raises(ut.ExportError, match="the step graph is not the module"):
        certified(make_artifact(forgetful, right.spec), truth)


def product(terms, scale=1.0):
    g = StepGraph(seed=1)
    g.output("y", g.op("MatMul", g.input("x", (terms,)), g.noise(terms, 4, scale=scale)), (4,))
    return g.artifact()


def test_it_is_the_models():
    """It grows with the number of terms that a sum has, follows the scale of the output exactly, and is the same every time."""
    found = []
    for terms in (8, 64, 512):
        artifact = product(terms)
        x = [{"x": np.random.default_rng(0).normal(size=(50, terms)).astype(np.float32)}]
        scale = parity.scales(stepped_together(artifact, x))["y"]
        found.append(allowed(artifact, x)["y"] / scale)
        assert allowed(artifact, x) == allowed(artifact, x)
        larger = allowed(product(terms, 1024.0), x)["y"]
        assert larger == pytest.approx(1024 * found[-1] * scale, rel=1e-3)
    assert found[0] < found[1] < found[2] < 1e-4


def test_cancellation_counts():
    """The difference of two nearly equal products may be off by what each of them rounds, not by what little is left of them."""
    g = StepGraph(seed=1)
    x = g.input("x", (64,))
    weight = g.random.normal(0, 1, (64, 4))
    one = g.op("MatMul", x, g.weight(weight))
    other = g.op("MatMul", x, g.weight(weight * (1 + 1e-4)))
    g.output("y", g.op("Sub", one, other), (4,))
    artifact = g.artifact()
    sequences = [{"x": np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)}]
    together = stepped_together(artifact, sequences)
    assert allowed(artifact, sequences)["y"] > 1e-3 * parity.scales(together)["y"]
    exact = NaiveEngine(artifact).run(sequences[0]["x"])
    assert np.abs(together[0]["y"] - exact).max() <= allowed(artifact, sequences)["y"]


def test_whole_numbers_are_exact():
    """Outputs of whole numbers may not differ at all, though what they are computed from may."""
    g = StepGraph(seed=1)
    y = g.linear(g.input("x", (6,)), 6, 5)
    g.output("scores", y, (5,))
    g.output("best", g.op("ArgMax", y, axis=1, keepdims=0), (), "int64")
    limits = allowed(g.artifact(), given(g.artifact()))
    assert limits["best"] == 0 < limits["scores"]


def test_what_is_infinite_stays_so():
    """Masks of minus infinity under a softmax do not become NaN, nor a tolerance without bounds."""
    g = StepGraph(seed=1)
    masked = g.op("Where", g.weight([True, False, True], "bool"), g.input("x", (3,)), g.weight(-np.inf))
    g.output("y", g.op("Softmax", masked, axis=1), (3,))
    assert 0 < allowed(g.artifact(), given(g.artifact()))["y"] < 1e-5


def test_roots_of_what_cancels():
    """Independent errors may put x - x below zero under a root; such draws say nothing, and the others still bound the output."""
    g = StepGraph(seed=1)
    x = g.input("x", (6,))
    squares = g.op("ReduceMean", g.op("Mul", x, x), axes=[1], keepdims=1)
    again = g.op("ReduceMean", g.op("Mul", x, x), axes=[1], keepdims=1)
    y = g.op("Add", g.linear(x, 6, 3), g.op("Sqrt", g.op("Sub", squares, again)))
    g.output("y", y, (3,))
    artifact, sequences = g.artifact(), given(g.artifact(), [1] * 12)
    noisy = rounding.Noise(artifact, sequences).model(0)
    broken = stepped_together(dataclasses.replace(artifact, model=noisy), sequences)
    assert any(np.isnan(one["y"]).any() for one in broken)
    limit = allowed(artifact, sequences)["y"]
    assert 1e-7 < limit < 1e-2


def test_gamma():
    """Higham's gamma_n, (3.1)..(3.3): n u / (1 - n u)."""
    u = rounding.unit_roundoff(np.float32)
    assert u == 2.0**-24
    assert rounding.gamma(100, u) == pytest.approx(100 * u / (1 - 100 * u))
    assert rounding.gamma(2**25, u) == 1
