"""Attention within a window of frames: the model's own mask decides which; keys and values are states."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.exporters.nn import LatencyControlled  # noqa: E402

from .torch_exports import (  # noqa: E402, F401
    Body,
    check_whole,
    compiled,
    one_operator_library,
    streamed,
    without_compiling,
)


class Attention(nn.Module):
    """Two heads of 4 over 8 features, in the many ways in which it is written. window: frames before and after; chunk: frames that see each other."""

    def __init__(self, kind, window=(3, 1), chunk=0, before=None):
        super().__init__()
        self.kind, self.window, self.chunk, self.before = kind, window, chunk, before
        self.layer, self.qkv = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 24)
        self.bias = nn.Parameter(torch.randn(2, 15))

    def forward(self, x):
        if self.before is not None:
            x = self.before(x.mT).mT
        length = x.shape[1]
        place = torch.arange(length)
        offset = place[None, :] - place[:, None]
        seen = (offset <= self.window[1]) & (offset >= -self.window[0])
        if self.chunk:
            chunk = place // self.chunk
            seen = (chunk[None, :] <= chunk[:, None]) & (chunk[None, :] >= chunk[:, None] - 1)
        if self.kind.startswith("layer"):
            return x + self.layer(x, x, x, attn_mask=~seen, need_weights=self.kind == "layer, weights")[0]
        q, k, v = self.qkv(x).view(x.shape[0], length, 3, 2, 4).permute(2, 0, 3, 1, 4)
        return getattr(self, self.kind)(q, k, v, seen, offset).transpose(1, 2).flatten(2)

    def fused(self, q, k, v, seen, offset):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    def by_hand(self, q, k, v, seen, offset):
        return (q @ k.mT / 2.0).masked_fill(~seen, float("-inf")).softmax(-1) @ v

    def relative(self, q, k, v, seen, offset):
        scores = q @ k.mT / 2.0 + self.bias[:, offset.clamp(-7, 7) + 7]
        return scores.masked_fill(~seen, -1e9).softmax(-1) @ v

    def distance(self, q, k, v, seen, offset):
        return (q @ k.mT / 2.0 - offset.abs() * 0.5).masked_fill(~seen, -1e9).softmax(-1) @ v

    def rotary(self, q, k, v, seen, offset):
        angle = torch.arange(q.shape[2])[:, None] * torch.tensor([1.0, 0.1])

        def turned(z):
            a, b = z.chunk(2, -1)
            return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

        return F.scaled_dot_product_attention(turned(q), turned(k), v, attn_mask=seen)

    def causal(self, q, k, v, seen, offset):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    def whole(self, q, k, v, seen, offset):
        return F.scaled_dot_product_attention(q, k, v)


CASES = {  # what is exported, and its delay and frames a step
    "fused": (lambda: Attention("fused"), (1, 1)),
    "by hand": (lambda: Attention("by_hand"), (1, 1)),
    "layer": (lambda: Attention("layer"), (1, 1)),
    "layer, weights": (lambda: Attention("layer, weights"), (1, 1)),
    "relative": (lambda: Attention("relative"), (1, 1)),
    "distance": (lambda: Attention("distance"), (1, 1)),
    "rotary": (lambda: Attention("rotary", (5, 1)), (1, 1)),
    "past alone": (lambda: Attention("fused", (5, 0)), (0, 1)),
    "far": (lambda: Attention("fused", (40, 3)), (3, 1)),
    "chunks": (lambda: Attention("fused", chunk=4), (0, 4)),
    "after a convolution": (lambda: Attention("layer", (4, 2), before=nn.Conv1d(8, 8, 3, padding=1)), (3, 1)),
    "after a stride": (lambda: Attention("fused", (4, 1), before=nn.Conv1d(8, 8, 3, padding=1, stride=2)), (2, 2)),
    "two layers": (lambda: nn.Sequential(Attention("layer", (4, 2)), Attention("by_hand", (3, 1))), (3, 1)),
}


@pytest.mark.parametrize("name", CASES)
def test_exact(name, tmp_path):
    """Weights at both ends and between are those of the whole sequence."""
    torch.manual_seed(0)
    make, shape = CASES[name]
    module = make()
    report = ut.export(module, torch.randn(2, 48, 8), tmp_path / "m.onnx")
    assert (report.spec.delay, report.spec.frames_per_step) == shape
    check_whole(module, report.path, report.spec.inputs[0].shape, (4, 8, 60) if name == "chunks" else (1, 2, 5, 60))


def test_two_layers_in_steps_of_several_frames(tmp_path):
    """A frame past the end sees nothing, and its weights are no numbers: none of that reaches the frames before it."""
    torch.manual_seed(0)
    module = nn.Sequential(Attention("fused", (0, 0)), Attention("by_hand", (0, 0)), Attention("fused", (2, 0)))
    report = ut.export(module, torch.randn(2, 48, 8), tmp_path / "m.onnx", frames_per_step=3)
    check_whole(module, report.path, (8,), (1, 2, 3, 4, 50))


def test_exact_when_compiled(tmp_path, compiled):  # noqa: F811
    """The compiled backend steps attention as well."""
    module = Attention("layer", (4, 2), before=nn.Conv1d(8, 8, 3, padding=1))
    report = ut.export(module, torch.randn(2, 48, 8), tmp_path / "m.onnx")
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    check_whole(module, report.path, report.spec.inputs[0].shape, (1, 2, 60), backend="numba")


@pytest.mark.parametrize("kind", ["causal", "whole"])
def test_without_a_window_refused(kind, tmp_path):
    """Attention to all frames so far, or to all, is refused with the way out."""
    with pytest.raises(ut.ExportError, match=r"MatMul.*memory without end.*window=\(frames before, frames after\)"):
        ut.export(Attention(kind), torch.randn(2, 48, 8), tmp_path / "m.onnx")


@pytest.mark.parametrize("kind", ["causal", "whole"])
def test_held_to_a_window(kind, tmp_path):
    """With window= the steps are those of the module with that window, and how far that is from the module is in the artifact."""
    torch.manual_seed(0)
    window = (6, 0) if kind == "causal" else (6, 2)
    module, held = Attention(kind), Attention("fused", window)
    held.load_state_dict(module.state_dict())
    report = ut.export(module, torch.randn(2, 48, 8), tmp_path / "m.onnx", window=window)
    assert report.spec.delay == window[1]
    (line,) = report.spec.approximations
    assert (line.kind, line.parameter) == ("window", f"{window[0]}, {window[1]}")
    assert line.max_abs_error["output"] > 1e-3
    check_whole(held, report.path, (8,), (1, 2, 5, 40))


class Bidirectional(nn.Module):
    """Two layers that see the whole sequence, and a head."""

    def __init__(self, kind):
        super().__init__()
        self.layer = kind(4, 3, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.layer(x)[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_lookahead(kind, tmp_path):
    """With lookahead= the reverse layers begin so far ahead, as the layer of exporters.nn does; each layer adds its delay."""
    torch.manual_seed(0)
    module = Bidirectional(kind)
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx", lookahead=3)
    assert report.spec.delay == 6
    (line,) = report.spec.approximations
    assert (line.kind, line.parameter) == ("lookahead", "3")
    assert line.max_abs_error["output"] > 1e-5
    bounded = nn.Sequential(LatencyControlled(module.layer, 3), module.head)
    check_whole(bounded, report.path, (4,), (1, 2, 5, 40))


def test_a_large_lookahead_is_the_layer_itself(tmp_path):
    """Sequences shorter than the lookahead are exact, and the error that is stated shrinks as it grows."""
    torch.manual_seed(0)
    module = Bidirectional(nn.GRU)
    errors = []
    for ahead in (1, 4, 12):
        report = ut.export(module, torch.randn(2, 48, 4), tmp_path / f"{ahead}.onnx", lookahead=ahead)
        errors.append(report.spec.approximations[0].max_abs_error["output"])
    assert errors[0] > errors[1] > errors[2]
    check_whole(module, report.path, (4,), (1, 2, 12))


REDUCED = {
    "mean of frames": lambda m, x: m.head(m.gru(x)[0].mean(1)),
    "largest, after a convolution": lambda m, x: m.head(torch.relu(m.conv(x.mT)).amax(-1)),
    "pooled to one": lambda m, x: m.head(F.adaptive_avg_pool1d(torch.relu(m.conv(x.mT)), 1).squeeze(-1)),
    "squeeze and excite": lambda m, x: m.head(x * torch.sigmoid(m.gate(x.mean(1, keepdim=True))))[:, :],
}


@pytest.mark.parametrize("name", REDUCED)
def test_running_reductions(name, tmp_path):
    """With reduce="running" the last output of a stream, its flush included, is what the module says of the whole sequence."""
    torch.manual_seed(0)
    parts = {
        "gru": nn.GRU(4, 4, batch_first=True),
        "conv": nn.Conv1d(4, 4, 3, padding=1),
        "gate": nn.Linear(4, 4),
        "head": nn.Linear(4, 3),
    }
    module = Body(REDUCED[name], **parts).eval()
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx", reduce="running")
    assert "at each sequence's end" in report.parity[0].reference
    sequences = {n: torch.randn(n, 4) for n in (1, 2, 9, 30)}
    given = streamed(report.path, {n: x.numpy() for n, x in sequences.items()})
    for n, x in sequences.items():
        assert len(given[n]) == n
        with torch.no_grad():
            whole = module(x[None])[0]
        np.testing.assert_allclose(given[n][-1], whole if whole.dim() == 1 else whole[-1], atol=1e-5)
