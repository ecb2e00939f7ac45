"""Programs give the same bits on every processor with fused multiply-add."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from undertow.engine import Engine
from undertow.engine.artifact import read_artifact, write_artifact

from .step_graph import StepGraph

AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,-avx512f"}
STEP = """
import sys
import numpy as np
import undertow.engine.processor as processor

if len(sys.argv) > 4:
    processor.processor = lambda: sys.argv[4]
from undertow.engine import Engine
from undertow.engine.gemm import ROWS

engine, chunk = Engine(sys.argv[1], backend="numba", max_streams=16), np.load(sys.argv[2])
outputs = engine.push_many({i: chunk[:, i] for i in range(chunk.shape[1])})
np.save(sys.argv[3], np.stack([outputs[i] for i in range(chunk.shape[1])], 1))
print(ROWS)
"""


@pytest.mark.parametrize(
    ("environment", "told", "rows"),
    [(AVX2, [], 6), ({}, ["+avx512f"], 8), ({}, ["+neon"], 4)],
    ids=["vectors of AVX2", "tiles of AVX-512", "tiles of others"],
)
def test_the_same_bits_on_other_processors(
    environment: dict[str, str], told: list[str], rows: int, tmp_path: Path
) -> None:
    """LSTM, GRU, a product, softmax and norm give what the host's program gives, bit for bit: compiled for eight lanes, and
    in the tiles of any processor."""
    g = StepGraph(seed=5)
    x, size = g.input("x", (11,)), 11
    for i, (kind, letters, more) in enumerate(
        (("LSTM", "hc", {}), ("GRU", "h", {"linear_before_reset": 1}), ("GRU", "h", {}))
    ):
        states = [g.state(f"{letter}{i}", (21,)) for letter in letters]
        after = g.recurrent(kind, x, size, 21, states, **more)
        for state, value in zip(states, after, strict=True):
            g.next(state, value)
        x, size = after[0], 21
    normed = g.op("LayerNormalization", x, g.noise(21), g.noise(21), axis=-1)
    g.output("y", g.op("Softmax", g.linear(normed, 21, 37), axis=-1), (37,))
    artifact = g.artifact()
    write_artifact(tmp_path / "m.onnx", artifact.model, artifact.spec)
    chunk = (
        np.random.default_rng(3).normal(size=(9, 15, 11)).astype(np.float32)
    )  # whole tiles, small ones and single rows
    np.save(tmp_path / "chunk.npy", chunk)
    command = [
        sys.executable,
        "-c",
        STEP,
        *(str(tmp_path / name) for name in ("m.onnx", "chunk.npy", "out.npy")),
        *told,
    ]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(rows)), done.stderr
    outputs = Engine(read_artifact(tmp_path / "m.onnx"), backend="numba").push_many({i: chunk[:, i] for i in range(15)})
    ours = np.stack([outputs[i] for i in range(15)], 1)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy").view(np.int32), ours.view(np.int32))
