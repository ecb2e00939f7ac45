"""Thousands of streams that write at once, through the engine and through a plain loop in torch; tokens a second of both."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from model import FortuneNet
from pieces import END, Pieces

import undertow as ut

TEMPERATURE, TOP_K = 0.8, 40
COUNTS = (1, 64, 1024)  # streams at once that are timed
STEPS = 64  # tokens that each of them writes


def written(engine: ut.Engine, pieces: Pieces, prompts: Sequence[str], max_steps: int, seed: int) -> list[str]:
    """Each prompt and what the engine makes of it, until its end or max_steps pieces. Same seed: the same texts."""
    keys = [f"prompt-{i}" for i in range(len(prompts))]
    given = [np.array([END, *pieces.encode(p)], np.int64) for p in prompts]
    made = engine.generate(keys, given, max_steps, temperature=TEMPERATURE, top_k=TOP_K, seed=seed, stop=(END,))
    for key in keys:
        engine.drop(key)
    return [p + pieces.decode(made[k].tokens) for k, p in zip(keys, prompts, strict=True)]


def speeds(engine: ut.Engine, model: FortuneNet) -> dict[str, dict[str, float]]:
    """Tokens a second of the engine and of torch, by the number of streams; the sides take turns, the better of three rounds each."""
    found = {}
    for count in COUNTS:
        sides = {"engine": lambda n=count: _engine(engine, n), "torch": lambda n=count: torch_written(model, n, STEPS)}
        best = dict.fromkeys(sides, 0.0)
        for turn in range(4):  # the first one warms up
            for name, side in sides.items():
                begin = time.perf_counter()
                side()
                rate = count * STEPS / (time.perf_counter() - begin)
                best[name] = max(best[name], rate) if turn else 0.0
        found[str(count)] = best
    return found


def _engine(engine: ut.Engine, count: int) -> None:
    keys, begin = list(range(count)), np.array([END], np.int64)
    engine.generate(keys, [begin] * count, STEPS, temperature=TEMPERATURE, top_k=TOP_K, seed=1)
    for key in keys:
        engine.drop(key)


@torch.no_grad()
def torch_written(model: FortuneNet, count: int, steps: int) -> torch.Tensor:
    """(count, steps) tokens: a batch, a loop, the states carried, the same temperature and cut."""
    ids, state, made = torch.full((count, 1), END), None, []
    for _ in range(steps):
        logits, state = model.carry(ids, state)
        top, places = (logits[:, -1] / TEMPERATURE).topk(TOP_K)
        ids = places.gather(1, torch.multinomial(top.softmax(1), 1))
        made.append(ids)
    return torch.cat(made, 1)
