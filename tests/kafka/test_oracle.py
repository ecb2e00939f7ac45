"""The oracle itself: its artifact gives what its plain reference gives, and an output tells which state it was made from."""

import numpy as np
import pytest

from undertow.engine import Engine

from .oracle import Recurrence, frame, oracle, reference, state_before

KEYS = [b"pump-%d" % i for i in range(9)]


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("backend", ["numba", "ort"])
def test_artifact_is_the_reference(backend: str, wide: bool) -> None:
    """Interleaved streams in batches, for long enough that the buffer goes round: the very integers, on each backend."""
    engine = Engine(oracle(wide), backend=backend, max_streams=16)
    frames = {k: [frame(k, n) for n in range(300)] for k in KEYS}
    got: dict[bytes, list[int]] = {k: [] for k in KEYS}
    for n in range(300):
        batch = KEYS[n % 3 :]
        values, ready = engine.step(batch, np.array([[frames[k][len(got[k])]] for k in batch], np.int64))
        assert ready.all()
        for key, y in zip(batch, values[:, 0].tolist(), strict=True):
            got[key].append(y)
    for key in KEYS:
        assert got[key] == reference(frames[key][: len(got[key])], wide)
    assert engine.spec.state_bytes == (1024 if wide else 8)


@pytest.mark.parametrize("wide", [False, True], ids=["narrow", "wide"])
def test_nothing_is_forgiven(wide: bool) -> None:
    """A frame lost, repeated or swapped with the next shows in that output and in each of the next hundred."""
    frames = [frame(b"k", n) for n in range(130)]
    right = reference(frames, wide)
    lost = reference(frames[:9] + frames[10:], wide)
    repeated = reference([*frames[:10], frames[9], *frames[10:]], wide)
    swapped = reference([*frames[:9], frames[10], frames[9], *frames[11:]], wide)
    assert all(a != b for a, b in zip(right[10:], lost[9:], strict=True))
    assert all(a != b for a, b in zip(right[10:], repeated[11:], strict=True))
    assert all(a != b for a, b in zip(right[9:], swapped[9:], strict=True))


def test_an_output_tells_its_state() -> None:
    """From an output and its frame back to the one state that gives it."""
    recurrence = Recurrence()
    for n in range(1000):
        before, x = recurrence.h, frame(b"k", n)
        assert state_before(recurrence.step(x), x) == before
