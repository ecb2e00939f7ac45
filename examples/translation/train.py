"""Trains the translator: `python examples/translation/train.py` writes .data/weights/translation.pt, in some ten minutes of one core.

The names of iso-codes are under the LGPL, so what was learned from them is not shipped: whoever runs the example trains it.
Teacher forcing with label smoothing, byte-pair dropout (Provilkov et al. 2020, arXiv:1910.13267), gradient clipping. Sentences are short, so
back-propagation goes through whole ones.
"""

import argparse
import math
import random
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
import torch
from baseline import Dictionary
from data import Split, pairs, split
from drafts import Example, Sources, drafted, joined
from model import Translator
from packages import CACHE
from pieces import END, PAD, START, Pieces
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

WEIGHTS = CACHE / "weights" / "translation.pt"
EPOCHS, BATCH, RATE = 14, 48, 2.5e-3
VOCABULARY, VARY = 1200, 0.05  # pieces; how often a byte pair is left apart in training
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=WEIGHTS, help="the file to write")
    given = options.parse_args()
    make(split(pairs()), given.epochs, given.seed, given.out)


def make(parts: Split, epochs: int = EPOCHS, seed: int = 0, path: Path = WEIGHTS) -> None:
    """Learns pieces and trains the model on them; writes both."""
    torch.set_num_threads(1)  # tensors this small gain little from more
    pieces = Pieces.learned([text for p in parts.train for text in (p.english, p.french)], VOCABULARY)
    words = Dictionary.learned(parts.train)
    tune = [Example(p.english, words.translate(p.english), p.french) for p in parts.tune]
    model = train(drafted(parts.train), tune, pieces, epochs, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"weights": model.state_dict(), "words": words.words}
    torch.save(kept | {"pieces": torch.frombuffer(bytearray(pieces.model), dtype=torch.uint8)}, path)
    console.print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def load(path: Path = WEIGHTS) -> tuple[Translator, Sources]:
    """The trained model, in evaluation mode, and what makes sources of sentences."""
    kept = torch.load(path, weights_only=True)
    pieces = Pieces(kept["pieces"].numpy().tobytes())
    model = Translator(len(pieces))
    model.load_state_dict(kept["weights"])
    return model.eval(), Sources(pieces, Dictionary(kept["words"]))


def train(trained: list[Example], tune: list[Example], pieces: Pieces, epochs: int, seed: int) -> Translator:
    """A trained model, in evaluation mode. The same seed, pairs and torch give the same model on the same machine."""
    torch.manual_seed(seed)
    sentencepiece.set_random_generator_seed(seed)
    draw = random.Random(seed)
    model = Translator(len(pieces))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE, betas=(0.9, 0.98), fused=True)
    steps = epochs * math.ceil(len(trained) / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, (step + 1) / 300) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    with Progress(console=console) as progress:
        bar = progress.add_task("training", total=steps)
        for epoch in range(epochs):
            for source, lengths, target in batches(trained, pieces, draw):
                learn(model, optimiser, source, lengths, target)
                schedule.step()
                progress.advance(bar)
            found = surprise(model, tune, pieces)
            progress.print(f"epoch {epoch + 1}: {found:.3f} nats a piece on the tuning pairs")
    return model.eval()


def learn(
    model: Translator, optimiser: torch.optim.Optimizer, source: Tensor, lengths: Tensor, target: Tensor
) -> float:
    """One step of training; gives its loss. target (B, U) from START to END, then PAD."""
    scores = model.train()(source, lengths, target[:, :-1])
    loss = nn.functional.cross_entropy(
        scores.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=0.1
    )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


@torch.no_grad()
def surprise(model: Translator, chosen: list[Example], pieces: Pieces) -> float:
    """Mean cross-entropy of the French pieces, END among them."""
    total = count = 0.0
    for source, lengths, target in batches(chosen, pieces, None):
        scores = model.eval()(source, lengths, target[:, :-1])
        total += float(
            nn.functional.cross_entropy(
                scores.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, reduction="sum"
            )
        )
        count += int((target[:, 1:] != PAD).sum())
    return total / count


def batches(
    chosen: list[Example], pieces: Pieces, draw: random.Random | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(source (B, T), lengths (B,), target (B, U)) of sentences of nearly one length; with `draw` in random order and cut at random."""
    vary = VARY if draw else 0.0
    cut = [(joined(pieces, e.english, e.draft, vary), pieces.encode(e.french, vary)) for e in chosen]
    cut.sort(key=lambda pair: len(pair[0]) + len(pair[1]) + (draw.uniform(0, 4) if draw else 0))
    starts = list(range(0, len(cut), BATCH))
    if draw:
        draw.shuffle(starts)
    for start in starts:
        group = cut[start : start + BATCH]
        lengths = torch.tensor([len(source) for source, _ in group])
        yield block([source for source, _ in group]), lengths, block([[START, *french, END] for _, french in group])


def block(rows: list[list[int]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD)


if __name__ == "__main__":
    main()
