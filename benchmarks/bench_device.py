"""Steps a second on a CUDA device: states that stay there, states copied there and back, and ONNX Runtime alone.

`bare` is the step graph's own session with I/O binding: its states lie on the device in the order of the batch, two sets that
take turns; it looks up no stream. In all three the frames come from the processor's memory and the outputs go back to it.
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime as ort
from pairing import heading, in_turn, spread

from undertow.engine import Engine, ort_session
from undertow.engine.artifact import Artifact

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.step_graph import gru_step, lstm_step

CUDA = "CUDAExecutionProvider"
BATCHES = (64, 256, 1024, 4096, 16384, 65536)
ROUNDS, SECONDS_A_TURN = 7, 0.2


def engine_of(artifact: Artifact, provider: str, most: int, devices: dict[str, str]) -> Engine:
    """An engine for which these providers have devices that keep states."""
    with patch.dict(ort_session.DEVICES, devices, clear=True):
        return Engine(artifact, backend="ort", providers=[provider], max_streams=most, max_batch=most)


def bare_steps(artifact: Artifact, provider: str, device: str, frames: np.ndarray) -> Callable[[], object]:
    """One step of all states from one set of arrays on the device into the other, which change places."""
    spec, count = artifact.spec, len(frames)
    session = ort_session.open_session(artifact.model, artifact.name, 1, [provider])
    start = {s.name: np.repeat(s.initial_value()[None], count, axis=0) for s in spec.states}
    sets = [{n: ort.OrtValue.ortvalue_from_numpy(a, device, 0) for n, a in start.items()} for _ in range(2)]
    out = np.empty((count, *spec.outputs[0].shape), np.float32)
    bindings = []
    for before, after in (sets, sets[::-1]):
        binding = session.io_binding()
        for s in spec.states:
            binding.bind_ortvalue_input(s.name, before[s.name])
            binding.bind_ortvalue_output(s.next, after[s.name])
        binding.bind_output(spec.outputs[0].name, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
        bindings.append(binding)

    def step() -> np.ndarray:  # holds `out`, whose address alone the bindings have
        bindings[0].bind_cpu_input(spec.inputs[0].name, frames)
        session.run_with_iobinding(bindings[0])
        bindings.reverse()
        return out

    return step


def steps_per_second(step: Callable[[], object], count: int) -> float:
    """Streams stepped a second, over a turn that is at least SECONDS_A_TURN long."""
    calls, begin = 0, time.perf_counter()
    while (taken := time.perf_counter() - begin) < SECONDS_A_TURN or not calls:
        step()
        calls += 1
    return calls * count / taken


def compare(what: str, artifact: Artifact, provider: str, device: str, batches: tuple[int, ...]) -> None:
    """One model at every batch size; the sides take turns."""
    kept = engine_of(artifact, provider, max(batches), {provider: device})
    copied = engine_of(artifact, provider, max(batches), {})
    for count in batches:
        frames = np.random.default_rng(0).standard_normal((count, *artifact.spec.inputs[0].shape)).astype(np.float32)
        keys = [f"stream-{i}" for i in range(count)]
        steps: dict[str, Callable[[], object]] = {
            "kept": partial(kept.step, keys, frames),
            "copied": partial(copied.step, keys, frames),
            "bare": bare_steps(artifact, provider, device, frames),
        }
        for step in steps.values():
            step()
        taken = in_turn({name: partial(steps_per_second, step, count) for name, step in steps.items()}, ROUNDS)
        cells = [f"{name} {spread([t / 1e6 for t in each], 'M/s', 3)}" for name, each in taken.items()]
        print(f"{what} B={count:<6} {'   '.join(cells)}", flush=True)


def main() -> None:
    if CUDA not in ort.get_available_providers():
        print(f"no CUDA device: this ONNX Runtime {ort.__version__} has {', '.join(ort.get_available_providers())}")
        return
    print(
        f"{heading()}, onnxruntime {ort.__version__}; million steps a second, median (lowest..highest) of {ROUNDS} rounds"
    )
    for kind, build in (("LSTM", lstm_step), ("GRU", gru_step)):
        compare(f"{kind} 40->128", build(40, 128, outputs=16), CUDA, "cuda", BATCHES)


if __name__ == "__main__":
    main()
