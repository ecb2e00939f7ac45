"""`export_seq2seq`: what it refuses and why, small weights, and what `verify` and `inspect` say of the file."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from click.testing import CliRunner  # noqa: E402
from torch import nn  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.cli_inspect import inspect_command  # noqa: E402
from undertow.drawing import drawing  # noqa: E402
from undertow.engine.artifact import TensorSpec  # noqa: E402
from undertow.exporters.seq2seq_parity import longest_source  # noqa: E402

from .nets_seq2seq import ROOM, SAID, START, STOP, TOKENS, AdditiveDecoder, AdditiveEncoder, pair  # noqa: E402
from .torch_exports import one_operator_library, without_compiling  # noqa: E402, F401

EXAMPLE = torch.randint(0, TOKENS, (2, 6))


class Leaking(AdditiveDecoder):
    """Takes the mean of all of memory, behind the source too."""

    def forward(self, token, state, memory, mask):
        out, state = super().forward(token, state, memory, mask)
        return out + memory["values"].mean((1, 2))[:, None], state


class Begins(AdditiveDecoder):
    """Begins with whatever a function makes of values and h."""

    def __init__(self, begin):
        super().__init__()
        self.made = begin

    def begin(self, encoded):
        return self.made(*encoded)


class Steps(AdditiveDecoder):
    """Gives whatever a function makes of (out, state)."""

    def __init__(self, step):
        super().__init__()
        self.made = step

    def forward(self, token, state, memory, mask):
        return self.made(*super().forward(token, state, memory, mask))


def refused(path, encoder, decoder, message, **options):
    with pytest.raises(ut.ExportError, match=message):
        ut.export_seq2seq(encoder, decoder, EXAMPLE, path, **{"max_memory": ROOM, **options})
    assert not path.exists()


def test_a_decoder_that_sees_padding_is_refused(tmp_path):
    """What counts positions behind the source differs from torch on the source alone; the certificate finds it and nothing is written."""
    torch.manual_seed(0)
    refused(tmp_path / "m.onnx", AdditiveEncoder(), Leaking(), r"is not the module: engine:ort .* nothing was written")


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (lambda values, h: values, r"begin gives a Tensor, expected the two of \(memory, state\)"),
        (lambda values, h: ({}, ()), "begin gives no tensor"),
        (lambda values, h: ({"a": values, "b": values[:, 1:]}, h), "different numbers of positions"),
        (lambda values, h: (values, h.mean()), r"'state': begin gives shape \(\), expected a tensor \(B, ...\)"),
        (lambda values, h: (values, [h, 3]), r"'state.1': begin gives a int"),
        (lambda values, h: (values.transpose(1, 2), h), r"'memory': has shapes .* expected \(B, positions, ...\)"),
        (lambda values, h: ({"length": values}, h), r"'memory.length': is taken"),
    ],
)
def test_what_begin_must_give(tmp_path, begin, message):
    """Memory and state that are not tensors for each stream, or do not fit together, are refused by name."""
    refused(tmp_path / "m.onnx", AdditiveEncoder(), Begins(begin), message)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda out, h: out, r"forward gives a Tensor, expected the two of \(out, state\)"),
        (lambda out, h: (out, (h,)), "forward nests the state as"),
        (lambda out, h: (out, h[:, 1:]), "'state' is torch.float32 .* before a step"),
        (lambda out, h: (out[:1], h), "output 'output': is shape"),
    ],
)
def test_what_forward_must_give(tmp_path, step, message):
    """A step that does not give scores of each stream and a state like the one before is refused."""
    refused(tmp_path / "m.onnx", AdditiveEncoder(), Steps(step), message)


def test_what_is_not_an_encoder_and_a_decoder(tmp_path):
    """Modules of other kinds, a memory of no room, labels that fit no scores and a missing folder are refused."""
    path, both = tmp_path / "m.onnx", (AdditiveEncoder(), AdditiveDecoder())
    refused(path, both[0], nn.GRUCell(3, 3), "decoder is a GRUCell, expected a subclass of undertow.DecoderModule")
    refused(path, len, both[1], "encoder is a builtin_function_or_method, expected a torch.nn.Module")
    refused(path, *both, "max_memory is 0", max_memory=0)
    refused(tmp_path / "none" / "m.onnx", *both, "the folder does not exist")


def test_training_by_over():
    """`over` is the loop over forward: with padded sources and their mask each row is what the row alone gives, and gradients flow to both modules."""
    encoder, decoder = pair("dot")
    source, tokens = torch.randint(0, TOKENS, (3, 7)), torch.randint(0, SAID, (3, 4))
    lengths = torch.tensor([7, 4, 5])
    mask = torch.arange(7) < lengths[:, None]
    memory, _ = encoder(source)
    first = [t[:, 0] for t in (memory, memory)]
    scores, state = decoder.over(tokens, (memory, first), mask)
    assert scores["scores"].shape == (3, 4, SAID)
    for i, n in enumerate(lengths.tolist()):
        alone, _ = decoder.over(tokens[i : i + 1], (memory[i : i + 1, :n], [t[i : i + 1] for t in first]))
        torch.testing.assert_close(alone["scores"][0], scores["scores"][i])
    (scores["scores"].sum() + state["fed"].sum()).backward()
    assert all(p.grad is not None for p in [*encoder.lstm.parameters(), *decoder.parameters()])


def test_a_decoder_without_memory_begins_with_a_state(tmp_path):
    """Sutskever et al. 2014: no attention; the source's frames are bounded all the same, and the engine says what torch says."""

    class Plain(ut.DecoderModule):
        def __init__(self):
            super().__init__()
            self.embedding, self.cell = nn.Embedding(SAID, 8), nn.GRUCell(8, 12)
            self.out = nn.Linear(12, SAID)

        def begin(self, encoded):
            return (), encoded[1]

        def forward(self, token, state, memory, mask):
            h = self.cell(self.embedding(token), state)
            return self.out(h), h

    torch.manual_seed(3)
    encoder, decoder, path = AdditiveEncoder(), Plain(), tmp_path / "m.onnx"
    report = ut.export_seq2seq(encoder, decoder, EXAMPLE, path, max_memory=9)
    assert report.spec.state_bytes == 4 * 12 + 8
    engine, tokens = ut.Engine(path, backend="ort"), torch.tensor([[1, 5, 2]])
    engine.read("a", EXAMPLE[0].numpy())
    with torch.no_grad():
        expected, _ = decoder.over(tokens, encoder(EXAMPLE[:1]))
    np.testing.assert_allclose(engine.push("a", tokens[0].numpy()), expected[0], atol=1e-5)
    with pytest.raises(ut.FrameError, match="has 10 positions, memory has room for 9"):
        engine.read("b", np.zeros(10, np.int64))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A pair with int8 weights, its report and its modules."""
    torch.manual_seed(5)
    both, path = (AdditiveEncoder(16), AdditiveDecoder(16)), tmp_path_factory.mktemp("small") / "m.onnx"
    labels = [f"w{i}" for i in range(SAID)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))
        patch.setattr("undertow.exporters.seq2seq_certificate.BACKENDS", ("engine:ort",))
        report = ut.export_seq2seq(
            *both, EXAMPLE, path, max_memory=ROOM, start=START, stop=STOP, labels=labels, quantize="int8"
        )
    return both, path, report


def test_small_weights_of_both_graphs(small):
    """Encoder and decoder have int8 weights; the artifact says how far they are from torch, and agrees with the same weights as floats."""
    (encoder, decoder), path, report = small
    found = ut.read_artifact(path)
    for model in (found.model, found.encoder.model):
        assert any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    (line,) = report.spec.approximations
    assert (line.kind, line.parameter) == ("quantize", "int8")
    assert 0 < line.max_rel_error["output"] < 0.1
    assert line.exact_bytes > found.model.ByteSize() / 2
    assert [p.reference for p in report.parity] == ["int8 weights as float32"]
    engine, tokens = ut.Engine(path, backend="ort"), torch.tensor([[1, 5, 2]])
    engine.read("a", EXAMPLE[0].numpy())
    with torch.no_grad():
        expected, _ = decoder.over(tokens, encoder(EXAMPLE[:1]))
    assert 0 < np.abs(engine.push("a", tokens[0].numpy()) - expected[0].numpy()).max() < 0.1


def test_verify_runs_both_graphs(small, monkeypatch):
    """The engine on this machine gives what plain interpreters of both graphs give, on real sources too; a source that does not fit is named."""
    monkeypatch.setattr("undertow.exporters.seq2seq_verifying.BACKENDS", ("engine:ort",))
    report = ut.verify(small[1], [np.arange(ROOM) % TOKENS, np.array([4])])
    assert report.ok
    assert [(line.backend, line.sequences) for line in report.lines] == [("engine:ort", 18)]
    with pytest.raises(ut.FrameError, match=f"sequence 1: is a source of {ROOM + 1} positions"):
        ut.verify(small[1], [np.array([4]), np.zeros(ROOM + 1, np.int64)])


def test_inspect_tells_of_encoder_and_memory(small, tmp_path):
    """`inspect` says what the encoder takes and fills, the room of memory and the tokens; its drawing has the encoder beside the step."""
    path, picture = small[1], tmp_path / "m.svg"
    shown = CliRunner().invoke(inspect_command, [str(path), "--graph", str(picture)])
    assert shown.exit_code == 0
    words = " ".join(shown.output.split())
    assert f"memory {ROOM} positions, {ROOM * (32 + 16) * 4} bytes a stream" in words
    assert "a row a position: memory.values, memory.keys" in words
    assert "start token 1, stop token 2" in words
    assert "sources of any lengths go through it together" in words
    found = json.loads(CliRunner().invoke(inspect_command, ["--json", str(path)]).output)
    assert found["encoder"]["inputs"] == [{"name": "source", "shape": [], "dtype": "int64"}]
    assert found["encoder"]["memory_bytes"] == ROOM * (32 + 16) * 4
    assert found["encoder"]["length"] == "memory.length"
    drawn = picture.read_text()
    assert drawn == drawing(ut.read_artifact(path))
    for text in ("encoder", "source", "a row a position", "no step changes it", "mask"):
        assert f">{text}<" in drawn


@pytest.mark.parametrize(
    ("lengths", "room", "longest"), [((), 7, 7), (((1, 0, 2, 0),), 7, 15), (((2, 1, 1, 0),), 8, 3)]
)
def test_the_longest_source(lengths, room, longest):
    """The most frames whose positions fit, where an encoder gives as many, half as many or twice as many."""
    one = (TensorSpec("x", (), "float32"),)
    assert longest_source(ut.StepSpec(one, one, (), sequence=True, lengths=lengths), room) == longest
