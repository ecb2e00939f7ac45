"""Small ONNX graphs in ONNX's own text, and the engine run over them as it is used."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser

import undertow as ut


def model(signature: str, body: str, opset: int = 17) -> onnx.ModelProto:
    """signature: `(float[B,4] x) => (float[B,4] y)`; body: the nodes."""
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {signature} {{ {body} }}')


def saved(path: Path, signature: str, body: str, opset: int = 17) -> Path:
    onnx.save(model(signature, body, opset), path)
    return path


LEAKY = """
    half = Constant<value = float {0.5}>()
    old = Mul(half, h)
    h_next = Add(old, x)
    y = Tanh(h_next)
"""


def leaky(path: Path, old: str = "h", new: str = "h_next", shape: str = "B,4") -> Path:
    """h' = h / 2 + x, y = tanh(h'); the state's two names are given."""
    body = LEAKY.replace("h_next", "NEW").replace("half, h)", f"half, {old})").replace("NEW", new)
    return saved(path, f"(float[{shape}] x, float[{shape}] {old}) => (float[{shape}] y, float[{shape}] {new})", body)


def naive_leaky(x: np.ndarray, h: Any = 0.0) -> np.ndarray:
    """x (T, 4) -> (T, 4), a stream's frames one after the other."""
    ys = []
    for frame in x:
        h = np.float32(0.5) * h + frame
        ys.append(np.tanh(h))
    return np.stack(ys).astype(np.float32)


def pushed(path: Path, sequences: list[np.ndarray], backend: str = "ort") -> list[np.ndarray]:
    """What an engine gives for the sequences as concurrent streams, in uneven chunks."""
    engine = ut.Engine(path, backend=backend, max_streams=8)
    parts: list[list[np.ndarray]] = [[] for _ in sequences]
    cuts = [0, 1, 4, 5, 11, 700, 1300, 10**6]
    for a, b in itertools.pairwise(cuts):
        for key, out in engine.push_many({i: s[a:b] for i, s in enumerate(sequences) if len(s) > a}).items():
            parts[key].append(out)
    for key in range(len(sequences)):
        parts[key].append(engine.close(key))
    return [np.concatenate(p) for p in parts]


def noise(*shapes: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 1, shape).astype(np.float32) for shape in shapes]
