"""A slow, obvious engine: one stream at a time, one step at a time, node by node in NumPy. The oracle of the tests.

It computes in float64 (see `naive_ops`) and keeps state in float64 between steps, so what an engine that computes in
float32 is off by is that engine's own rounding: about 1e-7 of each operation, grown by the depth of the graph and the
length of the recurrence. `TOLERANCE` leaves that two orders of magnitude and is far below any wrong formula.
"""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from undertow.engine.artifact import Artifact, StateSpec, TensorSpec

from .naive_ops import OPS, widen

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
KEYWORDS = {"activations": "activations_"}


def run_node(node: onnx.NodeProto, inputs: list[np.ndarray | None]) -> list[np.ndarray]:
    """The outputs of one node."""
    attributes = {KEYWORDS.get(a.name, a.name): plain(helper.get_attribute_value(a)) for a in node.attribute}
    if node.op_type == "Constant":
        ((_, value),) = attributes.items()
        tensor = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)
        return [widen(tensor)]
    if node.op_type == "Split":
        attributes["outputs"] = len(node.output)
    with np.errstate(all="ignore"):
        result = OPS[node.op_type](*inputs, **attributes)
    return [widen(np.asarray(r)) for r in (result if isinstance(result, (list, tuple)) else [result])]


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return [plain(v) for v in value] if isinstance(value, list) else value


def run_graph(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the graph; feeds hold every input, batch axis included."""
    values: dict[str, Any] = {"": None}
    values |= {t.name: widen(numpy_helper.to_array(t)) for t in model.graph.initializer}
    values |= {name: widen(array) for name, array in feeds.items()}
    for node in model.graph.node:
        results = run_node(node, [values[name] for name in node.input])
        values |= {name: r for name, r in zip(node.output, results, strict=False) if name}
    return {v.name: values[v.name] for v in model.graph.output}


class NaiveStream:
    """One stream: its states, and the frames that wait for their step."""

    def __init__(self, artifact: Artifact):
        self.artifact, self.spec = artifact, artifact.spec
        self.states = {s.name: widen(s.initial_value()) for s in self.spec.states}
        self.waiting: list[dict[str, np.ndarray]] = []
        self.frames = 0
        self.rows = 0  # that came out of steps so far, those that were dropped included

    def copy(self) -> "NaiveStream":
        other = NaiveStream(self.artifact)
        other.states = {name: value.copy() for name, value in self.states.items()}
        other.waiting, other.frames, other.rows = list(self.waiting), self.frames, self.rows
        return other

    @property
    def skipped(self) -> int:
        """Rows at the start of a stream that answer to no frame."""
        return math.ceil(self.spec.delay * self.spec.outputs_per_step / self.spec.frames_per_step)

    def feed(self, frame: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The output rows that became ready with this frame."""
        self.frames += 1
        self.waiting.append(frame)
        return self.run_step() if len(self.waiting) == self.spec.frames_per_step else []

    def flush(self) -> list[dict[str, np.ndarray]]:
        """The rest of the rows, so that floor(T * M / K), or what `lengths` says, have come out in all."""
        spec = self.spec
        total = self.frames if spec.lengths else self.frames * spec.outputs_per_step // spec.frames_per_step
        for multiply, add, divide, least in spec.lengths:
            made = max((multiply * total + add) // divide, 0)
            if least and 0 in (total, made):
                total = 0
                break
            total = made
        rows: list[dict[str, np.ndarray]] = []
        while spec.valid_input is not None and self.rows - self.skipped < total:
            rows += self.run_step()
        surplus = max(self.rows - self.skipped - total, 0)
        return rows[: len(rows) - surplus] if surplus else rows

    def run_step(self) -> list[dict[str, np.ndarray]]:
        """Steps over the frames that wait, made up with zeros to frames_per_step."""
        spec = self.spec
        frames, self.waiting = self.waiting, []
        valid = len(frames)
        blank = {t.name: np.zeros(t.shape, t.dtype) for t in spec.inputs}
        frames = frames + [blank] * (spec.frames_per_step - valid)
        feeds = {name: value[None] for name, value in self.states.items()}
        for t in spec.inputs:
            feeds[t.name] = (
                np.stack([f[t.name] for f in frames])[None] if spec.frames_per_step > 1 else frames[0][t.name][None]
            )
        if spec.valid_input is not None:
            feeds[spec.valid_input] = np.array([valid], np.int64)
        results = run_graph(self.artifact.model, feeds)
        self.states = {s.name: self.checked(s, results[s.next][0]) for s in spec.states}
        rows = []
        for m in range(spec.outputs_per_step):
            self.rows += 1
            if self.rows > self.skipped:
                pick = (lambda a, m=m: a[0, m]) if spec.outputs_per_step > 1 else (lambda a: a[0])
                rows.append({t.name: self.checked(t, pick(results[t.name])) for t in spec.outputs})
        return rows

    @staticmethod
    def checked(spec: TensorSpec | StateSpec, value: np.ndarray) -> np.ndarray:
        kind = np.dtype(spec.dtype)
        assert value.shape == tuple(spec.shape), (spec.name, value.shape, spec.shape)
        assert value.dtype == (np.float64 if kind.kind == "f" else kind), (spec.name, value.dtype, spec.dtype)
        return np.array(value)


class NaiveEngine:
    """The part of the engine's API that has a meaning for the outputs. One input or output is a bare array."""

    def __init__(self, artifact: Artifact):
        self.artifact, self.spec = artifact, artifact.spec
        self.streams: dict[Hashable, NaiveStream] = {}

    def push(self, key: Hashable, chunk: Any) -> Any:
        """What became ready: (T', *out)."""
        stream = self.streams.setdefault(key, NaiveStream(self.artifact))
        rows = [row for frame in self.frames_of(chunk) for row in stream.feed(frame)]
        return self.outputs(rows)

    def close(self, key: Hashable) -> Any:
        """The tail. The stream is forgotten."""
        return self.outputs(self.streams.pop(key).flush())

    def drop(self, key: Hashable) -> None:
        del self.streams[key]

    def fork(self, source: Hashable, target: Hashable) -> None:
        self.streams[target] = self.streams[source].copy()

    def state(self, key: Hashable) -> dict[str, np.ndarray]:
        return self.streams[key].states

    def run(self, chunk: Any) -> Any:
        """A whole stream, from its first frame to its flush."""
        stream = NaiveStream(self.artifact)
        rows = [row for frame in self.frames_of(chunk) for row in stream.feed(frame)]
        return self.outputs(rows + stream.flush())

    def frames_of(self, chunk: Any) -> list[dict[str, np.ndarray]]:
        named = chunk if isinstance(chunk, dict) else {self.spec.inputs[0].name: chunk}
        named = {name: np.asarray(array) for name, array in named.items()}
        return [{name: array[t] for name, array in named.items()} for t in range(len(next(iter(named.values()))))]

    def outputs(self, rows: list[dict[str, np.ndarray]]) -> Any:
        result = {}
        for t in self.spec.outputs:
            kind = np.float64 if np.dtype(t.dtype).kind == "f" else t.dtype
            result[t.name] = np.array([row[t.name] for row in rows], kind).reshape(len(rows), *t.shape)
        return result if len(self.spec.outputs) > 1 else next(iter(result.values()))
