"""Cold start: from the start of a process to its first output, with an empty and with a warm cache of compiled programs.

Each measurement is a process of its own that imports undertow, makes an engine and steps one frame of one stream; the
clock stops when its first output is read here. Files are in the operating system's cache, as after a restart of a service.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pairing import heading, in_turn, spread

from undertow.demo import excerpt
from undertow.engine.artifact import write_artifact

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.step_graph import lstm_step

EMPTY_ROUNDS, WARM_ROUNDS = 3, 9
EMPTY_TARGET_S, WARM_TARGET_S = 10.0, 1.5
BACKENDS = ("numba", "auto")
PROGRAM = """
import sys
import numpy as np
import undertow
engine = undertow.Engine(sys.argv[1], backend=sys.argv[2])
print(engine.stream("one").step(np.zeros(engine.spec.inputs[0].shape, np.float32)).shape, flush=True)
"""


def models(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and files of the models."""
    for width, hidden in ((16, 32), (40, 128)):
        path, artifact = folder / f"lstm-{width}-{hidden}.onnx", lstm_step(width, hidden)
        write_artifact(path, artifact.model, artifact.spec)
        yield f"LSTM {width}->{hidden}", path
    yield "GRU activity", excerpt() / "activity.onnx"


def first_output_s(model: Path, backend: str, cache: Path) -> float:
    """Seconds from the start of a process to its first output."""
    environment = os.environ | {"UNDERTOW_CACHE_DIR": str(cache)}
    begin = time.perf_counter()
    command = [sys.executable, "-c", PROGRAM, str(model), backend]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        taken = time.perf_counter() - begin
    if process.returncode or not line:
        raise SystemExit(f"{model.name} on backend {backend}: exit {process.returncode}, first line {line!r}")
    return taken


def with_empty_cache(model: Path, backend: str) -> float:
    with tempfile.TemporaryDirectory() as cache:
        return first_output_s(model, backend, Path(cache))


def report(what: str, target_s: float, taken: dict[str, list[float]]) -> None:
    """A line for each backend; how many rounds were above the target."""
    for backend, values in taken.items():
        above = sum(value > target_s for value in values)
        late = f", {above} of {len(values)} above it" if above else ""
        print(f"{what:13} {backend:6} {spread(values, 's', width=5)}   target {target_s:g} s{late}", flush=True)


def main() -> None:
    print(f"{heading('numba', 'numpy', 'onnx', 'onnxruntime')}; median (range)")
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models(Path(folder)):
            cache = Path(folder) / "cache"
            for backend in BACKENDS:
                first_output_s(model, backend, cache)
            empty = {b: partial(with_empty_cache, model, b) for b in BACKENDS}
            warm = {b: partial(first_output_s, model, b, cache) for b in BACKENDS}
            print(f"{name}, {EMPTY_ROUNDS} and {WARM_ROUNDS} rounds")
            report("  empty cache", EMPTY_TARGET_S, in_turn(empty, EMPTY_ROUNDS))
            report("  warm cache", WARM_TARGET_S, in_turn(warm, WARM_ROUNDS))


if __name__ == "__main__":
    main()
