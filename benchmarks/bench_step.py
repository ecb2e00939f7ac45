"""Steps against ONNX Runtime on the same step graph, in turn in one run: one stream, and batches by key.

`bare` is InferenceSession.run on tensors that lie ready; `dict` keeps a dict of per-stream states (np.stack, run, split).
"""

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
from pairing import heading, in_turn, microseconds, spread

from undertow.engine import Engine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.step_graph import gru_step, lstm_step

ROUNDS, CALLS = 9, 200


def paired(what: str, sides: dict[str, Callable[[], object]], calls: int) -> None:
    """Prints each side's median and range over rounds in which the sides take turns."""
    taken = in_turn({name: partial(microseconds, call, calls) for name, call in sides.items()}, ROUNDS)
    ours = statistics.median(taken["undertow"])
    cells = [f"{n} {spread(t, 'us', width=9)} x{statistics.median(t) / ours:.1f}" for n, t in taken.items()]
    print(f"{what:24} {'   '.join(cells)}", flush=True)


def session(artifact) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(artifact.model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def compare(what: str, artifact, bare: ort.InferenceSession, engine: Engine, count: int) -> None:
    """One model at one batch size."""
    spec, rng = artifact.spec, np.random.default_rng(0)
    frames = rng.standard_normal((count, *spec.inputs[0].shape)).astype(np.float32)
    keys = [f"stream-{i}" for i in range(count)]
    states = {k: [s.initial_value() for s in spec.states] for k in keys}
    feed = {spec.inputs[0].name: frames, **{s.name: np.stack([s.initial_value()] * count) for s in spec.states}}
    wanted = list(dict.fromkeys([spec.outputs[0].name, *(s.next for s in spec.states)]))
    after = [wanted.index(s.next) for s in spec.states]

    def by_dict() -> np.ndarray:
        columns = zip(*(states[k] for k in keys), strict=True)
        stacked = {s.name: np.stack(column) for s, column in zip(spec.states, columns, strict=True)}
        results = bare.run(wanted, {spec.inputs[0].name: frames, **stacked})
        for i, k in enumerate(keys):
            states[k] = [results[a][i] for a in after]
        return results[0]

    if count == 1:
        stream, frame = engine.stream("one"), frames[0]
        sides: dict[str, Callable[[], object]] = {"undertow": lambda: stream.step(frame)}
    else:
        sides = {"undertow": lambda: engine.step(keys, frames), "dict": by_dict}
    paired(what, {**sides, "bare": lambda: bare.run(wanted, feed)}, max(20, CALLS // count * 10))


def main() -> None:
    print(
        f"{heading('numba', 'numpy', 'onnxruntime')}; one thread; median (range) of {ROUNDS} rounds, the sides in turn"
    )
    for kind, build in (("LSTM", lstm_step), ("GRU", gru_step)):
        for width, hidden in ((16, 32), (40, 128)):
            artifact = build(width, hidden)
            bare, engine = session(artifact), Engine(artifact, backend="numba", max_streams=2048)
            for count in (1, 64, 256, 1024):
                compare(f"{kind} {width}->{hidden} B={count}", artifact, bare, engine, count)


if __name__ == "__main__":
    main()
