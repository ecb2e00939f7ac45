"""Trains the activity recogniser: `python examples/activity/train.py` writes weights.pt beside this file, in minutes.

Truncated back-propagation through time: a step trains on 2.56 s of 32 recordings and hands the hidden state on to the
next 2.56 s, without its gradient. The first frames of a recording count in the loss, since a live stream starts too.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from baseline import baseline_accuracy
from data import Recording, recordings, split
from model import ActivityNet
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
WINDOW, BATCH = 128, 32
OTHER_WRIST = np.array([-1, 1, 1, 1, -1, -1])  # mirrored: an acceleration's x turns around, of a rotation the y and z
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=30)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=HERE / "weights.pt")
    given = options.parse_args()
    torch.set_num_threads(1)  # tensors this small gain nothing from more, and the result is the same everywhere
    everything, labels = recordings()
    train_set, test_set = split(everything)
    model = train(train_set, len(labels), given.epochs, given.seed)
    torch.save(model.state_dict(), given.out)
    report(model, train_set, test_set, labels)
    console.print(f"wrote {given.out} ({given.out.stat().st_size:,} bytes)")


def train(train_set: list[Recording], labels: int, epochs: int, seed: int) -> ActivityNet:
    """A trained model, in evaluation mode. The same seed, data and torch give the same model on the same machine."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = ActivityNet(labels=labels)
    frames = np.concatenate([r.frames for r in train_set])
    model.mean.copy_(torch.from_numpy(frames.mean(0)))
    model.scale.copy_(torch.from_numpy(1 / frames.std(0)))
    optimiser = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda e: min(1, (e + 1) / 4) * (1 + math.cos(math.pi * e / epochs)) / 2
    )
    for _ in track(range(epochs), "training", console=console):
        state = None
        for fresh, x, y in windows(train_set, generator):
            scores, state = model.carry(x, None if fresh else state)
            state = state.detach()
            loss = nn.functional.nll_loss(scores.flatten(0, 1), y.flatten(), ignore_index=-1)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        schedule.step()
    return model.eval()


def windows(chosen: list[Recording], generator: np.random.Generator) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """(whether a new batch of recordings begins, frames (B, WINDOW, 6), labels (B, WINDOW) with -1 after a recording's end)."""
    order = sorted(range(len(chosen)), key=lambda i: len(chosen[i].frames) + generator.normal(0, 300))
    for start in range(0, len(order), BATCH):
        group = [varied(chosen[i], generator) for i in order[start : start + BATCH]]
        longest = math.ceil(max(len(x) for x, _ in group) / WINDOW) * WINDOW
        frames = np.zeros((len(group), longest, group[0][0].shape[1]), np.float32)
        labels = np.full((len(group), longest), -1)
        for i, (x, label) in enumerate(group):
            frames[i, : len(x)], labels[i, : len(x)] = x, label
        for t in range(0, longest, WINDOW):
            yield t == 0, torch.from_numpy(frames[:, t : t + WINDOW]), torch.from_numpy(labels[:, t : t + WINDOW])


def varied(recording: Recording, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """The recording as it might have been: a later start, another pace, a watch a little askew, the other wrist."""
    frames = recording.frames[generator.integers(0, 300) :]
    pace = generator.uniform(0.87, 1.15)
    at = np.arange(0, len(frames) - 1, pace)
    below, part = at.astype(int), (at % 1)[:, None]
    frames = frames[below] * (1 - part) + frames[below + 1] * part
    turn = rotation(generator.normal(0, 0.1, 3))
    turned = np.concatenate([frames[:, :3] @ turn, frames[:, 3:] @ turn * pace], 1)
    side = OTHER_WRIST if generator.random() < 0.5 else 1
    return (turned * side * generator.normal(1, 0.02, turned.shape[1])).astype(np.float32), recording.label


def rotation(vector: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that turns by |vector| radians around `vector` (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector)) or 1e-12
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@torch.no_grad()
def predict(model: ActivityNet, chosen: list[Recording]) -> list[np.ndarray]:
    """Log-probabilities (T, labels) of each recording: torch on the whole sequence at once."""
    return [model(torch.from_numpy(r.frames)[None])[0].numpy() for r in chosen]


def report(model: ActivityNet, train_set: list[Recording], test_set: list[Recording], labels: tuple[str, ...]) -> None:
    """Prints how good the model is on people it has never seen, beside the baseline."""
    scores = predict(model, test_set)
    frame = np.concatenate([s.argmax(1) == r.label for s, r in zip(scores, test_set, strict=True)]).mean()
    votes = [np.bincount(s.argmax(1), minlength=len(labels)).argmax() for s in scores]
    whole = np.mean([v == r.label for v, r in zip(votes, test_set, strict=True)])
    plain_frame, plain_whole = baseline_accuracy(train_set, test_set, len(labels))
    table = Table("held-out people", "per frame", "per recording", title=f"{len(test_set)} recordings")
    table.add_row("this model", f"{frame:.1%}", f"{whole:.1%}")
    table.add_row("logistic regression, 2 s windows", f"{plain_frame:.1%}", f"{plain_whole:.1%}")
    console.print(table)
    confusion = Table("truth \\ predicted", *labels, title="frames")
    for k, name in enumerate(labels):
        row = np.bincount(
            np.concatenate([s.argmax(1) for s, r in zip(scores, test_set, strict=True) if r.label == k]),
            minlength=len(labels),
        )
        confusion.add_row(name, *[f"{n:,}" for n in row])
    console.print(confusion)


if __name__ == "__main__":
    main()
