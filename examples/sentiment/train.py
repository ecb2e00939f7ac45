"""Trains both networks: `python examples/sentiment/train.py`. Minutes on one core; the weights go beside this file.

Sentences are shorter than a window of truncated back-propagation would be, so each is read whole. A batch has sentences of one
length: nothing is padded, as nothing is when they are live. Gradients are clipped; the epoch that is best on sentences kept for
this choice is the one that is kept.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from data import Sentence, sentences, split
from model import LiveSentiment, WholeSentiment
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from words import frames

HERE = Path(__file__).resolve().parent
BATCH = 32
console = Console(stderr=True)

Batch = tuple[np.ndarray, Tensor, Tensor]  # places of the sentences, marks (B, T, MARKS), ratings (B,)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=HERE, help="the folder for weights-live.pt and weights-whole.pt")
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    train_set, valid_set, _ = split(sentences())
    for name, model, loss in (("live", LiveSentiment, live_loss), ("whole", WholeSentiment, whole_loss)):
        torch.manual_seed(given.seed)
        trained = model(dropout=0.4)
        train(trained, loss, train_set, valid_set, given.epochs, given.seed)
        path = given.out / f"weights-{name}.pt"
        torch.save({k: v.half() for k, v in trained.state_dict().items()}, path)
        console.print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def load(folder: Path = HERE) -> tuple[LiveSentiment, WholeSentiment]:
    """Both trained models, in evaluation mode. Their weights are kept in float16 and computed with in float32."""
    live, whole = LiveSentiment(), WholeSentiment()
    for name, model in (("live", live), ("whole", whole)):
        model.load_state_dict(torch.load(folder / f"weights-{name}.pt", weights_only=True))
    return live.eval(), whole.eval()


def live_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Squared error after each word, which counts the more the more of the sentence was read."""
    weights = torch.linspace(0, 1, scores.shape[1] + 1)[1:] ** 2
    return ((scores - ratings[:, None]) ** 2 * weights).sum(1).mean() / weights.sum()


def whole_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    return ((scores - ratings) ** 2).mean()


def train(
    model: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    train_set: list[Sentence],
    valid_set: list[Sentence],
    epochs: int,
    seed: int,
) -> None:
    """Trains in place; the same seed gives the same model on one machine."""
    generator = np.random.default_rng(seed)
    chosen, held = by_length(train_set), by_length(valid_set)
    steps = epochs * sum(1 for _ in batches(chosen, np.random.default_rng(0)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: (1 + math.cos(math.pi * min(1, s / steps))) / 2)
    best, kept = -1.0, model.state_dict()
    for epoch in track(range(epochs), "training", console=console):
        model.train()
        for _, marks, ratings in batches(chosen, generator):
            loss = loss_of(model(marks), ratings)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        found = correlation(model, held, len(valid_set))
        console.print(f"epoch {epoch + 1}: correlation {found:.4f} held out, loss {loss.item():.3f}")
        if found > best:
            best, kept = found, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    model.eval()


def by_length(chosen: list[Sentence]) -> dict[int, tuple[np.ndarray, Tensor, Tensor]]:
    """All sentences of each length: their places, marks (N, T, MARKS) and ratings (N,)."""
    texts, places = [frames(s.text) for s in chosen], defaultdict(list)
    for i, text in enumerate(texts):
        if len(text):
            places[len(text)].append(i)
    return {
        n: (np.array(p), torch.from_numpy(np.stack([texts[i] for i in p])), torch.tensor([chosen[i].rating for i in p]))
        for n, p in places.items()
    }


def batches(chosen: dict[int, Batch], generator: np.random.Generator) -> Iterator[Batch]:
    """Every sentence once, those of one length together, in an order of their own each time."""
    cuts = []
    for length, (places, _, _) in chosen.items():
        order = generator.permutation(len(places))
        cuts += [(length, order[i : i + BATCH]) for i in range(0, len(order), BATCH)]
    for i in generator.permutation(len(cuts)):
        places, marks, ratings = chosen[cuts[i][0]]
        rows = cuts[i][1]
        yield places[rows], marks[rows], ratings[rows]


@torch.no_grad()
def ratings_of(model: nn.Module, chosen: dict[int, Batch], count: int) -> np.ndarray:
    """What torch says of each whole sentence, (count,), in their order; of a live model after the last word."""
    model.eval()
    found = np.zeros(count, np.float32)
    for places, marks, _ in chosen.values():
        scores = model(marks)
        found[places] = scores.reshape(len(places), -1)[:, -1].numpy()
    return found


def correlation(model: nn.Module, chosen: dict[int, Batch], count: int) -> float:
    """Pearson's with the people's ratings."""
    truth = np.zeros(count)
    for places, _, ratings in chosen.values():
        truth[places] = ratings.numpy()
    return float(np.corrcoef(ratings_of(model, chosen, count), truth)[0, 1])


if __name__ == "__main__":
    main()
