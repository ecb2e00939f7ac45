"""Every named architecture: does it export, with what delay, state and error, and what tract's pulse transform makes of it.

    python benchmarks/architectures.py --out docs/architectures.md [--only NAME ...] [--backend ort] [--tract FILE]

Needs the extras `export` and `bench`. Takes half an hour on two cores, a third of it with `--backend ort`, which
compiles no steps. FILE keeps what tract made of each between runs, as JSON: it is
read where it is there, and changes only with the versions of tract and torch that it names.
"""

import argparse
import json
import logging
import platform
import sys
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import torch
from tract_side import judged

import undertow as ut
from undertow.engine.compiler import missing
from undertow.exporters.certifying import BACKENDS as CERTIFIED

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.architectures import ARCHITECTURES, Architecture
from tests.engine_errors import worst_error

INTRODUCTION = """\
# Architectures

Small models of these shapes, random weights, as people write them in torch (`tests/architectures.py`, `tests/nets_*.py`). This page is made by

    python benchmarks/architectures.py --out docs/architectures.md

**undertow**: `ut.export`, then streams of 1, 2, 3, 50 and other lengths, cut into random chunks, through the engine: the worst absolute error of
all outputs, how many there are included, against torch on the whole sequence; on the compiled backend (`numba`), or on ONNX Runtime (`ort`) where a step does
not compile. *Delay* is in frames, *a step* is how many frames a step takes, and how many outputs it gives where those are not as many. *State* is bytes of one stream.
Where a bounded future or past was asked for (`lookahead=6`, `window=(15, 0)`), every output is compared with torch's on the frames that it may see.

**tract**: the same models as whole-sequence ONNX files of one stream, `S` the symbol of the time axis, through the pulse transform of its Python package; the best of four
files (torch's new exporter at opset 18, its old one at opsets 17 and 13, undertow's own whole-sequence graph) and two sizes of pulse, in a process of its own with a time limit. *agrees*: every
output, after its delay, is what torch gives; *the last n wrong*: only those whose right padding is not there, for the package has no call that says that a stream has ended, so it is
fed zeros; *wrong*: others differ, too; *fails*: the first line of its message; *no file*: none of the exporters writes the model with a free time axis.

Two neighbours have no column, for neither turns any whole-sequence model into steps. [continual-inference](https://github.com/LukasHedegaard/continual-inference) has modules of its own (`co.Conv3d`, ..) that are
weight-compatible replacements for those of `torch.nn`: a network is built of them. OpenVINO's
[LowLatency2](https://docs.openvino.ai/2025/api/c_cpp_api/classov_1_1pass_1_1_low_latency2.html) finds TensorIterator and Loop layers and makes their back edges states: recurrences and loops.

"""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    name: str
    shows: str
    ours: tuple[str, str, str, str]
    theirs: str

    def __str__(self) -> str:
        return (
            "| "
            + " | ".join(cell.replace("|", "\\|") for cell in (self.name, self.shows, *self.ours, self.theirs))
            + " |"
        )


class Kept:
    """What tract made of each architecture, in a file or for this run alone."""

    def __init__(self, path: Path | None):
        self.path, self.versions = path, f"tract {version('tract')}, torch {torch.__version__}"
        found = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
        self.words: dict[str, str] = found.get(self.versions, {})

    def of(self, architecture: Architecture, frames_per_step: int, folder: Path) -> str:
        if architecture.name not in self.words:
            self.words[architecture.name] = judged(architecture, frames_per_step, folder).words
            if self.path:
                self.path.write_text(json.dumps({self.versions: self.words}, indent=1), encoding="utf-8")
        return self.words[architecture.name]


def measured(architecture: Architecture, folder: Path, tract: Kept, backend: str) -> Row:
    """Exports it, measures it, and lets tract have it."""
    path, frames_per_step = folder / "step.onnx", 1
    try:
        report = ut.export(
            architecture.module(),
            architecture.example(),
            path,
            time_axis=architecture.time_axis,
            **architecture.options,
        )
    except ut.UndertowError as error:
        ours = ("", "", "", f"refused: {_short(error)}")
    else:
        ours, frames_per_step = _stepped(architecture, path, backend), report.spec.frames_per_step
    return Row(architecture.name, architecture.shows, ours, tract.of(architecture, frames_per_step, folder))


def _stepped(architecture: Architecture, path: Path, backend: str) -> tuple[str, str, str, str]:
    artifact = ut.read_artifact(path)
    spec = artifact.spec
    at_the_end = architecture.options.get("lookahead") == "all"
    backend = "ort" if at_the_end or missing(artifact) else backend
    error = max(worst_error(architecture, artifact, backend, seed) for seed in range(3))
    delay = "the stream" if at_the_end else str(spec.delay)
    gives = "" if spec.outputs_per_step == spec.frames_per_step else f" → {spec.outputs_per_step}"
    return delay, f"{spec.frames_per_step}{gives}", f"{spec.state_bytes:,}", f"{error:.1g} ({backend})"


def _short(error: Exception) -> str:
    """The message's first sentence."""
    return str(error).split("; ")[0].splitlines()[0]


def table(rows: list[Row]) -> str:
    """The page."""
    exact = sum("refused" not in row.ours[3] and "inf" not in row.ours[3] for row in rows)
    agrees = sum(row.theirs.startswith("agrees") and "wrong" not in row.theirs for row in rows)
    nearly = sum(row.theirs.startswith("agrees") for row in rows) - agrees
    versions = f"undertow {version('undertow')}, torch {torch.__version__}, tract {version('tract')}, Python {platform.python_version()}"
    head = [
        f"{versions}, {platform.machine()}. Of {len(rows)} architectures undertow steps {exact}, tract {agrees}, and {nearly} more but for the end.",
        "",
        "| architecture | what it shows | delay | a step | state | undertow: worst error | tract |",
        "|---|---|--:|--:|--:|---|---|",
    ]
    return INTRODUCTION + "\n".join([*head, *map(str, rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--backend", choices=("numba", "ort"), default="numba")
    parser.add_argument("--tract", type=Path)
    given = parser.parse_args()
    tract = Kept(given.tract)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # torch's exporter says for every model that torchvision is not there
    warnings.simplefilter("ignore")
    rows = []
    certified = ("ort",) if given.backend == "ort" else CERTIFIED
    with tempfile.TemporaryDirectory() as folder, patch("undertow.exporters.certifying.BACKENDS", certified):
        for architecture in ARCHITECTURES:
            if not given.only or architecture.name in given.only:
                rows.append(measured(architecture, Path(folder), tract, given.backend))
                print(rows[-1], flush=True)
    given.out.write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
