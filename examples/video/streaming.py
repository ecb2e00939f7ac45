"""Held-out recordings through the engine, all of them at once, and through torch, one whole recording after the other."""

import time
from pathlib import Path

import numpy as np
import torch
from events import Recording
from model import CameraNet
from scoring import Announced, changes

import undertow as ut

LEAST = 3  # frames that a label lasts before it is told, as in pipeline.toml
DECODE = {"type": "labels", "scores": "log-probabilities", "min_duration": LEAST, "emit": "changes"}
CHUNK = 50


def told(model: Path, made: list[Recording]) -> tuple[list[list[Announced]], list[float]]:
    """(what each recording's stream tells, seconds of each step): a frame of every recording at a step, events decoded."""
    engine = ut.Engine(model, max_streams=len(made), decode=DECODE)
    keys, frames = [r.key for r in made], np.stack([r.frames for r in made], 1)
    labels = {name: k for k, name in enumerate(engine.spec.labels)}
    found: list[list[Announced]] = [[] for _ in made]
    seconds = []
    engine.step(keys, frames[0])  # what is compiled or measured on first use
    engine.close_many(keys)
    for batch in frames:
        begin = time.perf_counter()
        events, _ = engine.step(keys, batch)
        seconds.append(time.perf_counter() - begin)
        for stream, label, at in zip(events.streams, events.values["label"], events.at, strict=True):
            found[stream].append(Announced(labels[label], int(at)))
    return found, seconds


def scored(model: Path, made: list[Recording]) -> list[np.ndarray]:
    """Log-probabilities (T, 8) of each recording, pushed in chunks."""
    engine = ut.Engine(model, max_streams=len(made))
    length = max(len(r.frames) for r in made)
    parts = [engine.push_many({r.key: r.frames[t : t + CHUNK] for r in made}) for t in range(0, length, CHUNK)]
    return [np.concatenate([part[r.key] for part in parts]) for r in made]


@torch.no_grad()
def by_torch(model: CameraNet, made: list[Recording]) -> list[np.ndarray]:
    """The same from torch."""
    return [model(torch.from_numpy(r.frames)[None])[0].numpy() for r in made]


def told_by_torch(scores: list[np.ndarray]) -> list[list[Announced]]:
    """What torch's scores tell, by the plain rule that the engine's decoder follows."""
    return [changes(one.argmax(-1), LEAST) for one in scores]
