"""Trains the chorale model: `python examples/music/train.py` writes .data/weights/music.pt, in minutes on one core.

Truncated back-propagation through time: a step trains on 4 bars of 12 chorales and hands the state on to the next 4, without
its gradient. Each chorale is heard in another key each time, within what its voices sing in the corpus.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from data import CACHE, END, Chorale, chorales, ranges, room, scored, split, staggered, transposed
from model import ChoraleNet
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

WEIGHTS = CACHE / "weights" / "music.pt"
WINDOW, BATCH = 64, 12
console = Console(stderr=True)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=38)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=WEIGHTS)
    given = options.parse_args(arguments)
    train_set, check_set, test_set = split(chorales())
    model = train(train_set, check_set, given.epochs, given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), given.out)
    for name, chosen in (("check", check_set), ("held out", test_set)):
        console.print(f"{name}: {loss_of(model, [c.rows for c in chosen]):.4f} nats a token")
    console.print(f"wrote {given.out} ({given.out.stat().st_size:,} bytes)")


def train(train_set: list[Chorale], check_set: list[Chorale], epochs: int, seed: int) -> ChoraleNet:
    """The model, in evaluation mode, as it was when it knew the check's chorales best."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    generator, model = np.random.default_rng(seed), ChoraleNet()
    within = ranges(train_set)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda e: min(1, (e + 1) / 3) * (1 + math.cos(math.pi * e / epochs)) / 2
    )
    best, kept = math.inf, model.state_dict()
    with Progress(*Progress.get_default_columns(), "{task.fields[nats]}", console=console) as progress:
        task = progress.add_task("training", total=epochs, nats="")
        for _ in range(epochs):
            epoch(model.train(), optimiser, [varied(c.rows, within, generator) for c in train_set], generator)
            schedule.step()
            now = loss_of(model.eval(), [c.rows for c in check_set])
            if now < best:
                best, kept = now, {name: x.clone() for name, x in model.state_dict().items()}
            progress.update(task, advance=1, nats=f"check {now:.4f}, best {best:.4f}")
    model.load_state_dict(kept)
    return model.eval()


def epoch(
    model: ChoraleNet, optimiser: torch.optim.Optimizer, made: list[np.ndarray], generator: np.random.Generator
) -> None:
    """Every chorale once, of about the same length together."""
    order = sorted(range(len(made)), key=lambda i: len(made[i]) + generator.normal(0, 40))
    groups = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    for g in generator.permutation(len(groups)):
        state = None
        for at, rows, counts in windows([made[i] for i in groups[g]]):
            loss, state = forward(model, rows, counts, at, state)
            optimiser.zero_grad()
            (loss / counts.sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            state = tuple((h.detach(), c.detach()) for h, c in state)


def varied(rows: np.ndarray, within: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The chorale in some key, as the network reads it."""
    return staggered(transposed(rows, int(generator.choice(room(rows, within)))))


def windows(made: list[np.ndarray]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number of the first row, rows (B, WINDOW + 1, 4), which of their last WINDOW count (B, WINDOW, 4)); the shorter are filled with END."""
    length = math.ceil((max(map(len, made)) - 1) / WINDOW) * WINDOW
    rows = np.full((len(made), length + 1, 4), END)
    counts = np.zeros((len(made), length, 4), bool)
    for i, one in enumerate(made):
        rows[i, : len(one)], counts[i, : len(one) - 1] = one, scored(one)
    for at in range(0, length, WINDOW):
        if counts[:, at : at + WINDOW].any():
            yield (
                at,
                torch.from_numpy(rows[:, at : at + WINDOW + 1]),
                torch.from_numpy(counts[:, at : at + WINDOW]),
            )


def forward(model: ChoraleNet, rows: Tensor, counts: Tensor, at: int, state: tuple | None) -> tuple[Tensor, tuple]:
    """(nats of the tokens that count, summed, state): each row foretells the next."""
    logits, state = model.carry(list(rows[:, :-1].unbind(-1)), torch.arange(at, at + rows.shape[1] - 1), state)
    chances = nn.functional.cross_entropy(torch.stack(logits, 2).flatten(0, 2), rows[:, 1:].flatten(), reduction="none")
    return (chances * counts.flatten()).sum(), state


@torch.no_grad()
def loss_of(model: ChoraleNet, chosen: list[np.ndarray]) -> float:
    """Nats a token."""
    total, tokens = 0.0, 0
    made = sorted(map(staggered, chosen), key=len)
    for i in range(0, len(made), BATCH):
        state = None
        for at, rows, counts in windows(made[i : i + BATCH]):
            loss, state = forward(model, rows, counts, at, state)
            total, tokens = total + float(loss), tokens + int(counts.sum())
    return total / tokens


if __name__ == "__main__":
    main()
