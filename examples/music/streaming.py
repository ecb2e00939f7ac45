"""Held-out chorales through the engine, all of them at once, and through torch, one whole chorale after the other."""

import time

import numpy as np
import torch
from data import VOICES, scored
from model import ChoraleNet

import undertow as ut


def streamed(engine: ut.Engine, made: list[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
    """(logits (T, 4, TOKENS) of each, seconds of each step): all streams at once, a row of each that goes on at a step."""
    found: list[list[np.ndarray]] = [[] for _ in made]
    seconds = []
    for t in range(max(map(len, made))):
        on = [i for i, rows in enumerate(made) if t < len(rows)]
        rows = np.stack([made[i][t] for i in on])
        frames = {voice: np.ascontiguousarray(rows[:, v]) for v, voice in enumerate(VOICES)}
        begin = time.perf_counter()
        values, _ = engine.step(on, frames)
        seconds.append(time.perf_counter() - begin)
        logits = np.stack([values[f"next_{voice}"] for voice in VOICES], 1)
        for i, y in zip(on, logits, strict=True):
            found[i].append(y)
    for i in range(len(made)):
        engine.drop(i)
    return [np.stack(y) for y in found], seconds


@torch.no_grad()
def whole(model: ChoraleNet, rows: np.ndarray) -> np.ndarray:
    """(T, 4, TOKENS): torch on the whole chorale at once."""
    logits = model(*torch.from_numpy(rows)[None].unbind(-1))
    return torch.stack([logits[f"next_{voice}"][0] for voice in VOICES], 1).numpy()


def lost(logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Minus the logarithm of each scored token's chance."""
    logits = logits[:-1].astype(np.float64)
    chances = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return -np.take_along_axis(chances, rows[1:, :, None], -1)[..., 0][scored(rows)]


def told(model: ChoraleNet, prompt: np.ndarray, made: np.ndarray) -> float:
    """The logarithm of the chance that torch gives to rows (T, 4) that go on from a prompt's."""
    logits = whole(model, np.vstack([prompt, made]))[len(prompt) - 1 : -1].astype(np.float64)
    chances = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
    return float(np.take_along_axis(chances, made[..., None], -1).sum())
