"""Trains the camera watcher: `python examples/video/train.py` writes weights.pt beside this file, in minutes on one core.

The recordings are made first, and what the front end says of their frames: it has no weights, so once is enough. Then truncated
back-propagation through time: a step trains on 4 s of 32 recordings and hands the state on to the next 4 s, without its gradient.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from data import TRAIN, shots
from events import CUT, LABELS, Recording, recording
from model import CameraNet, statistics
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
WINDOW, BATCH = 100, 32
console = Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--recordings", type=int, default=400)
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=HERE / "weights.pt")
    given = options.parse_args(arguments)
    torch.set_num_threads(1)  # tensors this small gain nothing from more, and the result is the same everywhere
    sources = shots(TRAIN)
    made = [recording(sources, i) for i in track(range(given.recordings), "making recordings", console=console)]
    model = train(made, given.epochs, given.seed)
    torch.save(model.state_dict(), given.out)
    console.print(f"wrote {given.out} ({given.out.stat().st_size:,} bytes)")


def train(made: list[Recording], epochs: int, seed: int) -> CameraNet:
    """A trained model, in evaluation mode. The same seed, recordings and torch give the same model on the same machine."""
    torch.manual_seed(seed)
    model = CameraNet()
    seen, labels = seen_of(made), torch.from_numpy(np.stack([r.labels for r in made]))
    model.mean.copy_(seen.mean((0, 1)))
    model.scale.copy_(1 / (seen.std((0, 1)) + 1e-3))
    weights = torch.ones(len(LABELS))
    weights[CUT] = 3  # it lasts four frames
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda e: (1 + math.cos(math.pi * e / epochs)) / 2)
    for _ in track(range(epochs), "training", console=console):
        for batch in torch.randperm(len(seen)).split(BATCH):
            state = None
            for x, y in windows(seen[batch], labels[batch]):
                scores, state = model.name(x, state)
                loss = nn.functional.nll_loss(scores.flatten(0, 1), y.flatten(), weights)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                state = state.detach()
        schedule.step()
    return model.eval()


@torch.no_grad()
def seen_of(made: list[Recording]) -> Tensor:
    """(recordings, T, count): the statistics of every frame."""
    frames = (torch.from_numpy(r.frames)[None].float() for r in track(made, "looking at them", console=console))
    return torch.cat([statistics(x) for x in frames])


def windows(seen: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(seen.split(WINDOW, 1), labels.split(WINDOW, 1), strict=True)


if __name__ == "__main__":
    main()
