"""What cannot be stepped exactly is refused: the message says which node or module, why, and what to do."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402

import undertow as ut  # noqa: E402


class Around(nn.Module):
    """A GRU of 4 units over 4 features, and a function of (module, x, y, h)."""

    def __init__(self, function, **parts):
        super().__init__()
        self.gru, self.function = nn.GRU(4, 4, batch_first=True), function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x, *self.gru(x))


class Mine(nn.GRU):
    """A layer with its own forward."""

    def forward(self, x, h=None):
        return super().forward(x * 2, h)


def packed(m, x, y, h):
    lengths = torch.full((x.shape[0],), x.shape[1])
    return m.gru(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data


REFUSED = {
    "bidirectional": (
        lambda: nn.GRU(4, 4, batch_first=True, bidirectional=True),
        r"GRU.*bidirectional.*bidirectional=False",
    ),
    "inner bidirectional": (
        lambda: Around(lambda m, x, y, h: m.back(y)[0], back=nn.LSTM(4, 4, batch_first=True, bidirectional=True)),
        r"module 'back' \(LSTM\): it is bidirectional",
    ),
    "packed": (lambda: Around(packed), r"module 'gru' \(GRU\).*PackedSequence.*pack_padded_sequence"),
    "own forward": (lambda: Mine(4, 4, batch_first=True), r"Mine.*overrides forward"),
    "batch_first forgotten": (
        lambda: nn.GRU(4, 4),
        r"layer 'gru.l0' runs along an axis that is the batch.*batch_first",
    ),
    "last frame": (
        lambda: Around(lambda m, x, y, h: y[:, -1]),
        r"\((Gather|Slice).*selects frames along axis 1.*output of every frame",
    ),
    "final state": (
        lambda: Around(lambda m, x, y, h: m.out(h[-1]), out=nn.Linear(4, 2)),
        r"state of 'gru.l0' after the last frame.*output of every frame",
    ),
    "only final states": (
        lambda: Around(lambda m, x, y, h: h),
        r"every output \(output\) is a state after the last frame",
    ),
    "mean over time": (
        lambda: Around(lambda m, x, y, h: y - y.mean(1, keepdim=True)),
        r"ReduceMean.*axis 1, the time axis.*features",
    ),
    "softmax over time": (lambda: Around(lambda m, x, y, h: y.softmax(1)), r"Softmax.*axis 1, the time axis"),
    "softmax over batch": (
        lambda: Around(lambda m, x, y, h: y.softmax(0)),
        r"axis 0, the batch; streams must not depend",
    ),
    "flip": (lambda: Around(lambda m, x, y, h: y.flip(1)), r"Slice.*selects frames backwards along axis 1"),
    "first frames": (lambda: Around(lambda m, x, y, h: y[:, :5]), r"Slice.*selects the first frames along axis 1"),
    "frames one after the other": (
        lambda: Around(lambda m, x, y, h: torch.cat([x, y], 1)),
        r"Concat.*joins sequences of frames one after the other.*along features",
    ),
    "several beginnings late": (
        lambda: Around(
            lambda m, x, y, h: torch.cat([m.first.expand(x.shape[0], -1, -1), m.conv(y.mT).mT], 1),
            first=nn.Parameter(torch.randn(1, 2, 4)),
            conv=nn.Conv1d(4, 4, 3, padding=1),
        ),
        r"Concat.*frames of several values before frames that come 1 late.*zeros",
    ),
    "several ends": (
        lambda: Around(
            lambda m, x, y, h: torch.cat([y, m.last.expand(x.shape[0], -1, -1)], 1),
            last=nn.Parameter(torch.randn(1, 2, 4)),
        ),
        r"Concat.*frames of several values after the last frame.*one value",
    ),
    "other rates": (
        lambda: Around(lambda m, x, y, h: (y, m.conv(y.mT).mT), conv=nn.Conv1d(4, 4, 2, stride=2)),
        r"outputs have different numbers of frames.*export them apart",
    ),
    "rates that meet": (
        lambda: Around(
            lambda m, x, y, h: y + y.repeat_interleave(2, 1)[:, : x.shape[1]],
        ),
        r"Slice.*selects frames along axis 1",
    ),
    "circular": (
        lambda: Around(lambda m, x, y, h: m.conv(y.mT).mT, conv=nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")),
        r"(joins sequences|pads time by .* in mode 'wrap'|selects the last frames)",
    ),
    "linear between frames": (
        lambda: Around(lambda m, x, y, h: nn.functional.interpolate(y.mT, scale_factor=3, mode="linear").mT),
        r"scale_factor=3.*error that grows.*power of two",
    ),
    "norm over time": (
        lambda: Around(lambda m, x, y, h: m.norm(y.mT).mT, norm=nn.GroupNorm(2, 4)),
        r"in module 'norm'.*puts values of different frames or streams into one axis",
    ),
    "attention": (
        lambda: Around(lambda m, x, y, h: (x @ y.transpose(1, 2)).softmax(-1) @ y),
        r"MatMul.*memory without end.*window=",
    ),
    "stacked frames": (
        lambda: Around(lambda m, x, y, h: y.reshape(y.shape[0], -1).unsqueeze(1) + x[..., :1]),
        r"different numbers of frames: 4 and 1 a step",
    ),
    "position": (
        lambda: Around(lambda m, x, y, h: y + m.table[: x.shape[1]], table=nn.Parameter(torch.randn(2000, 4))),
        r"depends on the position of the frame in the sequence.*a table that ends.*torch\.arange",
    ),
    "length as a value": (
        lambda: Around(lambda m, x, y, h: y / x.shape[1]),
        r"depends on the number of streams or of frames",
    ),
    "fixed length": (
        lambda: Around(lambda m, x, y, h: y + m.table, table=nn.Parameter(torch.zeros(20, 4))),
        r"must take any.*length",
    ),
    "state from frames": (
        lambda: Around(lambda m, x, y, h: m.gru(x, y[:, :1].transpose(0, 1).contiguous())[0]),
        r"(selects the first frames along axis 1|initial_h is computed from the frames)",
    ),
    "constant output": (
        lambda: Around(lambda m, x, y, h: (y, torch.ones(3))),
        r"output 'output_1' does not depend on the frames",
    ),
    "text output": (lambda: Around(lambda m, x, y, h: (y, "text")), r"output 'output_1' is a str, expected a tensor"),
    "no rule": (lambda: Around(lambda m, x, y, h: y.sort(-1)[0]), r"no rule for the operator \w+ on frames"),
    "double": (lambda: nn.GRU(4, 4, batch_first=True).double(), r"float64.*module\.float\(\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    """Each is an ExportError with a message that names the place, the reason and the remedy, and leaves no file."""
    make, message = REFUSED[case]
    module = make()
    example = torch.randn(2, 20, 4, dtype=next(module.parameters()).dtype)
    with pytest.raises(ut.ExportError) as raised:
        ut.export(module, example, tmp_path / "m.onnx")
    assert re.search(message, str(raised.value)), str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lookahead": 3}, "lookahead is 3, and changes nothing: no layer runs backwards"),
        ({"lookahead": -1}, "lookahead is -1, expected"),
        ({"window": 5}, r"window is \(5, 0\), and changes nothing"),
        ({"window": (5, -1)}, r"window is \(5, -1\), expected"),
        ({"reduce": "running"}, "reduce is 'running', and changes nothing"),
        ({"reduce": "all"}, "reduce is 'all', expected 'running'"),
        ({"frames_per_step": 0}, "frames_per_step is 0, expected 1 or more"),
        ({"time_axis": -2}, "time_axis is -2"),
        ({"time_axis": 5}, "input 'input': the example has shape .*time axis"),
        ({"labels": ["a", "b"]}, "2 labels are given"),
    ],
)
def test_refused_options(options, message, tmp_path):
    """An option that makes no sense, or that nothing in the module needs, is refused and never ignored."""
    with pytest.raises(ut.ExportError, match=message):
        ut.export(nn.GRU(4, 4, batch_first=True), torch.randn(2, 5, 4), tmp_path / "m.onnx", **options)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ((torch.zeros(2, 5, 4), torch.zeros(1, 2, 4)), r"sizes differ.*Leave out initial states"),
        ({}, "holds no tensor"),
        (3, "is a|has a int, expected a tensor"),
        (torch.zeros(2, 0, 4), "none of them empty"),
    ],
)
def test_refused_examples(example, message, tmp_path):
    """An example that is no way to call a module of sequences is refused."""
    with pytest.raises(ut.ExportError, match=message):
        ut.export(nn.GRU(4, 4, batch_first=True), example, tmp_path / "m.onnx")


def test_refused_things(tmp_path):
    """Something else than a module, and a folder that is not there."""
    with pytest.raises(ut.ExportError, match=r"is a int, expected a torch\.nn\.Module"):
        ut.export(3, torch.zeros(1, 1, 1), tmp_path / "m.onnx")
    with pytest.raises(ut.ExportError, match="the folder does not exist"):
        ut.export(nn.GRU(4, 4), torch.zeros(1, 1, 4), tmp_path / "no" / "m.onnx")


def test_a_module_that_fails_is_not_asked_for_lengths_without_end(tmp_path):
    """Its own error is told; of wide frames no input is made that would fill the memory, of narrow ones long ones are tried."""
    asked = []

    class Wrong(nn.Module):
        def forward(self, x):
            asked.append(tuple(x.shape))
            raise RuntimeError("no picture of mine")

    for frame, longest in (((48, 64), 240), ((), 48_000)):
        asked.clear()
        with pytest.raises(ut.ExportError, match="no picture of mine"):
            ut.export(Wrong(), torch.zeros(2, 9, *frame), tmp_path / "x.onnx")
        assert asked[-1][1] == longest


def test_failed_parity_leaves_no_file(tmp_path, monkeypatch):
    """Where the step graph is not the module, the export fails with the errors and writes nothing."""
    from undertow.exporters import certifying, torch_export

    def wrong(*args):
        return {name: a + 1 for name, a in original(*args).items()}

    original = torch_export._by_torch
    monkeypatch.setattr(torch_export, "_by_torch", wrong)
    monkeypatch.setattr(certifying, "BACKENDS", ("ort",))
    with pytest.raises(ut.ExportError, match=r"the step graph is not the module.*worst absolute error output 1"):
        ut.export(nn.GRU(4, 4, batch_first=True), torch.randn(2, 5, 4), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_torch(tmp_path, monkeypatch):
    """Without the extra, export says which extra to install."""
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ut.ExportError, match=r"onnxscript, which is not installed; pip install 'undertow\[export\]'"):
        ut.export(nn.GRU(4, 4), np.zeros(1), tmp_path / "m.onnx")
