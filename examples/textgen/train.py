"""Trains the network: `python examples/textgen/train.py`. A quarter of an hour on one core; the weights go beside this file.

Truncated back-propagation through time: texts of like length are a batch, and it is read in windows between which the states are
carried and the gradient is not. Gradients are clipped. The epoch that is best on fortunes kept for this choice is the one that is kept.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from data import fortunes, split
from model import FortuneNet
from pieces import END, Pieces, learn
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
BATCH, WINDOW, NONE = 48, 64, -1  # texts, pieces between two cuts of the gradient, what is no target
console = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--out", type=Path, default=HERE, help="the folder for weights.pt, pieces.json and training.json"
    )
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args(arguments)
    torch.set_num_threads(1)
    train_texts, valid_texts, _ = split(fortunes())
    pieces = learn(train_texts, 768)
    model, history = train(train_texts, valid_texts, pieces, given.epochs, given.seed)
    pieces.save(given.out / "pieces.json")
    torch.save({k: v.half() for k, v in model.state_dict().items()}, given.out / "weights.pt")
    (given.out / "training.json").write_text(json.dumps(history) + "\n")
    console.print(f"wrote {given.out / 'weights.pt'} ({(given.out / 'weights.pt').stat().st_size:,} bytes)")


def load(folder: Path = HERE) -> tuple[FortuneNet, Pieces]:
    """The trained model, in evaluation mode, and its pieces. The weights are kept in float16 and computed with in float32."""
    pieces = Pieces.load(folder / "pieces.json")
    model = FortuneNet(len(pieces))
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return model.eval(), pieces


def train(
    train_texts: list[str], valid_texts: list[str], pieces: Pieces, epochs: int, seed: int
) -> tuple[FortuneNet, list[dict[str, float]]]:
    """A trained model in evaluation mode, and bits per character after each epoch. The same seed gives the same on one machine."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = FortuneNet(len(pieces), dropout=0.15)
    texts = [pieces.encode(t) for t in train_texts]
    held = [pieces.encode(t) for t in valid_texts]
    characters = sum(len(t) + 1 for t in valid_texts)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.05)
    steps = epochs * len(list(windows(texts, np.random.default_rng(0))))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1, (s + 1) / 200) * (1 + math.cos(math.pi * min(1, s / steps))) / 2 + 0.01
    )
    history, best, kept = [], math.inf, model.state_dict()
    for epoch in track(range(epochs), "training", console=console):
        begin = time.perf_counter()
        losses = run_epoch(model, windows(texts, generator), optimiser, schedule)
        valid = sum(bits(model, held)) / characters
        history.append({"epoch": epoch + 1, "train_nats_per_piece": losses, "valid_bits_per_character": valid})
        console.print(
            f"epoch {epoch + 1}: {losses:.3f} nats a piece, {valid:.3f} bits a character held out, {time.perf_counter() - begin:.0f} s"
        )
        if valid < best:
            best, kept = valid, {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(kept)
    return model.eval(), history


def run_epoch(model: FortuneNet, batches: Iterator[tuple[bool, Tensor, Tensor]], optimiser, schedule) -> float:
    """One pass over the batches; the mean loss, in nats a piece."""
    model.train()
    total, count, state = 0.0, 0, None
    for fresh, ids, targets in batches:
        logits, state = model.carry(ids, None if fresh else state)
        state = [(h.detach(), c.detach()) for h, c in state]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=NONE)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        known = int((targets != NONE).sum())
        total, count = total + loss.item() * known, count + known
    return total / count


def windows(texts: list[list[int]], generator: np.random.Generator) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """(whether new texts begin, ids (B, WINDOW), the ids after them with NONE behind a text's end)."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]) * generator.uniform(0.9, 1.1))
    groups = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    generator.shuffle(groups)
    for group in groups:
        ids, targets = padded([texts[i] for i in group])
        for t in range(0, ids.shape[1], WINDOW):
            yield t == 0, ids[:, t : t + WINDOW], targets[:, t : t + WINDOW]


def padded(texts: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Each text after an END, and what follows each of its pieces: the next one, END after the last, then NONE."""
    longest = max(map(len, texts)) + 1
    ids, targets = np.zeros((len(texts), longest), np.int64), np.full((len(texts), longest), NONE)
    for i, text in enumerate(texts):
        ids[i, : len(text) + 1] = [END, *text]
        targets[i, : len(text) + 1] = [*text, END]
    return torch.from_numpy(ids), torch.from_numpy(targets)


@torch.no_grad()
def bits(model: FortuneNet, texts: list[list[int]]) -> list[float]:
    """Bits that the model needs for each text and its end."""
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = [0.0] * len(texts)
    for start in range(0, len(order), BATCH):
        group = order[start : start + BATCH]
        ids, targets = padded([texts[i] for i in group])
        nats = nn.functional.cross_entropy(model(ids).transpose(1, 2), targets, ignore_index=NONE, reduction="none")
        for i, total in zip(group, nats.sum(1).tolist(), strict=True):
            found[i] = total / math.log(2)
    return found


if __name__ == "__main__":
    main()
