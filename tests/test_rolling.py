"""Loops over time written in Python, torch.scan, torch.while_loop and projected LSTMs: the step is what the module computes."""

import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch._higher_order_ops.scan import scan  # noqa: E402
from torch._higher_order_ops.while_loop import while_loop  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.engine.compiler import missing  # noqa: E402

from .torch_exports import Body, check_whole, compiled, one_operator_library, without_compiling  # noqa: E402, F401


class Cells(nn.Module):
    """Layers over the whole sequence, then an LSTM and a GRU cell in a loop with a head, then another loop and a layer over the whole."""

    def __init__(self):
        super().__init__()
        self.embed, self.head, self.gru = nn.Linear(4, 4), nn.Linear(5, 3), nn.GRU(6, 4, batch_first=True)
        self.a, self.b, self.c = nn.LSTMCell(4, 5), nn.GRUCell(5, 5), nn.RNNCell(3, 6)
        self.first = nn.Parameter(torch.randn(1, 5))

    def forward(self, x):
        x = self.embed(x).reshape(-1, 4).reshape(x.shape)
        h, g, outs = self.first.expand(x.shape[0], 5), None, []
        c = torch.zeros_like(h)
        for t in range(x.shape[1]):
            h, c = self.a(x[:, t], (h, c))
            g = self.b(h, g)
            outs.append(self.head(g))
        h, y = None, torch.stack(outs, 1).relu()
        outs = []
        for frame in y.unbind(1):
            h = self.c(frame, h)
            outs.append(h)
        return self.gru(torch.stack(outs, 1))[0]


def filled(module, x):
    """A tensor made before the loop; an output of what was before the update; what was two frames ago."""
    out, h = x.new_zeros(x.shape[0], x.shape[1], 5), x.new_zeros(x.shape[0], 5)
    before = h
    for t in range(x.shape[1]):
        out[:, t] = h + 2 * before
        h, before = module.cell(x[:, t], h), h
    return out


def smoothed(module, x):
    """The first frame is where it begins; the loop is over the others."""
    y = x[:, 0]
    outs = [y]
    for t in range(1, x.shape[1]):
        y = 0.9 * y + 0.1 * x[:, t]
        outs.append(y)
    return torch.stack(outs, 1)


def counting(module, x):
    """Frames of time-first tensors, the frame before, the number of the frame, and the state after the last."""
    x = x.transpose(0, 1)
    h, outs = torch.zeros_like(x[0]), []
    for t, frame in enumerate(x):
        before = x[t - 1] if t else h
        h = h * 0.5 + frame + 0.1 * t * before
        outs.append(h[:, None])
    return torch.cat(outs, 1), h


def images(module, x):
    """A convolutional GRU over frames of 2 x 6 x 6."""
    h, outs = x.new_zeros(x.shape[0], 3, *x.shape[3:]), []
    for t in range(x.shape[1]):
        z = torch.sigmoid(module.z(torch.cat([x[:, t], h], 1)))
        h = (1 - z) * h + z * torch.tanh(module.c(torch.cat([x[:, t], z * h], 1)))
        outs.append(h.mean((2, 3)))
    return torch.stack(outs, 1)


def images_module():
    return Body(images, z=nn.Conv2d(5, 3, 3, padding=1), c=nn.Conv2d(5, 3, 3, padding=1))


LOOPS = {
    "cells": (Cells, (4,), [(5,), (5,), (5,), (6,), (4,)]),
    "filled": (lambda: Body(filled, cell=nn.GRUCell(4, 5)), (4,), [(5,), (5,)]),
    "smoothed": (lambda: Body(smoothed), (4,), [(4,), ()]),
    "counting": (lambda: Body(counting), (4,), [(4,), (4,), ()]),
    "images": (images_module, (2, 6, 6), [(3, 6, 6)]),
}


@pytest.mark.parametrize("case", LOOPS)
def test_python_loops_over_time_become_steps(tmp_path, case):
    """The step gives what the loop gives, carries no more than the loop's own state, and the compiler takes it."""
    make, frame, states = LOOPS[case]
    torch.manual_seed(0)
    module = make()
    report = ut.export(module, torch.randn(2, 9, *frame), tmp_path / "m.onnx")
    assert sorted(s.shape for s in report.spec.states) == sorted(states)
    assert missing(ut.read_artifact(tmp_path / "m.onnx")) == []
    check_whole(module, tmp_path / "m.onnx", frame)


def looped(step):
    """A loop of `step(module, x, t, h) -> h` from zeros, stacked."""

    def run(module, x):
        h, outs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            h = step(module, x, t, h)
            outs.append(h)
        return torch.stack(outs, 1)

    return Body(run, cells=nn.ModuleList([nn.Linear(4, 4) for _ in range(20)]))


def backwards(module, x):
    h, outs = torch.zeros_like(x[:, 0]), []
    for t in reversed(range(x.shape[1])):
        h = 0.5 * h + x[:, t]
        outs.insert(0, h)
    return torch.stack(outs, 1)


REFUSED = {
    "backwards": (lambda: Body(backwards), r"from the last frame to the first"),
    "the next frame": (
        lambda: looped(lambda m, x, t, h: h + x[:, min(t + 1, x.shape[1] - 1)]),
        r"reads frames that come after|needs the last frame from the start",
    ),
    "a layer for each frame": (
        lambda: looped(lambda m, x, t, h: torch.tanh(m.cells[t](h) + x[:, t])),
        r"position|not alike",
    ),
    "every other frame": (
        lambda: looped(lambda m, x, t, h: h + x[:, t] if t % 2 else h - x[:, t]),
        r"not alike from frame",
    ),
    "another length": (
        lambda: looped(lambda m, x, t, h: h + x[:, t] if x.shape[1] < 10 else h - x[:, t]),
        r"at 13 frames output 'output' is not what the module gives",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_loops_that_are_no_step_are_refused(tmp_path, case):
    """The message says in what the loop is no step, and no file is left."""
    make, message = REFUSED[case]
    with pytest.raises(ut.ExportError) as caught:
        ut.export(make(), torch.randn(2, 9, 4), tmp_path / "m.onnx")
    assert re.search(message, str(caught.value)), str(caught.value)
    assert not list(tmp_path.iterdir())


def scanned(module, x):
    """torch.scan with a dict of states, one of them a count without a batch axis."""

    def step(state, frame):
        h, n = torch.tanh(module.a(frame) + module.b(state["h"])), state["n"] + 1
        return {"h": h, "n": n}, h / n.to(h.dtype)

    first = {"h": x.new_zeros(x.shape[0], 5), "n": torch.zeros((), dtype=torch.int64)}
    return scan(step, first, x, dim=1)[1]


def while_looped(module, x):
    """torch.while_loop that fills a tensor, time first."""
    frames = x.transpose(0, 1).contiguous()

    def going(i, h, out):
        return i < out.shape[0]

    def step(i, h, out):
        h = torch.tanh(module.a(frames.index_select(0, i.reshape(1))[0]) + module.b(h))
        return i + 1, h, torch.index_copy(out, 0, i.reshape(1), h[None])

    first = (torch.zeros((), dtype=torch.int64), x.new_zeros(x.shape[0], 5))
    return while_loop(going, step, (*first, x.new_zeros(x.shape[1], x.shape[0], 5)))[2].transpose(0, 1)


def test_torch_scan(tmp_path, compiled):  # noqa: F811
    """torch.scan becomes a step on both backends."""
    module = Body(scanned, a=nn.Linear(4, 5), b=nn.Linear(5, 5))
    report = ut.export(module, torch.randn(2, 9, 4), tmp_path / "m.onnx")
    assert {p.backend for p in report.parity} == {"ort", "numba"}
    check_whole(module, tmp_path / "m.onnx", (4,), backend="numba")


def test_torch_while_loop(tmp_path):
    """torch.while_loop becomes a step that carries the state alone."""
    module = Body(while_looped, a=nn.Linear(4, 5), b=nn.Linear(5, 5))
    report = ut.export(module, torch.randn(2, 9, 4), tmp_path / "m.onnx")
    assert [s.shape for s in report.spec.states] == [(5,)]
    check_whole(module, tmp_path / "m.onnx", (4,))


class Projected(nn.Module):
    """Two layers of projected LSTM with learned initial states, and a head."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(4, 6, num_layers=2, proj_size=3, batch_first=True), nn.Linear(3, 2)
        self.h, self.c = nn.Parameter(torch.randn(2, 1, 3)), nn.Parameter(torch.randn(2, 1, 6))

    def forward(self, x):
        first = tuple(s.expand(2, x.shape[0], s.shape[2]).contiguous() for s in (self.h, self.c))
        return self.head(self.rnn(x, first)[0])


def test_projected_lstm(tmp_path):
    """nn.LSTM with proj_size: states named as those of other layers, from learned initial ones; also time first and without biases."""
    module = Projected()
    report = ut.export(module, torch.randn(2, 9, 4), tmp_path / "m.onnx")
    assert [(s.name, s.shape) for s in report.spec.states] == [
        ("rnn.l0.h", (3,)),
        ("rnn.l0.c", (6,)),
        ("rnn.l1.h", (3,)),
        ("rnn.l1.c", (6,)),
    ]
    assert missing(ut.read_artifact(tmp_path / "m.onnx")) == []
    check_whole(module, tmp_path / "m.onnx", (4,))
    plain = ut.export(nn.LSTM(4, 6, proj_size=3, bias=False), torch.randn(9, 2, 4), tmp_path / "p.onnx", time_axis=0)
    assert [s.shape for s in plain.spec.states] == [(3,), (6,)]
