"""`verify`, and the commands `export` and `verify`."""

import json
import sys

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from click.testing import CliRunner  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

import undertow as ut  # noqa: E402
from undertow.cli_export import export_command, verify_command  # noqa: E402
from undertow.engine.artifact import write_artifact  # noqa: E402
from undertow.exporters import parity, verifying  # noqa: E402

from .step_graph import lookahead_step  # noqa: E402


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """A small model, certified on every backend."""
    path = tmp_path_factory.mktemp("verify") / "m.onnx"
    torch.manual_seed(0)
    ut.export(nn.GRU(3, 4, batch_first=True), torch.randn(2, 5, 3), path)
    return path


def test_verify(artifact):
    """Every backend of this machine that runs the model agrees with the plain interpreter of its graph."""
    report = ut.verify(artifact)
    assert report.ok, str(report)
    assert [line.backend for line in report.lines] == ["engine:ort", "engine:numba"]
    assert all(line.max_abs_error["output"] < 1e-5 and not line.problem for line in report.lines)
    assert report.certificate == ut.read_artifact(artifact).spec.certificate
    assert "verified" in str(report)


def off_by(monkeypatch, wrong, backend="numba"):
    """Engines of that backend give `wrong(cut, outputs)`."""
    original = parity.stepped_by_engine

    def changed(model, sequences, asked):
        runs = original(model, sequences, asked)
        if asked != backend:
            return runs
        return {cut: [{n: wrong(cut, a) for n, a in one.items()} for one in run] for cut, run in runs.items()}

    monkeypatch.setattr(parity, "stepped_by_engine", changed)


def test_verify_sees_a_wrong_backend(artifact, monkeypatch):
    """A backend whose outputs are off by 2e-5 of themselves, more than float32 explains here, fails the verification, by name."""
    off_by(monkeypatch, lambda cut, a: a * np.float32(1.00002))
    report = ut.verify(artifact)
    assert not report.ok
    assert report.problems == ("engine:numba disagrees with the step graph",)
    result = CliRunner().invoke(verify_command, [str(artifact), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False


@pytest.mark.parametrize("wrong", ["whole", "one by one", "random chunks"])
def test_verify_sees_a_wrong_cut(artifact, monkeypatch, wrong):
    """Each way to cut sequences into chunks is looked at: an error in one of them alone is found."""
    off_by(monkeypatch, lambda cut, a: a + np.float32(1e-3) * (cut == wrong))
    report = ut.verify(artifact)
    assert not report.ok
    assert report.lines[1].max_abs_error["output"] == pytest.approx(1e-3, rel=1e-2)


def test_verify_looks_at_real_sequences(artifact, monkeypatch, tmp_path):
    """What a backend does wrong with real values alone, here large ones, is found with a real sequence and not without."""
    off_by(monkeypatch, lambda cut, a: a + np.float32(1e-3) * (len(a) == 33))
    assert ut.verify(artifact).ok
    real = np.random.default_rng(0).normal(0, 30, (33, 3)).astype(np.float32)
    report = ut.verify(artifact, [real, {"input": real[:4]}])
    assert not report.ok
    assert report.lines[0].sequences == len(parity.lengths_for(ut.read_artifact(artifact).spec)) * parity.SEEDS + 2
    np.save(tmp_path / "real.npy", real)
    np.savez(tmp_path / "named.npz", input=real[:5])
    command = [str(artifact), "--sequence", str(tmp_path / "named.npz")]
    assert CliRunner().invoke(verify_command, command).exit_code == 0
    assert CliRunner().invoke(verify_command, [*command, "--sequence", str(tmp_path / "real.npy")]).exit_code == 1


def test_verify_refuses_sequences(artifact, tmp_path):
    """A sequence that the model does not take is refused with its place, what it is and what was expected; no code in a file is run."""
    cases = {
        r"sequence 0, input 'input': has shape \(5, 4\), expected \(T, 3\) with T of 1 or more": [
            np.zeros((5, 4), np.float32)
        ],
        r"sequence 1, input 'input': has a number that is not finite": [np.zeros((5, 3)), np.full((2, 3), np.nan)],
        r"sequence 0, input 'input': is complex128, the model takes float32": [np.zeros((5, 3), complex)],
        r"sequence 0: has inputs \['x'\], the model takes \['input'\]": [{"x": np.zeros((5, 3))}],
    }
    for message, given in cases.items():
        with pytest.raises(ut.FrameError, match=message):
            ut.verify(artifact, given)
    np.save(tmp_path / "evil.npy", np.array([Evil()], object), allow_pickle=True)
    error = CliRunner().invoke(verify_command, [str(artifact), "--sequence", str(tmp_path / "evil.npy")]).exception
    assert isinstance(error, ut.FrameError)
    assert "is not a .npy or .npz file of plain numbers" in str(error)


@pytest.mark.parametrize(("delay", "frames_per_step"), [(0, 1), (3, 1), (4, 2)])
def test_verify_of_delay_and_rate(tmp_path, delay, frames_per_step):
    """Artifacts whose outputs trail their inputs, or whose steps take several frames, are verified like any other."""
    path, made = tmp_path / "m.onnx", lookahead_step(delay, frames_per_step=frames_per_step)
    write_artifact(path, made.model, made.spec)
    report = ut.verify(path)
    assert all(line.ok and not line.problem for line in report.lines), str(report)


def test_verify_without_any_backend(artifact, monkeypatch):
    """Where no backend runs the model nothing is verified, and that is a failure with each backend's reason."""

    def unable(*args):
        raise ut.BackendError("not here")

    monkeypatch.setattr(parity, "stepped_by_engine", unable)
    report = ut.verify(artifact)
    assert not report.ok
    assert "cannot run it here: not here" in str(report)


def test_verify_reads_the_certificate(artifact, tmp_path):
    """A certificate that is not about the outputs is a problem; an artifact that was edited is an ArtifactError."""
    found = ut.read_artifact(artifact)
    line = msgspec.structs.replace(found.spec.certificate[0], max_abs_error={"other": float(1)})
    path = tmp_path / "m.onnx"
    write_artifact(path, found.model, msgspec.structs.replace(found.spec, certificate=(line,)))
    assert "the outputs are ['output']" in verifying.verify(path).problems[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ut.ArtifactError):
        ut.verify(path)


SOURCE = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.GRU(3, 4, batch_first=True)
ready = make()
number = 3
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """A module `made_for_export` in the current folder."""
    (tmp_path / "made_for_export.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))
    monkeypatch.setattr("sys.path", __import__("sys").path[:])
    monkeypatch.delitem(__import__("sys").modules, "made_for_export", raising=False)


def run(*arguments):
    return CliRunner().invoke(export_command, [*arguments, "--example-shape", "1,5,3"])


def test_export_command(factory, tmp_path):
    """The command exports what a factory gives with a checkpoint's weights, and prints the report or its JSON."""
    weights = nn.GRU(3, 4, batch_first=True).state_dict()
    torch.save(weights, tmp_path / "w.pt")
    result = run(
        "made_for_export:make",
        "-o",
        "m.onnx",
        "--checkpoint",
        "w.pt",
        "--sample-rate",
        "50",
        "--labels",
        "a,b,c,d",
        "--json",
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    spec = ut.read_artifact(tmp_path / "m.onnx").spec
    assert report["spec"]["sample_rate_hz"] == spec.sample_rate_hz == 50
    assert spec.labels == ("a", "b", "c", "d")
    before = spec.origin.weights_sha256
    result = run("made_for_export:ready", "-o", "m.onnx")
    assert result.exit_code == 0, result.output
    assert "worst errors" in result.stdout
    assert ut.read_artifact(tmp_path / "m.onnx").spec.origin.weights_sha256 != before


def test_safetensors(factory, tmp_path, monkeypatch):
    """A safetensors checkpoint gives the weights that torch's own gives; a damaged one is refused, and so is any without the library."""
    weights = nn.GRU(3, 4, batch_first=True).state_dict()
    torch.save(weights, tmp_path / "w.pt")
    save_file(weights, tmp_path / "w.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    hashes = []
    for file in ("w.pt", "w.safetensors"):
        assert run("made_for_export:make", "-o", "m.onnx", "--checkpoint", file).exit_code == 0
        hashes.append(ut.read_artifact(tmp_path / "m.onnx").spec.origin.weights_sha256)
    assert hashes[0] == hashes[1]
    error = run("made_for_export:make", "-o", "m.onnx", "--checkpoint", "cut.safetensors").exception
    assert isinstance(error, ut.ExportError)
    assert "cannot be read as safetensors" in str(error)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    error = run("made_for_export:make", "-o", "m.onnx", "--checkpoint", "w.safetensors").exception
    assert isinstance(error, ut.ExportError)
    assert "pip install safetensors" in str(error)


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return (print, ("ran",))


def test_export_command_refuses(factory, tmp_path, capsys):
    """Wrong sources and checkpoints are told apart; a checkpoint's code is never run."""
    torch.save({"w": Evil()}, tmp_path / "evil.pt")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    cases = {
        ("made_for_export:nothing",): "has no 'nothing'",
        ("no_such_module_here:make",): "no module named 'no_such_module_here'",
        ("made_for_export:number",): "gives a int",
        ("made_for_export:make", "--checkpoint", "evil.pt"): "cannot be loaded as plain weights",
        ("made_for_export:make", "--checkpoint", "other.pt"): "does not fit the module",
        ("made_for_export:make", "--checkpoint", "list.pt"): "is not a state_dict",
    }
    for arguments, message in cases.items():
        error = run(*arguments, "-o", "m.onnx").exception
        assert isinstance(error, ut.ExportError)
        assert message in str(error)
    assert "ran" not in capsys.readouterr().out
    assert run("no_colon", "-o", "m.onnx").exit_code == 2
    assert (
        CliRunner().invoke(export_command, ["made_for_export:make", "-o", "m", "--example-shape", "1,x"]).exit_code == 2
    )
    assert not (tmp_path / "m.onnx").exists()


STEPS = ["tracing the module", "the step graph", "what it gives for random sequences"]


def test_progress(tmp_path, monkeypatch):
    """`progress` is told each step as it begins, the certificate on each backend by name; a step that fails was told too."""
    told = []
    ut.export(nn.GRU(3, 4, batch_first=True), torch.randn(2, 5, 3), tmp_path / "m.onnx", progress=told.append)
    assert told == [*STEPS, "what rounding alone does to the outputs", "certificate on ort", "certificate on numba"]
    told.clear()
    with pytest.raises(ut.ExportError):
        ut.export(nn.GRU(3, 4), torch.randn(2, 5, 4), tmp_path / "m.onnx", progress=told.append)
    assert told == STEPS[:1]


def test_export_command_tells_and_ends_with_tables(factory, monkeypatch):
    """A terminal on stderr sees each step with its time; stdout has the tables alone: tensors, errors, delay, bytes, size."""
    silent = run("made_for_export:make", "-o", "m.onnx")
    assert silent.stderr == ""
    for text in (
        "step artifact m.onnx",
        "worst errors",
        "of its scale",
        "delay 0 frames; 1 frame in, 1 out a step; 16 bytes",
        "torch",
    ):
        assert text in silent.stdout
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    watched = run("made_for_export:make", "-o", "m.onnx")
    assert all(f"✓ {step}" in watched.stderr for step in [*STEPS, "certificate on ort"])
    assert "✓" not in watched.stdout
    quiet = run("made_for_export:make", "-o", "m.onnx", "--quiet", "--json")
    assert quiet.stderr == ""
    assert json.loads(quiet.stdout)["spec"]["certificate"][0]["tolerance"]["output"] > 0


LARGE = SOURCE.replace("GRU(3, 4,", "GRU(3, 24,")


def test_export_command_quantizes(factory, tmp_path):
    """`--quantize int8` writes int8 weights, and the tables state size and error beside the float model's."""
    (tmp_path / "made_for_export.py").write_text(LARGE)
    assert run("made_for_export:make", "-o", "float.onnx").exit_code == 0
    result = run("made_for_export:make", "-o", "m.onnx", "--quantize", "int8")
    assert result.exit_code == 0, result.output
    assert "quantize int8" in result.stdout
    assert "as asked" in result.stdout
    (asked,) = ut.read_artifact("m.onnx").spec.approximations
    assert f"of {asked.exact_bytes:,} with float32 weights" in result.stdout
    assert (tmp_path / "m.onnx").stat().st_size < 0.6 * (tmp_path / "float.onnx").stat().st_size
    assert 1e-5 < asked.max_rel_error["output"] < 0.05


def test_report_as_text(tmp_path, monkeypatch):
    """The report's plain form has, a line each, what the tables have."""
    monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))
    report = ut.export(nn.GRU(3, 24, batch_first=True), torch.randn(2, 5, 3), tmp_path / "m.onnx", quantize="float16")
    lines = str(report).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'm.onnx'}: {report.file_bytes:,} bytes")
    assert lines[1] == "  delay 0 frames; 1 frame in, 1 out a step; 96 bytes of state a stream"
    assert lines[2:5] == [
        "  input input: float32 [3]",
        "  output output: float32 [24]",
        "  state gru.l0.h: float32 [24]",
    ]
    assert lines[5].startswith("  ort against float16 weights as float32, ")
    assert "allowed" in lines[5]
    assert lines[6].startswith("  quantize float16, a graph of ")
