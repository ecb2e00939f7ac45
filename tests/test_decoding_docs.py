"""docs/decoding.md: what it shows is what comes out, and what it says of costs is so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from undertow import decode
from undertow.demo import excerpt
from undertow.engine import Engine

from .decoded import echo

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "decoding.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LABELS = ["a", "b", "c"]
COSTS: list[tuple[str, int, Any]] = [
    ("Labels", 3, decode.Labels(labels=LABELS)),
    ("Labels", 3, decode.Labels(labels=LABELS, min_duration=2)),
    ("Threshold", 1, decode.Threshold(on=1)),
    ("Mean", 1, decode.Mean()),
    ("Anomaly", 1, decode.Anomaly()),
    ("Quantiles", 3, decode.Quantiles(levels=(0.1, 0.5, 0.9))),
    ("Quantiles", 3, decode.Quantiles(levels=(0.1, 0.5, 0.9), every=2)),
    ("Ctc`, best path", 3, decode.Ctc(labels=LABELS)),
    ("Ctc`, best path", 3, decode.Ctc(labels=LABELS, max_tokens=64)),
    ("Ctc`, beam", 3, decode.Ctc(labels=LABELS, beam=8)),
    ("Ctc`, beam", 3, decode.Ctc(labels=LABELS, beam=32)),
]


def test_the_code_prints_what_it_says(tmp_path: Path) -> None:
    """The page's code, from top to bottom in the demo's folder, prints the page's texts, one after the other."""
    shutil.copytree(excerpt(), tmp_path, dirs_exist_ok=True)
    code = "".join(body for kind, body in BLOCK.findall(TEXT) if kind == "python")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(body for kind, body in BLOCK.findall(TEXT) if kind == "text")


@pytest.mark.parametrize(("row", "size", "config"), COSTS, ids=lambda x: type(x).__name__)
def test_a_stream_costs_what_the_page_says(row: str, size: int, config: Any) -> None:
    """The bytes that a decoder adds to a stream's row are in its line of the table."""
    (line,) = re.findall(rf"^\| `{re.escape(row)}.*$", TEXT, re.MULTILINE)
    plain, decoding = (Engine(echo(size), backend="numba", max_streams=1, decode=d) for d in (None, config))
    added = decoding.row_bytes - plain.row_bytes
    assert re.search(rf"\b{added:,}\b" if added else "none", line), f"{added}: {line}"
