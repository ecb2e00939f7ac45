"""Named architectures export and are exact; docs/architectures.md is about those that there are."""

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import undertow as ut  # noqa: E402

from .architectures import ARCHITECTURES  # noqa: E402
from .engine_errors import worst_error  # noqa: E402
from .torch_exports import one_operator_library, without_compiling  # noqa: E402, F401

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architectures.md"
BY_NAME = {a.name: a for a in ARCHITECTURES}
# One for every kind of rule, among those that take a second or two to export; the benchmark does them all.
SOME = (
    "RNNoise", "TCN", "InceptionTime", "blur pooling", "CRNN, pooled time", "Deep Speech 2", "U-Net in time", "Conv-TasNet",
    "cumulative layer norm", "linear attention", "rotary attention", "Conformer block, centred",
)  # fmt: skip


@pytest.mark.parametrize("name", SOME)
def test_architecture_is_stepped_exactly(name, tmp_path):
    """Streams of few and many frames in random chunks, through the engine: torch's outputs, and as many, both ends included."""
    architecture = BY_NAME[name]
    path = tmp_path / "step.onnx"
    options = {"time_axis": architecture.time_axis, **architecture.options}
    ut.export(architecture.module(), architecture.example(), path, **options)
    assert worst_error(architecture, ut.read_artifact(path), "ort", seed=1) < 1e-4


@pytest.mark.parametrize("name", ["causal transformer", "ECAPA-TDNN gate"])
def test_what_has_no_bounded_state_is_refused(name, tmp_path):
    """A clear no: the message names the node and a remedy, and nothing is written."""
    architecture = BY_NAME[name]
    with pytest.raises(ut.ExportError, match=r"(?s)^node '.*' \(.*; "):
        ut.export(architecture.module(), architecture.example(), tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


def test_the_page_is_about_the_present_architectures():
    """docs/architectures.md has one line for each, in order; `python benchmarks/architectures.py --out` makes it anew."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    names = [m.group(1) for line in lines if (m := re.match(r"\| (.+?) \|", line))]
    assert names[1:] == list(BY_NAME)
    assert len(ARCHITECTURES) == len(BY_NAME) >= 60
