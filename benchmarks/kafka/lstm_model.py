"""The model of the Kafka benchmarks, and what it answers one stream at a time: the reference that sides are held to.

A frame is 80 float32 (320 bytes). A linear layer takes it to the 40 values that the LSTM reads; the answer is the LSTM's
hidden state, 128 float32 (512 bytes). The state of a stream is h and c, 1 KiB.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

FRAME, READ, HIDDEN = 80, 40, 128
FRAME_BYTES, ANSWER_BYTES, STATE_BYTES = 4 * FRAME, 4 * HIDDEN, 8 * HIDDEN
WORDS = f"frame {FRAME} float32 ({FRAME_BYTES} bytes) -> linear {FRAME}->{READ} -> LSTM {READ}->{HIDDEN} -> {HIDDEN} float32 ({ANSWER_BYTES} bytes), state {STATE_BYTES} bytes"


def write_model(path: Path) -> None:
    """The step artifact: x, h, c -> y, h's and c's next values."""
    from tests.step_graph import StepGraph
    from undertow.engine.artifact import write_artifact

    g = StepGraph(seed=5)
    x = g.input("x", (FRAME,))
    states = [g.state("h", (HIDDEN,)), g.state("c", (HIDDEN,))]
    after = g.recurrent("LSTM", g.linear(x, FRAME, READ), READ, HIDDEN, states)
    for state, value in zip(states, after, strict=True):
        g.next(state, value)
    g.output("y", after[0], (HIDDEN,))
    write_artifact(path, g.model(), g.spec())


@cache
def session(path: Path) -> ort.InferenceSession:
    """As a stream processor's user would make it: one thread, as there is one record at a time."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Reference:
    """What the model answers to a stream's frames, by ONNX Runtime alone."""

    def __init__(self, path: Path):
        self.session = session(path)
        self.h, self.c = next_names(self.session)

    def answers(self, frames: np.ndarray) -> np.ndarray:
        """frames (T, 80) -> (T, 128)."""
        h = c = np.zeros((1, HIDDEN), np.float32)
        out = np.empty((len(frames), HIDDEN), np.float32)
        for t, frame in enumerate(frames):
            y, h, c = self.session.run(["y", self.h, self.c], {"x": frame[None], "h": h, "c": c})
            out[t] = y[0]
        return out


def next_names(found: ort.InferenceSession) -> tuple[str, str]:
    """The outputs that are the next h and c: those besides y, in the graph's order."""
    h, c = (o.name for o in found.get_outputs() if o.name != "y")
    return h, c
