"""The layers of `undertow.exporters.nn`: their formulas, gradients and causality, and that what is exported is what was trained."""

import contextlib
import functools
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.exporters import nn as layers  # noqa: E402
from undertow.exporters.calling import Call  # noqa: E402
from undertow.exporters.nn import mel, norms, scan  # noqa: E402
from undertow.exporters.torch_graph import evaluation, whole_sequence  # noqa: E402

from . import naive_layers as naive  # noqa: E402
from .torch_exports import compiled, one_operator_library, without_compiling  # noqa: E402, F401

LAYERS = (Path(__file__).parents[1] / "docs" / "layers.md").read_text(encoding="utf-8")
MEL = {"window_length": 40, "hop_length": 16, "n_fft": 64, "n_mels": 8}
MEL_NAIVE = {"rate": 8000, "area": False, "low": 0, "high": 4000, "power": 2.0, "floor": 1e-10, **MEL}
HANN = np.sin(np.pi * np.arange(40) / 40) ** 2
SLANEY = {"low_hz": 100.0, "high_hz": 3000.0, "mel_scale": "slaney", "area_norm": True, "padding": "none", "power": 1.0}


@dataclass(frozen=True)
class Case:
    """A layer, and what it should be. reach: the last frame that output i sees. state: numbers of its state in a step graph."""

    make: Callable[[], Any]
    formula: Callable[[Any, dict[str, Any]], Any]
    features: int | None = 4
    reach: Callable[[int], int] = field(default=lambda i: i)
    state: int = 0
    delay: int = 0
    lengths: tuple[int, ...] = (1, 2, 7, 23)


def conv(state, reach=lambda i: i, delay=0, **options):
    options = {"kernel_size": 3} | options
    rest = {name: value for name, value in options.items() if name in ("stride", "dilation", "groups", "lookahead")}
    formula = functools.partial(naive.causal_conv, **rest)
    return Case(lambda: layers.CausalConv1d(4, 6, **options), formula, reach=reach, state=state, delay=delay)


def attention(state, right=0, delay=0, **options):
    def make():
        made = layers.WindowedAttention(8, 2, left=3, right=right, **options)
        if made.relative is not None:
            nn.init.normal_(made.relative)
        return made

    base = {"rotary_base": 10_000.0} if "rotary" in options else {}
    formula = functools.partial(naive.windowed_attention, heads=2, left=3, right=right, **base)
    return Case(make, formula, 8, lambda i: i + right, state, delay)


def controlled(layer, kind, lookahead, count, state, **options):
    def make():
        return layers.LatencyControlled(layer(4, 3, count, bidirectional=True, batch_first=True, **options), lookahead)

    formula = functools.partial(naive.latency_controlled, kind=kind, layers=count, lookahead=lookahead)
    return Case(make, formula, reach=lambda i: i + count * lookahead, state=state, delay=count * lookahead)


def log_mel(samples, w, causal=True, scale="htk", window=HANN, **options):
    return naive.log_mel(samples, causal=causal, scale=scale, window=window, **(MEL_NAIVE | options))


def mfcc(samples, w):
    hamming = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(40) / 40)
    options = {"low": 100, "high": 3000, "area": True, "power": 1.0, "window": hamming}
    return np.array([naive.dct(row, 5) for row in log_mel(samples, w, False, "slaney", **options)])


def normed(decay, **options):
    return Case(
        lambda: layers.RunningNorm(4, decay=decay, **options),
        functools.partial(naive.running_norm, decay=decay, eps=1e-5),
        state=9,
    )


CASES = {
    "conv": conv(16, dilation=2),
    "conv-strided": conv(8, lambda i: 2 * i, stride=2, groups=2),
    "conv-lookahead": conv(16, lambda i: i + 2, 2, kernel_size=5, lookahead=2, bias=False),
    "min-gru": Case(lambda: layers.MinGRU(4, 6), naive.min_gru, state=6),
    "lru": Case(lambda: layers.LRU(4, 5), naive.lru, state=10),
    "ssm": Case(lambda: layers.SelectiveSSM(4, state_size=3), naive.selective_ssm, state=8 * (3 + 3)),
    "norm": normed(1.0, affine=True),
    "norm-forgetting": normed(0.8),
    "attention": attention(2 * 4 * 8 + 8, right=1, delay=1),
    "attention-bias": attention(2 * 3 * 8, relative_bias=True),
    "attention-rotary": attention(2 * 3 * 8, rotary=True),
    "log-mel": Case(
        lambda: layers.LogMel(8000, **MEL), log_mel, None, lambda i: 16 * i + 15, 24, lengths=(16, 50, 200)
    ),
    "mfcc": Case(
        lambda: layers.MFCC(layers.LogMel(8000, window="hamming", **MEL, **SLANEY), 5),
        mfcc,
        None,
        lambda i: 16 * i + 39,
        32,
        32,
        lengths=(40, 63, 200),
    ),
    "latency-lstm": controlled(nn.LSTM, "lstm", 3, 2, 2 * (3 + 3) + 3 * (4 + 6)),
    "latency-gru": controlled(nn.GRU, "gru", 2, 1, 3 + 2 * 4, bias=False),
    "latency-relu": controlled(nn.RNN, "rnn_relu", 1, 1, 3 + 1 * 4, nonlinearity="relu"),
}
each = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(3)


@pytest.fixture
def doubles():
    """float64 unless said otherwise."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def frames(case, length, batch=2):
    shape = (batch, length) if case.features is None else (batch, length, case.features)
    return torch.randn(*shape)


def weights(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


@each
def test_a_layer_is_its_formula(name, doubles):
    """Each stream of a batch gives what the slow reference computes of it alone, at every length down to one frame."""
    case = CASES[name]
    module = case.make()
    for length in case.lengths:
        x = frames(case, length)
        got = module(x).detach().numpy()
        for stream in range(2):
            expected = case.formula(x[stream].numpy(), weights(module))
            np.testing.assert_allclose(got[stream], expected, atol=1e-9, rtol=1e-7, err_msg=f"{length} frames")


@each
def test_gradients(name, doubles):
    """The gradients for the input and for every weight are those of finite differences."""
    case = CASES[name]
    module, x = case.make(), frames(case, max(5, case.lengths[0]), 1).requires_grad_()
    names, values = zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())

    def run(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=len(values) > 4)


@each
def test_an_output_sees_no_further_than_its_delay(name, doubles):
    """Other frames after an output's last, or none, leave it as it was; another frame at its last changes it, and none before it."""
    case = CASES[name]
    module, length = case.make(), 23 if case.features else 200
    x = frames(case, length)
    whole = module(x)
    for i in (1, 4, 6):
        last = case.reach(i)
        other, own = x.clone(), x.clone()
        other[:, last + 1 :] = torch.randn_like(other[:, last + 1 :])
        own[:, last] += 1
        torch.testing.assert_close(module(other)[:, i], whole[:, i], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(module(x[:, : last + 1])[:, i], whole[:, i], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(module(own)[:, i - 1], whole[:, i - 1], rtol=1e-9, atol=1e-9)
        assert (module(own)[:, i] - whole[:, i]).abs().max() > 1e-9


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("min", "lru", "ssm", "norm", "latency"))])
def test_the_whole_sequence_graph(name):
    """Layers with operators of their own: the graph of any batch and length gives in ONNX Runtime what the module gives."""
    case = CASES[name]
    module = case.make()
    with evaluation(module):
        graph = whole_sequence(Call(module, frames(case, case.lengths[-1]), 1))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    if name.startswith("latency"):  # the bidirectional layer, until the step pass bounds it
        module.lookahead = 1000
    for length in case.lengths:
        x = frames(case, length, 3)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(got, module(x), atol=2e-5, rtol=1e-5, err_msg=f"{length} frames")


@each
def test_a_layer_is_exported_exactly(name, tmp_path):
    """The step artifact, fed in uneven chunks and closed, gives what the module gives; its delay and state are as documented."""
    case = CASES[name]
    module = case.make()
    spec = ut.export(module, frames(case, case.lengths[-1]), tmp_path / "m.onnx").spec
    floats = [s for s in spec.states if s.dtype == "float32"]
    assert spec.delay == case.delay
    assert sum(int(np.prod(s.shape)) for s in floats) == case.state, [(s.name, s.shape) for s in floats]
    engine = ut.Engine(tmp_path / "m.onnx", backend="ort", max_streams=4)
    for length in case.lengths:
        x = frames(case, length, 1)
        parts = [engine.push("a", chunk.numpy()) for chunk in (x[0, :3], x[0, 3:4], x[0, 4:]) if len(chunk)]
        got = np.concatenate([*parts, engine.close("a")])
        with torch.no_grad():
            np.testing.assert_allclose(got, module(x)[0], atol=2e-5, rtol=1e-4, err_msg=f"{length} frames")


def test_states_are_called_by_their_module(tmp_path):
    """In a stack, `engine.state` has each state by the path of the module and its letter in the formula."""
    stack = nn.Sequential(layers.RunningNorm(4), nn.Sequential(layers.MinGRU(4, 4), layers.LRU(4, 3)))
    spec = ut.export(stack, torch.randn(2, 9, 4), tmp_path / "m.onnx").spec
    assert [s.name for s in spec.states] == ["0.weight", "0.mean", "0.var", "1.0.h", "1.1.re", "1.1.im"]


# ---------------------------------------------------------------------------------------------------- scans


@pytest.mark.parametrize("length", [0, 1, 2, 3, 16, 17, 70])
def test_linear_scan(length, doubles):
    """The loop's values at lengths around those that chunks divide, with decays of 0, below 0 and near 1, from a given state."""
    a, b, h0 = torch.rand(2, length, 3, 2) * 1.9 - 0.95, torch.randn(2, length, 3, 2), torch.randn(2, 3, 2)
    a[:, ::3] = 0
    if not length:
        assert layers.linear_scan(a, b, h0).shape == b.shape
        return
    expected = naive.linear_scan(a.numpy(), b.numpy(), h0.numpy())
    np.testing.assert_allclose(layers.linear_scan(a, b, h0), expected, atol=1e-12)
    np.testing.assert_allclose(
        layers.linear_scan(a[:1], b, h0), naive.linear_scan(a[:1].numpy(), b.numpy(), h0.numpy())
    )


def test_scans_differentiate_twice(doubles):
    """First and second gradients of both scans are those of finite differences, an initial state's too."""
    a, b, h0 = (torch.rand(*s).requires_grad_() for s in ((1, 5, 2), (1, 5, 2), (1, 2)))
    assert torch.autograd.gradcheck(layers.linear_scan, (a, b, h0))
    assert torch.autograd.gradgradcheck(layers.linear_scan, (a, b, h0))
    parts = [torch.rand(*s).requires_grad_() for s in ((2,), (2,), (1, 5, 2), (1, 5, 2))]

    def run(re, im, x, y):
        return scan.complex_scan((re, im), (x, y))

    assert torch.autograd.gradcheck(run, parts)
    assert torch.autograd.gradgradcheck(run, parts)


def test_the_operators_are_sound():
    """torch's own checks of a custom operator: its schema, its shapes without data, its gradient's registration."""
    a, b, h0 = (torch.rand(*s, requires_grad=True) for s in ((2, 5, 3), (2, 5, 3), (2, 3)))
    torch.library.opcheck(torch.ops.undertow.linear_scan.default, (a, b, h0))
    torch.library.opcheck(torch.ops.undertow.complex_scan.default, (torch.rand(3), torch.rand(3), a, b))
    torch.library.opcheck(torch.ops.undertow.running_moments.default, (b.detach(), 0.9))


def test_a_scan_has_no_loop_over_frames():
    """Sixteen times as many frames take about four times as many operations, not sixteen."""

    class Counting(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    def operations(length):
        x = torch.rand(1, length, 2)
        with Counting() as counting:
            scan.scanned(x, x, x[:, 0])
        return counting.count

    assert operations(1600) < 5 * operations(100)


def test_long_sequences_stay_finite():
    """Decays of 0 and 1 over many frames: no logarithm or division makes an infinity of them, forward or backward."""
    a = torch.tensor([0.0, 1e-30, 1.0]).expand(1, 5000, 3).clone().requires_grad_()
    y = layers.linear_scan(a, torch.ones(1, 5000, 3))
    y.sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()
    torch.testing.assert_close(y[0, -1], torch.tensor([1.0, 1.0, 5000.0]))


def test_running_moments_do_not_cancel():
    """Features far from zero keep their variance in float32, where a mean of squares would lose it."""
    x = 1e4 + torch.randn(1, 400, 2)
    mean, var = norms.moments(x, 1.0)
    exact = x.double().numpy()[0]
    np.testing.assert_allclose(mean[0, -1], exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var[0, -1], exact.var(0), rtol=1e-2)


# ------------------------------------------------------------------------------------- other ways to say the same


@pytest.mark.parametrize("name", ["attention", "attention-bias", "attention-rotary"])
def test_attention_depends_on_its_window_alone(name, doubles):
    """The same frames later in a longer sequence give the same: what is before the window is not seen, nor where it is."""
    module = CASES[name].make()
    x = frames(CASES[name], 30)
    torch.testing.assert_close(module(x[:, 11:])[:, 3:], module(x)[:, 14:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_long_lookahead_is_the_layer_itself(kind, doubles):
    """With a lookahead of a sequence's length the layer is torch's bidirectional layer."""
    layer, x = kind(4, 3, 2, bidirectional=True, batch_first=True), torch.randn(2, 9, 4)
    torch.testing.assert_close(layers.LatencyControlled(layer, 8)(x), layer(x)[0])
    torch.testing.assert_close(layers.latency_controlled(layer, x, 99), layer(x)[0])


def test_mel_scales_are_the_published_ones():
    """1000 Hz is 1000 mels of HTK and 15 of Slaney, 6400 Hz 42 of Slaney; a scale and its inverse cancel."""
    assert mel.to_mel(np.array([1000.0]), "htk")[0] == pytest.approx(1000, abs=0.02)
    np.testing.assert_allclose(mel.to_mel(np.array([1000.0, 6400.0]), "slaney"), [15, 42])
    for scale in ("htk", "slaney"):
        hz = np.array([0.0, 20, 440, 999, 1001, 7000])
        np.testing.assert_allclose(mel.to_hz(mel.to_mel(hz, scale), scale), hz, atol=1e-9)


def test_mel_spectra_are_those_of_torch(doubles):
    """Energies of frames are torch.stft's of the same window, and a frame axis of size 1 changes nothing."""
    x = torch.randn(2, 300)
    layer = layers.LogMel(8000, window_length=64, hop_length=16, n_mels=8, padding="none")
    stft = torch.stft(x, 64, 16, window=torch.hann_window(64), center=False, return_complex=True)
    expected = torch.log(stft.abs().square().transpose(1, 2) @ layer.mel)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x[..., None]), expected)


def test_silence_has_a_gradient():
    """Samples of zeros give the floor, and gradients of zero, also where the power is not 2."""
    x = torch.zeros(1, 80, requires_grad=True)
    y = layers.LogMel(8000, power=1.0, **MEL)(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    torch.testing.assert_close(y, torch.full_like(y, float(np.log(1e-10))))


@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_decoder_attention(kind, doubles):
    """Run frame by frame it is the slow reference, and gradients reach every weight."""
    module = layers.EncoderDecoderAttention(4, 3, torch.randn(5, 6), kind=kind)
    x = torch.randn(2, 7, 4)
    got, _ = module.over(x)
    for stream in range(2):
        expected = naive.decoder_attention(x[stream].numpy(), weights(module), kind=kind)
        np.testing.assert_allclose(got[stream].detach(), expected, atol=1e-12)
    got.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize("kind", ["additive", "dot"])
def test_decoder_attention_is_exported(kind, tmp_path):
    """The step artifact gives what the decoder gives, its memory within, and keeps the decoder's state alone."""
    module = layers.EncoderDecoderAttention(4, 3, torch.randn(5, 6), kind=kind)
    spec = ut.export(module, torch.randn(2, 4), tmp_path / "m.onnx").spec
    assert [s.shape for s in spec.states] == [(3,)]
    x = torch.randn(1, 7, 4)
    got = ut.Engine(tmp_path / "m.onnx", backend="ort", max_streams=1).push("a", x[0].numpy())
    with torch.no_grad():
        np.testing.assert_allclose(got, module.over(x)[0][0], atol=2e-5)


def test_layers_together_on_both_backends(compiled, tmp_path):  # noqa: F811
    """The example of docs/layers.md runs as it stands: a front end, a norm, a convolution and a scan, compiled and not."""
    (code,) = re.findall(r"```python\n(.*?)```", LAYERS, re.DOTALL)
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {})
    assert printed.getvalue() == "160 0\n(10, 12)\n"
    parity = ut.read_artifact(tmp_path / "words.onnx").spec.certificate
    assert [line.backend for line in parity] == ["ort", "numba"]


def test_every_layer_is_documented():
    """The table of docs/layers.md has a row for each public name, and for no other."""
    rows = re.findall(r"^\| `(\w+)\(", LAYERS, re.MULTILINE)
    assert sorted(rows) == sorted(layers.__all__)


WRONG = {
    "kernel_size is 0": lambda: layers.CausalConv1d(4, 4, 0),
    "lookahead is 3 frames, expected at most the kernel's span, 2": lambda: layers.CausalConv1d(4, 4, 3, lookahead=3),
    "groups is 3": lambda: layers.CausalConv1d(4, 6, 3, groups=3),
    "hidden is 2.5": lambda: layers.MinGRU(4, 2.5),
    "radius is": lambda: layers.LRU(4, 4, radius=(0.5, 1.0)),
    "dt_range is": lambda: layers.SelectiveSSM(4, dt_range=(0.1, 0.01)),
    "decay is 1.5": lambda: layers.RunningNorm(4, decay=1.5),
    "eps is 0": lambda: layers.RunningNorm(4, eps=0),
    "features is 9, expected a multiple of heads": lambda: layers.WindowedAttention(9, 2, left=1),
    "even number for rotary": lambda: layers.WindowedAttention(6, 2, left=1, rotary=True),
    "left is -1": lambda: layers.WindowedAttention(4, 2, left=-1),
    "would always be silent": lambda: layers.LogMel(16_000, window_length=32, hop_length=16, n_mels=80),
    "half the sample rate": lambda: layers.LogMel(8000, high_hz=5000.0, **MEL),
    "mel_scale is 'bark'": lambda: layers.LogMel(8000, mel_scale="bark", **MEL),
    "n_fft is 32": lambda: layers.LogMel(8000, **(MEL | {"n_fft": 32})),
    "with padding='causal'": lambda: layers.LogMel(8000, **(MEL | {"hop_length": 41})),
    "n_mfcc is 9": lambda: layers.MFCC(layers.LogMel(8000, **MEL), 9),
    "expected bidirectional=True": lambda: layers.LatencyControlled(nn.LSTM(4, 4, batch_first=True), 2),
    "layer is a Linear": lambda: layers.LatencyControlled(nn.Linear(4, 4), 2),
    "lookahead is 0": lambda: layers.LatencyControlled(nn.GRU(4, 4, bidirectional=True, batch_first=True), 0),
    "memory has shape": lambda: layers.EncoderDecoderAttention(4, 3, torch.zeros(5)),
    "leave it out with kind='dot'": lambda: layers.EncoderDecoderAttention(
        4, 3, torch.zeros(5, 6), kind="dot", attention=4
    ),
    "h0 has shape": lambda: layers.linear_scan(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.ones(2, 3)),
    r"expected \(batch, time, 4\)": lambda: layers.MinGRU(4, 4)(torch.zeros(2, 3, 5)),
    r"expected samples \(batch, time\)": lambda: layers.LogMel(8000, **MEL)(torch.zeros(2, 3, 5)),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_named(message):
    """What a layer cannot be made of or be given is refused at once, with what was got and what was expected."""
    with pytest.raises(ValueError, match=message):
        WRONG[message]()
