"""Layers that mix frames: convolutions, pooling, padding, strides, slices, skips. Exact at both ends, in chunks of any length."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import undertow as ut  # noqa: E402

from .torch_exports import Body, check_whole, compiled, one_operator_library, without_compiling  # noqa: E402, F401

C = nn.Conv1d


def over(function):
    """The function of (module, x) over (B, F, T)."""
    return lambda m, x: function(m, x.mT).mT


# name: (function over (B, T, 4), its parts, (delay, frames a step, outputs a step), the shortest sequence that it takes)
CASES = {
    "causal": (over(lambda m, x: m.c(F.pad(x, (2, 0)))), {"c": C(4, 5, 3)}, (0, 1, 1), 1),
    "same": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 3, padding=1)}, (1, 1, 1), 1),
    "same even": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 4, padding="same")}, (2, 1, 1), 1),
    "no padding": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 3)}, (2, 1, 1), 3),
    "depthwise": (over(lambda m, x: m.c(x)), {"c": C(4, 8, 7, padding=3, groups=4)}, (3, 1, 1), 1),
    "dilated, deep": (
        over(lambda m, x: m.e(torch.relu(m.d(torch.relu(m.c(x)) + 1)) + 1)),
        {"c": C(4, 4, 3, padding=2, dilation=2), "d": C(4, 4, 3, padding=4, dilation=4), "e": C(4, 4, 5, padding=2)},
        (8, 1, 1),
        1,
    ),
    "skip": (
        over(lambda m, x: x + m.d(torch.sigmoid(m.c(x)))),
        {"c": C(4, 4, 3, padding=1), "d": C(4, 4, 3, padding=1)},
        (2, 1, 1),
        1,
    ),
    "three ways": (
        over(lambda m, x: torch.cat([x, m.c(x), m.d(x)], 1)),
        {"c": C(4, 3, 5, padding=2), "d": C(4, 2, 9, padding=4)},
        (4, 1, 1),
        1,
    ),
    "chomp": (over(lambda m, x: m.c(x)[:, :, :-4]), {"c": C(4, 5, 3, padding=4, dilation=2)}, (0, 1, 1), 1),
    "stride": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 4, stride=2, padding=1)}, (2, 2, 1), 2),
    "stride twice": (
        over(lambda m, x: m.d(torch.sigmoid(m.c(x)))),
        {"c": C(4, 5, 3, stride=2, padding=1), "d": C(5, 5, 3, stride=2, padding=1)},
        (0, 4, 1),
        1,
    ),
    "stride larger than the kernel": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 2, stride=3)}, (0, 3, 1), 2),
    "conv, lstm": (
        lambda m, x: m.l(m.c(x.mT).mT)[0],
        {"c": C(4, 5, 5, padding=2), "l": nn.LSTM(5, 6, batch_first=True)},
        (2, 1, 1),
        1,
    ),
    "stride, gru, up": (
        lambda m, x: F.interpolate(m.g(m.c(x.mT).mT)[0].mT, scale_factor=2).mT,
        {"c": C(4, 5, 4, stride=2, padding=2), "g": nn.GRU(5, 6, batch_first=True)},
        (0, 2, 2),
        1,
    ),
    "reflected": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 3, padding=1, padding_mode="reflect")}, (1, 1, 1), 2),
    "edge": (over(lambda m, x: m.c(x)), {"c": C(4, 5, 5, padding=2, padding_mode="replicate")}, (2, 1, 1), 1),
    "reflected, stride": (
        over(lambda m, x: m.c(F.pad(torch.sigmoid(m.d(x)), (3, 2), mode="reflect"))),
        {"d": C(4, 4, 3, padding=1), "c": C(4, 5, 5, stride=2)},
        (4, 2, 1),
        4,
    ),
    "front cut": (lambda m, x: x[:, 2:] * 2, {}, (2, 1, 1), 2),
    "end cut": (lambda m, x: x[:, :-3] * 2, {}, (3, 1, 1), 3),
    "every second": (lambda m, x: x[:, 1::2] * 2, {}, (0, 2, 1), 2),
    "shift": (lambda m, x: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1) + x, {}, (0, 1, 1), 1),
    "shift by padding": (lambda m, x: F.pad(x, (0, 0, 1, -1)) * x, {}, (0, 1, 1), 1),
    "learned beginning": (
        lambda m, x: m.g(torch.cat([m.first.expand(x.shape[0], -1, -1), x], 1))[0],
        {"first": nn.Parameter(torch.randn(1, 2, 4)), "g": nn.GRU(4, 5, batch_first=True)},
        (0, 1, 1),
        1,
    ),
    "difference": (lambda m, x: x[:, 1:] - x[:, :-1], {}, (1, 1, 1), 1),
    "largest": (over(lambda m, x: F.max_pool1d(x, 2)), {}, (0, 2, 1), 2),
    "largest, padded": (over(lambda m, x: F.max_pool1d(x, 3, stride=1, padding=1)), {}, (1, 1, 1), 1),
    "largest, rounded up": (over(lambda m, x: F.max_pool1d(x, 3, stride=2, ceil_mode=True)), {}, (2, 2, 1), 2),
    "mean": (over(lambda m, x: F.avg_pool1d(x, 2)), {}, (0, 2, 1), 2),
    "mean of those inside": (
        over(lambda m, x: F.avg_pool1d(m.c(x), 3, stride=1, padding=1, count_include_pad=False)),
        {"c": C(4, 4, 3, padding=1)},
        (2, 1, 1),
        1,
    ),
    "transposed": (over(lambda m, x: m.c(x)), {"c": nn.ConvTranspose1d(4, 5, 4, stride=2, padding=1)}, (1, 1, 2), 1),
    "transposed, longer": (
        over(lambda m, x: m.c(m.d(x))),
        {"d": C(4, 4, 3, padding=1), "c": nn.ConvTranspose1d(4, 5, 3, stride=2, padding=1, output_padding=1)},
        (2, 1, 2),
        1,
    ),
    "transposed, gaps": (over(lambda m, x: m.c(x)), {"c": nn.ConvTranspose1d(4, 5, 2, stride=3)}, (1, 1, 3), 1),
    "u-net": (
        over(lambda m, x: m.u(torch.relu(m.d(x))) + m.c(x)),
        {
            "d": C(4, 8, 4, stride=2, padding=1),
            "u": nn.ConvTranspose1d(8, 4, 4, stride=2, padding=1),
            "c": C(4, 4, 3, padding=1),
        },
        (3, 2, 2),
        None,
    ),
    "repeated": (lambda m, x: x.repeat_interleave(3, 1), {}, (0, 1, 3), 1),
    "linear between frames": (
        over(lambda m, x: F.interpolate(m.c(x), scale_factor=4, mode="linear")),
        {"c": C(4, 4, 3, padding=1)},
        (2, 1, 4),
        1,
    ),
    "stacked": (lambda m, x: x.reshape(x.shape[0], x.shape[1] // 4, 16), {}, (0, 4, 1), None),
    "unstacked": (lambda m, x: m.l(x).reshape(x.shape[0], -1, 2), {"l": nn.Linear(4, 6)}, (0, 1, 3), 1),
    "running sum": (over(lambda m, x: m.c(x).cumsum(-1)), {"c": C(4, 4, 3, padding=1)}, (1, 1, 1), 1),
    "running sum of a norm that is late": (
        lambda m, x: m.norm(x[:, :-1]).cumsum(1),
        {"norm": nn.LayerNorm(4, bias=True)},
        (1, 1, 1),
        2,
    ),
    "running sum, several a step": (over(lambda m, x: F.max_pool1d(x.cumsum(-1), 2)), {}, (0, 2, 1), 2),
    "images": (
        lambda m, x: m.c(x.unsqueeze(1)).transpose(1, 2).flatten(2),
        {"c": nn.Conv2d(1, 3, 3, padding=1)},
        (1, 1, 1),
        1,
    ),
    "crnn": (
        lambda m, x: m.g(F.max_pool2d(torch.relu(m.b(m.c(x.unsqueeze(1)))), (1, 2)).transpose(1, 2).flatten(2))[0],
        {
            "c": nn.Conv2d(1, 3, 3, padding=1),
            "b": nn.BatchNorm2d(3),
            "g": nn.GRU(6, 5, batch_first=True),
        },
        (1, 1, 1),
        1,
    ),
    "images, stride": (
        lambda m, x: m.d(torch.relu(m.c(x.unsqueeze(1)))).transpose(1, 2).flatten(2),
        {"c": nn.Conv2d(1, 3, 3, padding=1, stride=(2, 1)), "d": nn.Conv2d(3, 3, 3, padding=1, stride=2)},
        (0, 4, 1),
        1,
    ),
    "volumes": (
        lambda m, x: m.c(x.reshape(x.shape[0], 1, x.shape[1], 2, 2)).transpose(1, 2).flatten(2),
        {"c": nn.Conv3d(1, 3, (3, 2, 2), padding=(1, 0, 0))},
        (1, 1, 1),
        1,
    ),
    "gated": (over(lambda m, x: F.glu(m.c(x), 1) + x), {"c": C(4, 8, 3, padding=1)}, (1, 1, 1), 1),
    "embedded noise of places": (
        lambda m, x: x + torch.sin(torch.arange(x.shape[1])[:, None] * 0.3),
        {},
        (0, 1, 1),
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_exact(name, tmp_path):
    """Each is streamed exactly, from one frame to many, and comes as late as it must and no later."""
    torch.manual_seed(0)
    function, parts, shape, shortest = CASES[name]
    module = Body(function, **parts)
    for parameter in module.parameters():  # a norm's own begin as 1 and 0, which hide what they are put on
        nn.init.normal_(parameter, 0.1, 0.4)
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx")
    spec = report.spec
    assert (spec.delay, spec.frames_per_step, spec.outputs_per_step) == shape
    lengths = (4, 8, 40) if shortest is None else (shortest, shortest + 1, 7, 10, 33)
    check_whole(module, report.path, report.spec.inputs[0].shape, lengths)


@pytest.mark.parametrize(
    "name", ["three ways", "stride, gru, up", "u-net", "reflected, stride", "mean of those inside"]
)
def test_exact_when_compiled(name, tmp_path, compiled):  # noqa: F811
    """The compiled backend gives the same as the module, delays, rates and ends included."""
    torch.manual_seed(0)
    function, parts, _, shortest = CASES[name]
    module = Body(function, **parts)
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx")
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    check_whole(
        module,
        report.path,
        report.spec.inputs[0].shape,
        (4, 8, 40) if shortest is None else (shortest, 7, 33),
        backend="numba",
    )


@pytest.mark.parametrize("length", [1, 2])
def test_shorter_than_the_kernel(length, tmp_path):
    """Where a sequence is too short for the module to give anything, the stream gives nothing, and no error."""
    module = Body(*CASES["no padding"][:1], **CASES["no padding"][1])
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx")
    engine = ut.Engine(report.path, backend="ort")
    assert engine.push("a", torch.randn(length, 4).numpy()).shape == (0, 5)
    assert engine.close("a").shape == (0, 5)


def test_raw_samples(tmp_path):
    """Samples in, features out: a windowed transform of 16 samples every 4 takes 4 samples a step."""
    module = Body(lambda m, x: m.c(x.unsqueeze(1)).mT.square(), c=C(1, 9, 16, stride=4))
    report = ut.export(module, torch.randn(2, 100), tmp_path / "m.onnx")
    assert (report.spec.inputs[0].shape, report.spec.frames_per_step, report.spec.delay) == ((), 4, 12)
    assert "a step takes 4 frames, not 1" in str(report)
    check_whole(module, report.path, report.spec.inputs[0].shape, (16, 17, 19, 20, 21, 100))


def test_frames_per_step(tmp_path):
    """A step may be asked to take several frames; the outputs are the same."""
    module = Body(*CASES["conv, lstm"][:1], **CASES["conv, lstm"][1])
    report = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx", frames_per_step=5)
    assert (report.spec.frames_per_step, report.spec.outputs_per_step) == (5, 5)
    check_whole(module, report.path, report.spec.inputs[0].shape, (1, 4, 5, 6, 33))


def test_states_are_no_larger_than_they_must_be(tmp_path):
    """A causal convolution keeps kernel - 1 frames and counts nothing; a graph that needs no end is not told of it."""
    module = Body(*CASES["chomp"][:1], **CASES["chomp"][1])
    spec = ut.export(module, torch.randn(2, 48, 4), tmp_path / "m.onnx").spec
    assert [s.shape for s in spec.states] == [(4, 4)]
    assert spec.valid_input is None
