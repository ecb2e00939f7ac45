"""Streams pushed to an engine with a decoder in random pieces, as tests of decoders do it."""

from typing import Any

import numpy as np

from undertow.engine import Engine


def in_pieces(engine: Engine, streams: dict[str, np.ndarray], seed: int) -> dict[str, list[dict[str, Any]]]:
    """All events of each stream. Chunks of 0 to 25 frames, of random streams together; between two of them some stream is
    snapshotted, dropped and restored under its name."""
    generator = np.random.default_rng(seed)
    got: dict[str, list[dict[str, Any]]] = {key: [] for key in streams}
    left = dict(streams)
    while left:
        some = [key for key in generator.permutation(sorted(left)).tolist() if generator.random() < 0.7]
        sizes = {key: int(generator.integers(0, 26)) for key in some}
        for key, events in engine.push_many({key: left[key][: sizes[key]] for key in some}).items():
            got[key] += list(events)
        left = {key: rest for key, x in left.items() if len(rest := x[sizes.get(key, 0) :])}
        key = str(generator.choice(sorted(streams)))
        if key in engine:
            blob = engine.snapshot(key)
            engine.drop(key)
            engine.restore(key, blob)
    return {key: events + list(engine.close(key)) for key, events in got.items()}
