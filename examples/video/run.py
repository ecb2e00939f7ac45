"""The whole way: `python examples/video/run.py --out DIR` trains what is missing, exports, streams, and compares.

DIR gets video.onnx, pipeline.toml and its recordings/ for `undertow run DIR/pipeline.toml`, the contact sheet video.png, and result.json.
"""

import argparse
import json
import shutil
import time
from itertools import count
from pathlib import Path
from typing import Any

import baseline
import numpy as np
import torch
from camera import Shot
from data import TEST, TRAIN, shots
from events import LABELS, NORMAL, Recording, events_of, recording
from model import CameraNet
from picture import contact_sheet
from placing import place
from scoring import Announced, Tally, held, mean_f1, tallies
from streaming import by_torch, scored, told, told_by_torch
from train import HERE
from train import main as train

import undertow as ut

TOLERANCE = 1e-3  # between the streams' log-probabilities and torch's
HELD_OUT, THRESHOLDS_ON, IN_PIPELINE = 80, 40, 16  # recordings
# Seeds: of the held-out recordings, of those that thresholds are chosen on, and of those that the contact sheet is chosen from.
FIRST_HELD_OUT, FIRST_OTHER, FIRST_SHOWN = 1_000_000, 500_000, 2_000_000
SHOWN_FRAMES = 720


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    out: Path = options.parse_args().out
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not (HERE / "weights.pt").exists():
        train([])
    model = CameraNet()
    model.load_state_dict(torch.load(HERE / "weights.pt", weights_only=True))
    unseen = shots(TEST)
    made = [recording(unseen, FIRST_HELD_OUT + i) for i in range(HELD_OUT)]
    example = torch.from_numpy(np.stack([r.frames[:24] for r in made[:2]]))
    print(ut.export(model.eval(), example, out / "video.onnx", labels=LABELS, sample_rate_hz=25))
    result = compared(model, made, out)
    show(unseen[:1], out)
    lay_out(made[:IN_PIPELINE], out)
    result |= {"pictures": ["video.png"], "seconds": round(time.perf_counter() - begin, 1)}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def compared(model: CameraNet, made: list[Recording], out: Path) -> dict[str, Any]:
    """Streams beside torch and thresholds. Raises SystemExit where a stream's answers are not torch's."""
    announced, seconds = told(out / "video.onnx", made)
    theirs = by_torch(model, made)
    worst = max(float(np.abs(a - b).max()) for a, b in zip(scored(out / "video.onnx", made), theirs, strict=True))
    if not worst <= TOLERANCE:
        raise SystemExit(f"video.onnx: a score differs by {worst} from torch's, expected at most {TOLERANCE}")
    by_torchs = told_by_torch(theirs)
    other = sum(a != b for a, b in zip(announced, by_torchs, strict=True))
    if other:
        raise SystemExit(f"video.onnx: {other} of {len(made)} recordings are told otherwise than by torch's scores")
    by, simple = thresholds(made)
    truth = [events_of(r.labels) for r in made]
    ours, plain = tallies(truth, announced), tallies(truth, simple)
    frames = sum(len(r.frames) for r in made)
    return {
        "application": "video",
        "task": f"{sum(map(len, truth))} events in {len(made)} recordings of two clips that were not trained on, {frames:,} frames",
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": ut.read_artifact(out / "video.onnx").spec.state_bytes,
        "metric": "F1 of events, mean of seven kinds (higher is better)",
        "ours": mean_f1(ours),
        "torch": mean_f1(tallies(truth, by_torchs)),
        "baseline": mean_f1(plain),
        "baseline_name": "thresholds on differences, sharpness and brightness",
        "streams": len(made),
        "steps_per_s": frames / sum(seconds),
        "p99_step_ms": float(np.percentile(seconds, 99)) * 1e3,
        "more": {
            "kinds": table(ours),
            "kinds_by_thresholds": table(plain),
            "frames_right": right(made, announced),
            "frames_right_by_thresholds": right(made, simple),
            "frames_normal": float(np.mean([r.labels == NORMAL for r in made])),
            "thresholds": str(by),
            "worst_difference_from_torch": worst,
            "compared": f"the log-probabilities of each of {frames:,} frames, and {sum(map(len, announced)):,} events",
        },
    }


def thresholds(made: list[Recording]) -> tuple[baseline.Thresholds, list[list[Announced]]]:
    """(the best for recordings of the training clip, what they tell of these)."""
    seen = shots(TRAIN)
    by = baseline.chosen([recording(seen, FIRST_OTHER + i) for i in range(THRESHOLDS_ON)])
    return by, baseline.announced([baseline.measured(r.frames) for r in made], by)


def table(counts: list[Tally]) -> dict[str, dict[str, float]]:
    """Of each kind of event. delay: median of the frames from its begin until it is told, None where it never is."""
    return {
        name: {
            "events": t.right + t.missed,
            "precision": t.precision,
            "recall": t.recall,
            "delay": float(np.median(t.delays)) if t.delays else None,
        }
        for name, t in list(zip(LABELS, counts, strict=True))[NORMAL + 1 :]
    }


def right(made: list[Recording], announced: list[list[Announced]]) -> float:
    """The share of frames at which what was told last is true."""
    return float(np.mean([held(a, len(r.labels)) == r.labels for r, a in zip(made, announced, strict=True)]))


def show(shots: list[Shot], out: Path) -> None:
    """The contact sheet: of the first recording in which everything happens. shots: Big Buck Bunny's, whose licence allows it."""
    tried = (recording(shots, FIRST_SHOWN + i, SHOWN_FRAMES) for i in count())
    chosen = next(r for r in tried if set(r.labels.tolist()) == set(range(len(LABELS))))
    contact_sheet(chosen, told(out / "video.onnx", [chosen])[0][0], out / "video.png")


def lay_out(made: list[Recording], out: Path) -> None:
    """The pipeline's file and its input: a .npy a recording."""
    place(HERE / "pipeline.toml", out)
    shutil.rmtree(out / "recordings", ignore_errors=True)
    (out / "recordings").mkdir()
    for r in made:
        np.save(out / "recordings" / f"{r.key}.npy", r.frames)


if __name__ == "__main__":
    main()
