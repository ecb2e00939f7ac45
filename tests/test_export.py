"""torch modules to step artifacts: the step graph is the module, for every kind of layer that is supported."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.exporters.nn import OverTime  # noqa: E402

from .torch_exports import compiled, one_operator_library, without_compiling  # noqa: E402, F401


class Stepper:
    """One batch of streams, stepped in ONNX Runtime by the names in the metadata: the test's own, slow and obvious."""

    def __init__(self, path, batch):
        artifact = ut.read_artifact(path)
        self.spec = artifact.spec
        self.session = onnxruntime.InferenceSession(
            artifact.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        self.state = {s.name: np.stack([s.initial_value()] * batch) for s in self.spec.states}

    def step(self, frames):
        names = [o.name for o in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(None, frames | self.state), strict=True))
        self.state = {s.name: results[s.next] for s in self.spec.states}
        return {o.name: results[o.name] for o in self.spec.outputs}


def stepped(path, inputs):
    """{output: (B, T, *out)} of inputs {name: (B, T, *frame)}."""
    batch, length = next(iter(inputs.values())).shape[:2]
    stepper = Stepper(path, batch)
    steps = [stepper.step({n: a[:, t] for n, a in inputs.items()}) for t in range(length)]
    return {name: np.stack([s[name] for s in steps], 1) for name in steps[0]}


def check(module, example, path, **options):
    """Exports, then compares ONNX Runtime stepping with the module on other sequences; gives the report."""
    report = ut.export(module, example, path, **options)
    (name,) = [i.name for i in report.spec.inputs]
    module.eval()
    for length in (1, 5, 17):
        x = torch.randn(3, length, *report.spec.inputs[0].shape)
        with torch.no_grad():
            expected = module(x.transpose(0, 1) if options.get("time_axis") == 0 else x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        expected = expected.transpose(0, 1) if options.get("time_axis") == 0 else expected
        np.testing.assert_allclose(
            stepped(path, {name: x.numpy()})[report.spec.outputs[0].name], expected, atol=2e-5, rtol=1e-4
        )
    return report


class Stack(nn.Module):
    """Linear, a recurrent layer, and a head; batch or time first."""

    def __init__(self, recurrent, features=5, hidden=7):
        super().__init__()
        self.inp, self.rnn, self.out = nn.Linear(features, hidden), recurrent, nn.Linear(hidden, 3)

    def forward(self, x):
        y, _ = self.rnn(torch.tanh(self.inp(x)))
        return self.out(y)


class Function(nn.Module):
    """A GRU of 6 features and 6 units, and whatever a test does around it."""

    def __init__(self, around, **parts):
        super().__init__()
        self.gru, self.around = nn.GRU(6, 6, batch_first=True), around
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.around(self, x, self.gru(x)[0])


KINDS = {
    "lstm": lambda **k: nn.LSTM(7, 7, **k),
    "gru": lambda **k: nn.GRU(7, 7, **k),
    "tanh": lambda **k: nn.RNN(7, 7, **k),
    "relu": lambda **k: nn.RNN(7, 7, nonlinearity="relu", **k),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options", [{"batch_first": True, "num_layers": 2, "dropout": 0.5}, {"bias": False}], ids=["two", "time-first"]
)
def test_recurrent_layers(kind, options, tmp_path):
    """Every kind of recurrent layer, several layers or one, with bias or none, in both layouts, is stepped exactly."""
    module = Stack(KINDS[kind](**options))
    report = check(module, torch.randn(2, 9, 5), tmp_path / "m.onnx", time_axis=1 if options.get("batch_first") else 0)
    layers = options.get("num_layers", 1)
    letters = "hc" if kind == "lstm" else "h"
    assert [(s.name, s.next) for s in report.spec.states] == [
        (f"rnn.l{k}.{x}", f"rnn.l{k}.{x}_next") for k in range(layers) for x in letters
    ]
    assert next(p.backend for p in report.parity) == "ort"
    assert report.parity[0].max_abs_error["output"] < 1e-5


def test_the_step_graph_is_plain(tmp_path):
    """A linear layer is one Gemm, a recurrent layer one node between Unsqueeze and Squeeze; no shape arithmetic is left."""
    ut.export(Stack(nn.LSTM(7, 7, batch_first=True)), torch.randn(2, 9, 5), tmp_path / "m.onnx")
    ops = [n.op_type for n in ut.read_artifact(tmp_path / "m.onnx").model.graph.node]
    assert ops == ["Gemm", "Tanh", "Unsqueeze", "Unsqueeze", "Unsqueeze", "LSTM", "Squeeze", "Squeeze", "Gemm"]


def residual(m, x, y):
    return m.norm(x + F.dropout(y, 0.5, m.training)) * torch.sigmoid(y)


def gates(m, x, y):
    a, b = y.chunk(2, -1)
    return torch.cat([a * F.silu(b), x[..., 1:4:2], F.softmax(y, -1), b.clamp(-0.1, 0.1)], -1)


def heads(m, x, y):
    z = y.reshape(x.shape[0], x.shape[1], 2, 3)
    return (z.softmax(-1) * m.scale + z.mean(-1, keepdim=True)).flatten(2)


def merged(m, x, y):
    """What time-distributed wrappers do: batch and time in one axis, and apart again."""
    z = m.lin(y.reshape(-1, y.shape[-1]))
    return F.log_softmax(z, -1).view(x.shape[0], x.shape[1], -1)


def channels(m, x, y):
    return m.conv(m.bn(y.transpose(1, 2))).transpose(1, 2)


def reductions(m, x, y):
    return torch.where(y > 0, y.sum(-1, keepdim=True), y.amax(-1, keepdim=True)) + y.square().mean(-1, keepdim=True)


def matrices(m, x, y):
    """Products of two matrices of the same frame."""
    a, b = y.view(*y.shape[:2], 3, 2), x.view(*x.shape[:2], 2, 3)
    return (a @ b).flatten(2)


def constants(m, x, y):
    """Tensors that are made with the input's sizes, and a constant that is joined to every frame."""
    ones = torch.ones_like(y) + torch.zeros(x.shape[0], 1, 6)
    return torch.cat([y * ones, m.bias.expand(x.shape[0], x.shape[1], -1)], -1)


def images(m, x, y):
    """A convolution over the features of each frame."""
    z = m.conv2(y.reshape(-1, 1, 6))
    return z.reshape(x.shape[0], x.shape[1], -1) + F.pad(y, (2, 4))


def columns(m, x, y):
    """Features before time: matrices from the left."""
    z = m.w @ y.transpose(1, 2)
    return (z + x.mT[:, :3]).mT


BODIES = {
    "columns": (columns, {"w": nn.Parameter(torch.randn(3, 6))}),
    "residual": (residual, {"norm": nn.LayerNorm(6)}),
    "rms": (residual, {"norm": nn.RMSNorm(6)}),
    "gates": (gates, {}),
    "heads": (heads, {"scale": nn.Parameter(torch.randn(2, 1))}),
    "merged": (merged, {"lin": nn.Linear(6, 4)}),
    "channels": (channels, {"conv": nn.Conv1d(6, 4, 1), "bn": nn.BatchNorm1d(6)}),
    "reductions": (reductions, {}),
    "matrices": (matrices, {}),
    "constants": (constants, {"bias": nn.Parameter(torch.randn(3))}),
    "images": (images, {"conv2": nn.Conv1d(1, 2, 3, padding=1)}),
    "activations": (
        lambda m, x, y: F.gelu(y) + F.elu(y) + F.hardswish(y) + F.mish(y) + F.softplus(y) + F.leaky_relu(y),
        {},
    ),
    "einsum": (lambda m, x, y: torch.einsum("btf,of->bto", y, m.w), {"w": nn.Parameter(torch.randn(3, 6))}),
}


@pytest.mark.parametrize("body", BODIES)
def test_bodies(body, tmp_path):
    """Norms, gates, residuals, reshapes, reductions and products over features are stepped exactly."""
    torch.manual_seed(0)
    around, parts = BODIES[body]
    module = Function(around, **parts)
    if body == "channels":
        module.bn.running_mean.uniform_(-1, 1)
        module.bn.running_var.uniform_(0.5, 2)
    check(module, torch.randn(2, 9, 6), tmp_path / "m.onnx")


@pytest.mark.parametrize("cell", [nn.LSTMCell(4, 5), nn.GRUCell(4, 5), nn.RNNCell(4, 5, nonlinearity="relu")], ids=repr)
def test_cells(cell, tmp_path):
    """A cell over time is one recurrent layer with the cell's weights; a bare cell is taken as a cell over time."""
    report = check(OverTime(cell), torch.randn(2, 9, 4), tmp_path / "m.onnx")
    if isinstance(cell, nn.GRUCell):
        bare = ut.export(cell, torch.randn(2, 9, 4), tmp_path / "bare.onnx")
        assert bare.spec.states == report.spec.states


def test_bare_layer_and_its_final_states(tmp_path):
    """nn.LSTM itself exports; its final states are states and not outputs, and the report says so."""
    report = check(nn.LSTM(3, 4, batch_first=True), torch.randn(1, 5, 3), tmp_path / "m.onnx")
    assert [o.name for o in report.spec.outputs] == ["output"]
    assert [s.name for s in report.spec.states] == ["lstm.l0.h", "lstm.l0.c"]
    assert "left out 'output_1.0', 'output_1.1'" in str(report)


class FeaturesFirst(nn.Module):
    """(B, F, T) in and out, as convolutional models have it."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(3, 4)

    def forward(self, x):
        return self.gru(x.permute(2, 0, 1))[0].permute(1, 2, 0)


def test_time_last(tmp_path):
    """With time as the last axis a frame is what remains of the others."""
    module, x = FeaturesFirst().eval(), torch.randn(2, 3, 8)
    ut.export(module, x, tmp_path / "m.onnx", time_axis=2)
    with torch.no_grad():
        expected = module(x).mT
    np.testing.assert_allclose(stepped(tmp_path / "m.onnx", {"x": x.mT.numpy()})["output"], expected, atol=1e-5)


class Learned(nn.Module):
    """Starts from a learned state."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, 2, batch_first=True)
        self.h0, self.c0 = nn.Parameter(torch.randn(2, 1, 4)), torch.full((2, 1, 4), 0.5)

    def forward(self, x):
        batch = x.shape[0]
        return self.lstm(x, (self.h0.expand(-1, batch, -1).contiguous(), self.c0.repeat(1, batch, 1)))[0]


def test_learned_initial_state(tmp_path):
    """Initial states that the module gives are the initial values in the spec, a number where all are alike."""
    module = Learned()
    report = check(module, torch.randn(2, 5, 3), tmp_path / "m.onnx")
    initial = {s.name: s for s in report.spec.states}
    np.testing.assert_array_equal(initial["lstm.l1.h"].initial_value(), module.h0[1, 0].detach())
    assert initial["lstm.l0.c"].initial == 0.5


class Tokens(nn.Module):
    """Tokens to logits."""

    def __init__(self):
        super().__init__()
        self.table, self.gru, self.out = nn.Embedding(50, 6), nn.GRU(6, 8, batch_first=True), nn.Linear(8, 50)

    def forward(self, tokens):
        return self.out(self.gru(self.table(tokens))[0])


def test_tokens(tmp_path):
    """An integer input has frames of no axis at all, and parity is measured over the whole vocabulary."""
    module = Tokens().eval()
    report = ut.export(module, torch.zeros(1, 4, dtype=torch.int64), tmp_path / "m.onnx")
    assert (report.spec.inputs[0].name, report.spec.inputs[0].shape, report.spec.inputs[0].dtype) == (
        "tokens",
        (),
        "int64",
    )
    tokens = torch.randint(0, 50, (3, 11))
    with torch.no_grad():
        expected = module(tokens)
    np.testing.assert_allclose(stepped(tmp_path / "m.onnx", {"tokens": tokens.numpy()})["output"], expected, atol=1e-5)


class Several(nn.Module):
    """Two inputs, and two outputs by name, one of them called as an input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.GRU(3, 4, batch_first=True), nn.LSTM(2, 4, batch_first=True)

    def forward(self, left, right):
        y, z = self.a(left)[0], self.b(right)[0]
        return {"sum": y + z, "left": y, "best": (y * z).argmax(-1)}


@pytest.mark.parametrize("form", [tuple, dict])
def test_several_inputs_and_outputs(form, tmp_path):
    """A tuple is the arguments, a dict the arguments by name; outputs are called by their keys."""
    left, right = torch.randn(2, 6, 3), torch.randn(2, 6, 2)
    module = Several().eval()
    example = (left, right) if form is tuple else {"right": right, "left": left}
    report = ut.export(module, example, tmp_path / "m.onnx")
    assert {i.name: i.shape for i in report.spec.inputs} == {"left": (3,), "right": (2,)}
    assert {o.name: (o.shape, o.dtype) for o in report.spec.outputs} == {
        "sum": ((4,), "float32"),
        "left_out": ((4,), "float32"),
        "best": ((), "int64"),
    }
    with torch.no_grad():
        expected = module(left, right)
    got = stepped(tmp_path / "m.onnx", {"left": left.numpy(), "right": right.numpy()})
    np.testing.assert_allclose(got["sum"], expected["sum"], atol=1e-5)
    np.testing.assert_array_equal(got["best"], expected["best"])


class Shared(nn.Module):
    """One layer used twice: two states; the same tensor given twice; an input given back."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, frames):
        x = frames["x"]
        y = self.gru(self.gru(x)[0])[0]
        return y, y, x


def test_shared_layer_and_copied_outputs(tmp_path):
    """A layer that is used twice has a state for each use; one dict argument gives its keys as names."""
    module, x = Shared().eval(), torch.randn(2, 8, 4)
    report = ut.export(module, {"x": x}, tmp_path / "m.onnx")
    assert [s.name for s in report.spec.states] == ["gru.l0.h", "gru.l0.h#2"]
    got = stepped(tmp_path / "m.onnx", {"x": x.numpy()})
    with torch.no_grad():
        expected = module({"x": x})
    for i, name in enumerate(("output_0", "output_1", "output_2")):
        np.testing.assert_allclose(got[name], expected[i], atol=1e-5)


def test_the_module_is_left_as_it_was(tmp_path):
    """Training flags, forward methods and weights are what they were, also after a refusal."""
    module = Stack(nn.GRU(7, 7, batch_first=True))
    module.rnn.eval()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    ut.export(module, torch.randn(2, 9, 5), tmp_path / "m.onnx")
    with pytest.raises(ut.ExportError):
        ut.export(module, torch.randn(2, 9, 4), tmp_path / "n.onnx")
    assert (module.training, module.inp.training, module.rnn.training) == (True, True, False)
    assert "forward" not in module.rnn.__dict__
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    module(torch.randn(2, 3, 5)).sum().backward()


def test_spec_and_certificate(tmp_path, compiled):  # noqa: F811
    """The artifact says what it is, where it came from, and how it was checked; other weights, other hash."""
    path = tmp_path / "m.onnx"
    module = Stack(nn.GRU(7, 7, batch_first=True))
    report = ut.export(module, torch.randn(2, 9, 5), path, sample_rate_hz=50, labels=["a", "b", "c"])
    spec = ut.read_artifact(path).spec
    assert spec == report.spec
    assert (spec.sample_rate_hz, spec.labels, spec.origin.framework) == (50, ("a", "b", "c"), "torch")
    assert spec.origin.versions["torch"] == torch.__version__
    assert [(p.backend, p.lengths, p.sequences) for p in spec.certificate] == [
        (b, (1, 2, 3, 7, 50), 15) for b in ("ort", "numba")
    ]
    assert all(p.max_abs_error["output"] < 1e-5 for p in spec.certificate)
    with torch.no_grad():
        module.out.bias[0] += 1
    other = ut.export(module, torch.randn(2, 9, 5), path).spec
    assert other.origin.weights_sha256 != spec.origin.weights_sha256
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_import_is_light():
    """`import undertow` and its exporters load neither torch nor onnxscript."""
    import subprocess

    code = "import sys, undertow, undertow.exporters; undertow.export; sys.exit('torch' in sys.modules or 'onnxscript' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LAYERS = st.sampled_from(["lstm", "gru", "rnn", "linear", "norm", "relu", "residual", "softmax", "dropout"])


class Random(nn.Module):
    """A stack of layers of one width, some of them with a skip path."""

    def __init__(self, names, width):
        super().__init__()
        make = {
            "lstm": lambda: nn.LSTM(width, width, batch_first=True),
            "gru": lambda: nn.GRU(width, width, batch_first=True),
            "rnn": lambda: nn.RNN(width, width, batch_first=True),
            "linear": lambda: nn.Linear(width, width),
            "norm": lambda: nn.LayerNorm(width),
            "relu": nn.ReLU,
            "residual": lambda: nn.Linear(width, width),
            "softmax": lambda: nn.Softmax(-1),
            "dropout": lambda: nn.Dropout(0.5),
        }
        self.names = names
        self.layers = nn.ModuleList(make[n]() for n in names)

    def forward(self, x):
        for name, layer in zip(self.names, self.layers, strict=True):
            y = layer(x)
            x = y[0] if isinstance(y, tuple) else x + y if name == "residual" else y
        return x


@given(names=st.lists(LAYERS, min_size=1, max_size=6), width=st.integers(1, 9))
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_stacks(names, width, tmp_path):
    """Any stack of supported layers, recurrent or not, is stepped exactly."""
    torch.manual_seed(0)
    check(Random(names, width), torch.randn(2, 5, width), tmp_path / "m.onnx")
