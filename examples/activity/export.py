"""Exports the trained model and lays out a run: `python examples/activity/export.py --out demo`, then `undertow demo demo`.

Into the folder go the step artifact, the held-out recordings as one file each, what is true of them, and what torch
says about each whole recording, to be compared with what comes out of the stream.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from data import RATE_HZ, Recording, recordings, split
from model import ActivityNet
from train import predict

import undertow as ut

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("demo"), help="the folder to write")
    options.add_argument("--weights", type=Path, default=HERE / "weights.pt")
    options.add_argument("--person", type=int, action="append", help="only the recordings of this held-out person")
    options.add_argument("--seconds", type=float, help="only the first seconds of each recording")
    given = options.parse_args()
    torch.set_num_threads(1)
    everything, labels = recordings()
    _, held_out = split(everything)
    model = ActivityNet(labels=len(labels))
    model.load_state_dict(torch.load(given.weights, weights_only=True))
    chosen = [r for r in held_out if not given.person or r.person in given.person]
    given.out.mkdir(parents=True, exist_ok=True)
    print(
        ut.export(
            model.eval(), torch.zeros(2, 20, 6), given.out / "activity.onnx", labels=labels, sample_rate_hz=RATE_HZ
        )
    )
    lay_out(given.out, model, [cut(r, given.seconds) for r in chosen], labels)
    print(f"{len(chosen)} recordings in {given.out / 'recordings'}")


def cut(recording: Recording, seconds: float | None) -> Recording:
    end = None if seconds is None else round(seconds * RATE_HZ)
    return Recording(recording.key, recording.frames[:end], recording.label, recording.person)


def lay_out(folder: Path, model: ActivityNet, chosen: list[Recording], labels: tuple[str, ...]) -> None:
    """pipeline.toml, recordings/KEY.npy (T, 6), truth.json {KEY: label} and torch.npz {KEY: log-probabilities (T, 7)} in `folder`."""
    shutil.rmtree(folder / "recordings", ignore_errors=True)
    shutil.copy(HERE / "pipeline.toml", folder)
    (folder / "recordings").mkdir()
    for r in chosen:
        np.save(folder / "recordings" / f"{r.key}.npy", r.frames)
    (folder / "truth.json").write_text(json.dumps({r.key: labels[r.label] for r in chosen}, indent=1) + "\n")
    expected = dict(zip([r.key for r in chosen], predict(model, chosen), strict=True))
    np.savez_compressed(folder / "torch.npz", **expected)


if __name__ == "__main__":
    main()
