"""Trains the recogniser: `python examples/speech/train.py` writes weights.pt beside this file, in some twenty minutes on one core.

First, for a minute, synthetic speech with a label for each output, since eSpeak NG says when each word is: CTC alone says blanks for a long
time before it finds the first letter. Then CTC (Graves et al. 2006) over whole rows of prompts, with synthetic speech that becomes less.
The gradient is clipped.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from batches import placed_batches, varied_batches
from data import CHOOSING, Utterance, prompts, split
from model import Recogniser, padded
from rich.console import Console
from rich.progress import track
from scoring import Score, greedy, score
from synthesis import synthetic
from texts import LABELS
from torch import Tensor, nn
from variation import joined, masked

HERE = Path(__file__).resolve().parent
RATE = 2e-3
PLACED_EPOCHS = 2
FRONT = "features."
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument("--synthetic", type=int, default=3600, help="utterances by eSpeak NG, of 2 to 3 s")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument(
        "--choose", action="store_true", help="leave fold 1 out as well and test on it: to choose what to vary"
    )
    options.add_argument("--out", type=Path, default=HERE / "weights.pt")
    given = options.parse_args()
    torch.set_num_threads(1)
    training, test = split(prompts())
    closed = [u.text for u in test]
    if given.choose:
        training, test = split(training, CHOOSING)
        closed += [u.text for u in test]
    made = synthetic(given.synthetic, [u.text for u in training], closed, given.seed)
    hours = [sum(len(u.samples) for u in us) / 8000 / 3600 for us in (training, made)]
    console.print(
        f"{hours[0]:.2f} h of recordings, {hours[1]:.2f} h of synthetic speech; {len(test)} prompts to test on"
    )
    begin = time.process_time()
    model = train(training, made, given.epochs, given.seed, given.out)
    console.print(f"trained in {(time.process_time() - begin) / 60:.1f} minutes of one core")
    console.print(f"wrote {given.out} ({given.out.stat().st_size:,} bytes)")
    model = restored(given.out)
    console.print(f"best path, {'fold 1' if given.choose else 'held out'}: {evaluate(model, test)}")
    console.print(f"best path, some of the training set: {evaluate(model, training[::8])}")


def train(training: list[Utterance], made: list[Utterance], epochs: int, seed: int, out: Path) -> Recogniser:
    """A trained model, in evaluation mode, kept in `out` at each epoch. The same seed, data and torch give the same on the same machine."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = Recogniser()
    fit_scale(model, training + made[:300])
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2)
    placed = [u for u in made if u.spans]
    for _ in track(range(PLACED_EPOCHS), "learning where letters are", console=console):
        losses = [learn(model, optimiser, placed_loss(model, *batch)) for batch in placed_batches(placed, generator)]
        console.print(f"placed labels: loss {np.mean(losses):.3f} an output")
    for epoch in track(range(epochs), "training", console=console):
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (1 + math.cos(math.pi * epoch / epochs)) / 2 + 0.02)
        rows = epoch_rows(epoch / epochs, training, made, generator)
        losses = [
            learn(model, optimiser, ctc_loss(model, *batch, generator)) for batch in varied_batches(rows, generator)
        ]
        console.print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f} a character")
        keep(model, out)
    return model.eval()


def epoch_rows(
    done: float, training: list[Utterance], made: list[Utterance], generator: np.random.Generator
) -> list[list[Utterance]]:
    """All recordings twice, in rows, and a part of the synthetic speech: a quarter, from three fifths of the training on a twelfth."""
    part = generator.permutation(len(made))[: len(made) // (4 if done < 0.6 else 12)]
    return joined(training, generator) + joined(training, generator) + [[made[i]] for i in part]


def learn(model: Recogniser, optimiser: torch.optim.Optimizer, loss: Tensor) -> float:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return loss.item()


@torch.no_grad()
def fit_scale(model: Recogniser, chosen: list[Utterance]) -> None:
    """The mean and deviation of the log-mel energies become the module's."""
    features = torch.cat([model.features(torch.from_numpy(u.samples)[None])[0] for u in chosen])
    model.mean.copy_(features.mean(0))
    model.scale.copy_(1 / features.std(0))


def placed_loss(model: Recogniser, samples: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each output's label."""
    return nn.functional.nll_loss(model(samples).flatten(0, 1), labels.flatten())


def ctc_loss(
    model: Recogniser, samples: Tensor, lengths: Tensor, texts: list[str], generator: np.random.Generator
) -> Tensor:
    """CTC, a number for each character of the texts."""
    with torch.no_grad():
        features = masked(model.scaled(samples), generator)
    scores = model.recognise(features).transpose(0, 1)
    targets = torch.tensor([LABELS.index(c) for t in texts for c in t])
    sizes = torch.tensor([len(t) for t in texts])
    total = nn.functional.ctc_loss(scores, targets, lengths, sizes, reduction="sum", zero_infinity=True)
    return total / len(targets)


def keep(model: Recogniser, path: Path) -> None:
    """Writes the weights as float16, without the front end's, which are no more than its options."""
    learnt = {k: v.half() for k, v in model.state_dict().items() if not k.startswith(FRONT)}
    torch.save(learnt, path)


def restored(path: Path) -> Recogniser:
    """The module with the weights of a file, in evaluation mode."""
    model = Recogniser()
    front = {k: v for k, v in model.state_dict().items() if k.startswith(FRONT)}
    model.load_state_dict(front | torch.load(path, weights_only=True))
    return model.eval()


@torch.no_grad()
def evaluate(model: Recogniser, chosen: list[Utterance]) -> Score:
    """Errors of the best label at every step, torch on whole recordings."""
    heard = [greedy(model(torch.from_numpy(padded(u.samples))[None])[0].numpy()) for u in chosen]
    return score([u.text for u in chosen], heard)


if __name__ == "__main__":
    main()
