"""Bytes that a resident stream costs the engine: its state, its header, its share of the index and of its key.

Each figure comes from processes of their own. The caller makes str keys, hands them over in batches and lets go of
them, so a key is the engine's once its stream is resident. `resident` is the growth of the process's resident memory
from before the engine is made, `traced` the growth of what Python and NumPy allocated (the state itself lies in mapped
memory, which only `resident` counts). The model, its compiled program and the scratch of a batch are there before.
"""

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
from pairing import heading, spread

from undertow.demo import excerpt
from undertow.engine import Engine
from undertow.engine.artifact import Artifact, read_artifact

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.step_graph import lstm_step

STREAMS, BATCH, ROUNDS = 200_000, 1_000, 3
MODELS = ("LSTM 16->32", "LSTM 40->128", "GRU activity")


def artifact_of(model: str) -> Artifact:
    if model == "GRU activity":
        return read_artifact(excerpt() / "activity.onnx")
    return lstm_step(*map(int, model.removeprefix("LSTM ").split("->")))


def limit(state_bytes: int) -> float:
    """The most that a stream may cost."""
    return 1.1 * state_bytes + 128


def resident_bytes() -> int:
    """Of this process, now: the second field of /proc/self/statm, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(engine: Engine, streams: int) -> None:
    """Opens and steps so many streams, in batches, under str keys that nobody else keeps."""
    frames = np.zeros((BATCH, *engine.spec.inputs[0].shape), np.float32)
    for begin in range(0, streams, BATCH):
        engine.step([f"stream-{i}" for i in range(begin, begin + BATCH)], frames)


def growth(artifact: Artifact, traced: bool) -> float:
    """Bytes for each of STREAMS streams, in this process."""
    before_it = Engine(artifact, backend="numba", max_streams=BATCH)
    fill(before_it, BATCH)
    gc.collect()
    if traced:
        tracemalloc.start()
    measure = (lambda: tracemalloc.get_traced_memory()[0]) if traced else resident_bytes
    before = measure()
    engine = Engine(artifact, backend="numba", max_streams=STREAMS)
    fill(engine, STREAMS)
    gc.collect()
    after = measure()
    assert len(engine) == STREAMS
    assert len(before_it) == BATCH
    return (after - before) / STREAMS


def measured(model: str, how: str) -> float:
    """The growth in a process of its own; how: "resident" or "traced"."""
    done = subprocess.run([sys.executable, __file__, model, how], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model}, {how}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    print(heading("numba", "numpy"))
    print(f"{STREAMS:,} streams; bytes per stream, median (range) of {ROUNDS} processes")
    for model in MODELS:
        state = artifact_of(model).spec.state_bytes
        resident, traced = ([measured(model, how) for _ in range(ROUNDS)] for how in ("resident", "traced"))
        above = "" if max(resident) <= limit(state) else "   above the limit"
        print(
            f"{model:13} state {state:5} B   resident {spread(resident, 'B', 1, 7)}   traced {spread(traced, 'B', 1, 6)}   "
            f"limit 1.1 x state + 128 = {limit(state):.1f} B{above}",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(growth(artifact_of(sys.argv[1]), sys.argv[2] == "traced")))
    else:
        main()
