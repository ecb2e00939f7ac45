"""Programs give the same bits on every processor with fused multiply-add."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from undertow.engine import Engine
from undertow.engine.artifact import read_artifact, write_artifact

from .step_graph import StepGraph

AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,-avx512f"}
STEP = """
import sys
import numpy as np
from undertow.engine import Engine
from undertow.engine.gemm import GATE_ROWS

engine, chunk = Engine(sys.argv[1], backend="numba", max_streams=16), np.load(sys.argv[2])
outputs = engine.push_many({i: chunk[:, i] for i in range(chunk.shape[1])})
np.save(sys.argv[3], np.stack([outputs[i] for i in range(chunk.shape[1])], 1))
print(GATE_ROWS)
"""


def test_the_same_bits_with_other_vectors(tmp_path: Path) -> None:
    """LSTM, GRU, a product, softmax and norm, compiled for eight lanes, give what the host's program gives, bit for bit."""
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
    chunk = np.random.default_rng(3).normal(size=(9, 7, 11)).astype(np.float32)
    np.save(tmp_path / "chunk.npy", chunk)
    command = [sys.executable, "-c", STEP, *(str(tmp_path / name) for name in ("m.onnx", "chunk.npy", "out.npy"))]
    done = subprocess.run(command, env=os.environ | AVX2, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
    outputs = Engine(read_artifact(tmp_path / "m.onnx"), backend="numba").push_many({i: chunk[:, i] for i in range(7)})
    ours = np.stack([outputs[i] for i in range(7)], 1)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy").view(np.int32), ours.view(np.int32))
