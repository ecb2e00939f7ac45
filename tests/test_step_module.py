"""Modules that carry their own state: the artifact is their step, for any nesting of states and any initial ones."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.engine.compiler import missing  # noqa: E402

from .torch_exports import check_whole, compiled, one_operator_library, without_compiling  # noqa: E402, F401


class Nested(ut.StepModule):
    """Cells, a ring of frames, a running mean and a count, in tuples, lists and dicts; learned and constant initial states."""

    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.out = nn.LSTMCell(6, 8), nn.GRUCell(8, 8), nn.Linear(8, 3)
        self.first = nn.Parameter(torch.randn(8))

    def init_state(self, batch):
        return {
            "lstm": (self.first.expand(batch, 8), torch.zeros(batch, 8)),
            "gru": [torch.full((batch, 8), 0.5)],
            "count": torch.zeros(batch, dtype=torch.int64),
            "mean": torch.zeros(batch, 2, 4),
            "ring": torch.zeros(batch, 3, 6),
        }

    def forward(self, frame, state):
        h, c = self.lstm(frame, state["lstm"])
        g = self.gru(h, state["gru"][0])
        count, ring = state["count"] + 1, torch.cat([state["ring"][:, 1:], frame[:, None]], 1)
        mean = 0.9 * state["mean"] + 0.1 * g.view(g.shape[0], 2, -1)
        y = self.out(g) / count[:, None].float() + mean.sum((1, 2))[:, None] + ring.mean((1, 2))[:, None]
        return y, {"lstm": (h, c), "gru": [g], "count": count, "mean": mean, "ring": ring}


class Whole(nn.Module):
    """A StepModule over whole sequences."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return self.step.over(x)[0]


def test_any_nesting_of_states_is_carried_on_both_backends(tmp_path, compiled):  # noqa: F811
    """States in dicts, tuples and lists are named by their path, begin as init_state says, and give what the module gives."""
    module = Nested()
    report = ut.export(module, torch.randn(4, 6), tmp_path / "m.onnx", sample_rate_hz=10, labels=["a", "b", "c"])
    names = ["state.lstm.0", "state.lstm.1", "state.gru.0", "state.count", "state.mean", "state.ring"]
    assert [s.name for s in report.spec.states] == names
    assert [i.name for i in report.spec.inputs] == ["frame"]
    assert {p.backend for p in report.parity} == {"ort", "numba"}
    np.testing.assert_array_equal(report.spec.states[0].initial_value(), module.first.detach().numpy())
    assert missing(ut.read_artifact(tmp_path / "m.onnx")) == []
    check_whole(Whole(module), tmp_path / "m.onnx", (6,), backend="numba")


class MinGRU(ut.StepModule):
    """Were RNNs all we needed? (Feng et al., 2024)."""

    def __init__(self):
        super().__init__()
        self.z, self.h = nn.Linear(6, 8), nn.Linear(6, 8)

    def init_state(self, batch):
        return torch.zeros(batch, 8)

    def forward(self, x, h):
        z = torch.sigmoid(self.z(x))
        h = (1 - z) * h + z * self.h(x)
        return h, h


class LRU(ut.StepModule):
    """A diagonal complex recurrence (Orvieto et al., 2023), as pairs of real numbers."""

    def __init__(self):
        super().__init__()
        self.size, self.angle = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))
        self.b, self.c = nn.Linear(6, 16, bias=False), nn.Linear(16, 6)

    def init_state(self, batch):
        return torch.zeros(batch, 8), torch.zeros(batch, 8)

    def forward(self, x, state):
        re, im = state
        size, (u, v) = torch.exp(-torch.exp(self.size)), self.b(x).chunk(2, -1)
        cos, sin = size * torch.cos(self.angle), size * torch.sin(self.angle)
        re, im = cos * re - sin * im + u, sin * re + cos * im + v
        return self.c(torch.cat([re, im], -1)), (re, im)


class Mamba(ut.StepModule):
    """The selective scan with its convolution's past (Gu and Dao, 2023)."""

    def __init__(self, d=6, n=4, k=3):
        super().__init__()
        self.conv, self.k = nn.Parameter(torch.randn(d, k)), k
        self.bc, self.dt, self.a = nn.Linear(d, 2 * n), nn.Linear(d, d), nn.Parameter(torch.rand(d, n))

    def init_state(self, batch):
        return {"conv": torch.zeros(batch, *self.conv.shape)[..., 1:], "ssm": torch.zeros(batch, *self.a.shape)}

    def forward(self, x, state):
        past = torch.cat([state["conv"], x[..., None]], -1)
        u = F.silu((past * self.conv).sum(-1))
        (b, c), dt = self.bc(u).chunk(2, -1), F.softplus(self.dt(u))
        ssm = torch.exp(-dt[..., None] * self.a.exp()) * state["ssm"] + (dt * u)[..., None] * b[:, None]
        return (ssm * c[:, None]).sum(-1), {"conv": past[..., 1:], "ssm": ssm}


class RWKV(ut.StepModule):
    """The time mixing of RWKV-4 (Peng et al., 2023), with its running maximum."""

    def __init__(self, d=6):
        super().__init__()
        self.mix, self.k, self.v, self.r = (
            nn.Parameter(torch.rand(d)),
            nn.Linear(d, d),
            nn.Linear(d, d),
            nn.Linear(d, d),
        )
        self.decay, self.bonus = nn.Parameter(torch.rand(d)), nn.Parameter(torch.rand(d))

    def init_state(self, batch):
        zeros = torch.zeros(batch, 6)
        return {"x": zeros, "num": zeros, "den": zeros, "max": zeros - 1e38}

    def forward(self, x, s):
        mixed = self.mix * x + (1 - self.mix) * s["x"]
        k, v, r = self.k(mixed), self.v(mixed), torch.sigmoid(self.r(mixed))
        top = torch.maximum(s["max"], self.bonus + k)
        old, new = torch.exp(s["max"] - top), torch.exp(self.bonus + k - top)
        y = r * (old * s["num"] + new * v) / (old * s["den"] + new)
        top = torch.maximum(s["max"] - self.decay.exp(), k)
        old, new = torch.exp(s["max"] - self.decay.exp() - top), torch.exp(k - top)
        return y, {"x": x, "num": old * s["num"] + new * v, "den": old * s["den"] + new, "max": top}


class LinearAttention(ut.StepModule):
    """Transformers are RNNs (Katharopoulos et al., 2020), two heads."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)

    def init_state(self, batch):
        return torch.zeros(batch, 2, 4, 4), torch.zeros(batch, 2, 4)

    def forward(self, x, state):
        s, z = state
        q, k, v = (part(x).view(x.shape[0], 2, 4) for part in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        s, z = s + k[..., None] * v[..., None, :], z + k
        return ((q[..., None, :] @ s)[..., 0, :] / (q * z).sum(-1, keepdim=True)).flatten(1), (s, z)


class MLSTM(ut.StepModule):
    """The matrix memory of xLSTM (Beck et al., 2024), with its stabiliser."""

    def __init__(self, d=6):
        super().__init__()
        self.qkv, self.gates = nn.Linear(d, 3 * d), nn.Linear(d, 2)

    def init_state(self, batch):
        return torch.zeros(batch, 6, 6), torch.zeros(batch, 6), torch.zeros(batch, 1)

    def forward(self, x, state):
        c, n, m = state
        q, k, v = self.qkv(x).chunk(3, -1)
        i, f = self.gates(x).chunk(2, -1)
        f = F.logsigmoid(f)
        new = torch.maximum(f + m, i)
        i, f = torch.exp(i - new), torch.exp(f + m - new)
        c = f[..., None] * c + i[..., None] * v[..., None] * k[:, None]
        n = f * n + i * k
        return (c @ q[..., None])[..., 0] / (n * q).sum(-1, keepdim=True).abs().clamp(min=1), (c, n, new)


@pytest.mark.parametrize("kind", [MinGRU, LRU, Mamba, RWKV, LinearAttention, MLSTM])
def test_linear_recurrences_are_step_modules(tmp_path, kind):
    """The published linear recurrences, written as a step, run as streams and on the compiled backend too."""
    torch.manual_seed(0)
    module = kind()
    ut.export(module, torch.randn(2, 6), tmp_path / "m.onnx")
    assert missing(ut.read_artifact(tmp_path / "m.onnx")) == []
    check_whole(Whole(module), tmp_path / "m.onnx", (6,))


class Free(ut.StepModule):
    """Whatever a test gives it."""

    def __init__(self, initial, forward):
        super().__init__()
        self.initial, self.function = initial, forward

    def init_state(self, batch):
        return self.initial(batch)

    def forward(self, frame, state):
        return self.function(frame, state)


def test_frames_and_outputs_of_several_names(tmp_path):
    """A dict of frames gives inputs of its names, a tuple of outputs and an input that is given on are tensors of their own."""
    module = Free(lambda b: torch.zeros(b, 3), lambda f, s: ((s, f["a"], s + f["a"] * f["b"]), s + f["a"]))
    report = ut.export(module, {"a": torch.randn(4, 3), "b": torch.randn(4, 1)}, tmp_path / "m.onnx")
    assert [i.name for i in report.spec.inputs] == ["a", "b"]
    assert [o.name for o in report.spec.outputs] == ["output_0", "output_1", "output_2"]
    engine = ut.Engine(tmp_path / "m.onnx", backend="ort")
    frames = {"a": np.ones((2, 3), np.float32), "b": np.full((2, 1), 2, np.float32)}
    found = engine.push("s", frames)
    np.testing.assert_array_equal(found["output_0"], [[0] * 3, [1] * 3])
    np.testing.assert_array_equal(found["output_2"], [[2] * 3, [3] * 3])


def test_over_gives_gradients_to_the_initial_state():
    """`over` is the loop for training: it goes on from a given state, and learned initial states get gradients."""
    module, x = Nested(), torch.randn(2, 5, 6)
    whole, _ = module.over(x)
    first, state = module.over(x[:, :2])
    rest, _ = module.over(x[:, 2:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    whole.sum().backward()
    assert module.first.grad is not None
    assert module.first.grad.abs().sum() > 0


def test_a_state_that_never_changes_is_noted(tmp_path):
    """A state that forward gives on as it was is exported, and the report says so."""
    module = Free(lambda b: (torch.zeros(b, 3), torch.ones(b, 3)), lambda x, s: (x * s[1], (s[0] + x, s[1])))
    report = ut.export(module, torch.randn(2, 3), tmp_path / "m.onnx")
    assert [n for n in report.notes if "'state.1' never changes" in n]
    assert not [n for n in report.notes if "'state.0'" in n]


def zeros(batch):
    return torch.zeros(batch, 3)


REFUSED = {
    "grows": (zeros, lambda x, s: (x, torch.cat([s, x], 1)), r"'state' is torch.float32 \(5, 3\).*\(5, 6\) after it"),
    "other dtype": (zeros, lambda x, s: (x, (s + x).double()), r"torch.float64 \(5, 3\) after it"),
    "other nesting": (zeros, lambda x, s: (x, (s, s)), r"nests the state"),
    "no pair": (zeros, lambda x, s: x + s, r"gives a Tensor, expected the two of \(out, state\)"),
    "rows differ": (
        lambda b: torch.arange(3.0 * b).view(b, 3),
        lambda x, s: (x + s, s),
        r"'state': init_state\(5\) gives other values",
    ),
    "batch in the state": (
        lambda b: torch.full((b, 3), float(b)),
        lambda x, s: (x + s, s),
        r"a new stream must begin the same in any batch",
    ),
    "no batch axis": (lambda b: torch.zeros(3), lambda x, s: (x + s, s), r"expected a tensor of shape \(1, ...\)"),
    "a number": (lambda b: {"n": 0}, lambda x, s: (x, s), r"'state.n': init_state\(1\) gives a int"),
    "neighbours": (zeros, lambda x, s: (x - x.mean(0, keepdim=True) + s, s + x), r"the step graph is not the module"),
    "output without batch": (zeros, lambda x, s: (x.mean(0), s + x), r"output 'output': is shape \(3,\)"),
    "wrong frame": (zeros, lambda x, s: (x @ torch.ones(7, 3), s + x), r"fails on frames and states of shapes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_step_is_refused(tmp_path, case):
    """The message says which state or output is not as the protocol has it, and no file is left."""
    initial, forward, message = REFUSED[case]
    with pytest.raises(ut.ExportError) as caught:
        ut.export(Free(initial, forward), torch.randn(2, 3), tmp_path / "m.onnx")
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not list(tmp_path.iterdir())


def test_options_of_whole_sequences_are_refused(tmp_path):
    """A StepModule has no time axis and steps one frame: other options are an error, not ignored."""
    with pytest.raises(ut.ExportError, match="takes one frame"):
        ut.export(MinGRU(), torch.randn(2, 6), tmp_path / "m.onnx", frames_per_step=4)
