"""Trains the three models: `python examples/series/train.py` writes weights/NAME.pt beside this file, in minutes on one core.

The weather by truncated back-propagation through time: a step trains on a week of 24 streams and hands the state on to the next
week without its gradient; streams begin anywhere in the training time, and their first day does not count.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from data import (
    AHEAD,
    CHOSEN_BY,
    DAY,
    HELD_OUT,
    STOCKS_HELD_OUT,
    TRAINED_ON,
    WEEK,
    Station,
    pressure,
    prices,
    split,
    stations,
    truth,
    typical_year,
    weeks,
)
from model import Forecaster, NextReturn, NextValue, pinball
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
STREAMS, EPOCHS = 24, 60
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=["weather", "stocks", "pressure"], action="append")
    options.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the weather, with --choose")
    options.add_argument(
        "--choose", action="store_true", help="hold September out too and say how good the weather is there"
    )
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=HERE / "weights")
    given = options.parse_args()
    if given.choose:
        torch.set_num_threads(1)
        console.print(f"September: pinball loss {chosen_by(weather(given.seed, CHOSEN_BY, given.epochs)):.4f} °C")
        return
    trained(given.out, given.seed, given.only or list(MAKERS))


def trained(folder: Path, seed: int = 0, anew: Sequence[str] = ()) -> dict[str, nn.Module]:
    """The three models by name, in evaluation mode: of the weights in `folder`, which are made where missing or named in `anew`."""
    torch.set_num_threads(1)  # tensors this small gain nothing from more, and the result is the same everywhere
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, nn.Module] = {"weather": Forecaster(), "stocks": NextReturn(), "pressure": NextValue()}
    for name, network in found.items():
        path = folder / f"{name}.pt"
        if name in anew or not path.exists():
            torch.save(MAKERS[name](seed).state_dict(), path)
            console.print(f"wrote {path}")
        network.load_state_dict(torch.load(path, weights_only=True))
        network.eval()
    return found


def weather(seed: int, until: np.datetime64 = HELD_OUT, epochs: int = EPOCHS) -> Forecaster:
    """A forecaster that has seen nothing from `until` on, in evaluation mode."""
    torch.manual_seed(seed)
    generator, model = np.random.default_rng(seed), Forecaster(ahead=AHEAD)
    seen = [split(s, until)[0] for s in stations()] + [typical_year()]
    frames = np.concatenate([s.frames for s in seen])
    model.mean.copy_(torch.from_numpy(frames.mean(0)))
    model.scale.copy_(torch.from_numpy(1 / frames.std(0)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    steps = math.ceil(sum(len(s.frames) for s in seen) / (STREAMS * WEEK)) * epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    state = None
    for _, (fresh, x, y) in zip(
        track(range(steps), "weather", console=console), windows(seen, generator), strict=False
    ):
        out, state = model.carry(x, None if fresh else state)
        first = DAY if fresh else 0
        descend(model, optimiser, pinball(out[:, first:], y[:, first:]).mean() * model.scale[0])
        schedule.step()
    return model.eval()


def descend(model: nn.Module, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def windows(
    seen: list[Station], generator: np.random.Generator, length: int = 5
) -> Iterator[tuple[bool, Tensor, Tensor]]:
    """For ever (whether other streams begin, frames (B, WEEK, 9), temperatures that followed (B, WEEK, AHEAD)): `length` weeks a stream."""
    share = np.array([len(s.frames) for s in seen]) / sum(len(s.frames) for s in seen)
    while True:
        chosen = [seen[i] for i in generator.choice(len(seen), STREAMS, p=share)]
        starts = [generator.integers(0, len(s.frames) - length * WEEK - AHEAD) for s in chosen]
        warmer = generator.normal(0, 2, (STREAMS, 1, 1)).astype(
            np.float32
        )  # as if elsewhere: temperature and dew point alike
        for week in range(length):
            parts = [s.frames[at + week * WEEK :][: WEEK + AHEAD] for s, at in zip(chosen, starts, strict=True)]
            y = np.stack([truth(part) for part in parts]) + warmer
            x = np.stack(parts)[:, :WEEK]
            x[:, :, :2] += warmer
            yield week == 0, torch.from_numpy(x), torch.from_numpy(y)


@torch.no_grad()
def chosen_by(model: Forecaster) -> float:
    """Pinball loss on September's weeks."""
    streams = [w for s in stations() for w in weeks(s, CHOSEN_BY, HELD_OUT)]
    frames = torch.from_numpy(np.stack([w.frames for w in streams]))
    y = torch.from_numpy(np.stack([truth(w.frames)[-WEEK:] for w in streams]))
    return float(pinball(model(frames)[:, -WEEK - AHEAD : -AHEAD], y).mean())


def stocks(seed: int, steps: int = 300) -> NextReturn:
    """A model of monthly returns before 2008."""
    torch.manual_seed(seed)
    model, known = NextReturn(), []
    for months, price in prices().values():
        known.append(np.diff(np.log(price[months < STOCKS_HELD_OUT])).astype(np.float32))
    model.scale.fill_(float(1 / np.concatenate(known).std()))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.1)
    for _ in track(range(steps), "stocks", console=console):
        losses = [pinball(model(torch.from_numpy(r)[None, :-1, None]), torch.from_numpy(r)[None, 1:]) for r in known]
        descend(model, optimiser, torch.cat([each.flatten() for each in losses]).mean() * model.scale[0])
    return model.eval()


def blood_pressure(seed: int, epochs: int = 60, streams: int = 8, window: int = 50) -> NextValue:
    """A model of the pressure's normal prefix; its streams are stretches of it that overlap."""
    torch.manual_seed(seed)
    series = torch.from_numpy(pressure()[0][:TRAINED_ON])
    model, length = NextValue(), 600
    model.mean.fill_(series.mean())
    model.scale.fill_(1 / series.std())
    starts = torch.linspace(0, TRAINED_ON - length - 1, streams).long()
    x = torch.stack([series[s : s + length] for s in starts])[..., None]
    y = torch.stack([series[s + 1 : s + length + 1] for s in starts])[..., None]
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in track(range(epochs), "pressure", console=console):
        state = None
        for t in range(0, length, window):
            out, state = model.carry(x[:, t : t + window], state)
            descend(model, optimiser, (out - y[:, t : t + window]).abs().mean() * model.scale[0])
        schedule.step()
    return model.eval()


MAKERS: dict[str, Callable[[int], nn.Module]] = {"weather": weather, "stocks": stocks, "pressure": blood_pressure}


if __name__ == "__main__":
    main()
