"""Tokens a second: `Engine.generate` against a loop over ONNX Runtime and one over torch, in turn in one run, each on as many threads.

Every side steps the same LSTM and samples the same way: with a temperature alone, and with top-k and top-p beside. The ONNX
Runtime loop steps the batch by one `InferenceSession.run` and samples the batch with NumPy; torch's does both with torch.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from pairing import heading, in_turn, spread

import undertow as ut
from undertow.engine.artifact import Artifact, read_artifact

MODELS = {
    "characters": (96, 1, 256),
    "characters, 128 wide": (96, 1, 128),
    "characters, 64 wide": (96, 1, 64),
    "characters, 32 wide": (96, 1, 32),
    "byte pairs": (1000, 2, 256),
}
WAYS: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 0.8},
    "top-k, top-p": {"temperature": 0.8, "top_k": 40, "top_p": 0.95},
}
SIDES = {"undertow": "undertow", "ort": "ONNX Runtime", "torch": "torch"}


class LanguageModel(torch.nn.Module):
    """Embedding, LSTM and logits, all of one width."""

    def __init__(self, tokens: int, layers: int, width: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(tokens, width)
        self.lstm = torch.nn.LSTM(width, width, layers, batch_first=True)
        self.head = torch.nn.Linear(width, tokens)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embedding(x))[0])

    def step(self, x: torch.Tensor, states: Any) -> tuple[torch.Tensor, Any]:
        y, states = self.lstm(self.embedding(x[:, None]), states)
        return self.head(y[:, 0]), states


def numpy_sample(
    logits: np.ndarray, random: np.random.Generator, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> np.ndarray:
    """A token of each row."""
    z = logits / np.float32(temperature)
    if top_k:
        least = np.partition(z, -top_k, axis=1)[:, -top_k, None]
        z = np.where(z < least, -np.inf, z)
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    if top_p < 1:
        ordered = np.sort(p, axis=1)[:, ::-1]
        last = np.argmax(np.cumsum(ordered, 1) >= top_p, axis=1)
        p = np.where(p < ordered[np.arange(len(p)), last, None], 0, p)
        p /= p.sum(1, keepdims=True)
    running = np.cumsum(p, 1)
    running[:, -1] = 1.0
    return (running <= random.random((len(p), 1))).sum(1)


def torch_sample(logits: torch.Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """A token of each row."""
    z = logits / temperature
    if top_k:
        z = z.masked_fill(z < z.topk(top_k, dim=1).values[:, -1:], -torch.inf)
    p = z.softmax(1)
    if top_p < 1:
        ordered = p.sort(dim=1, descending=True).values
        last = (ordered.cumsum(1) >= top_p).to(torch.int64).argmax(1, keepdim=True)
        p = p.masked_fill(p < ordered.gather(1, last), 0)
    return torch.multinomial(p, 1)[:, 0]


def ort_loop(
    session: ort.InferenceSession, artifact: Artifact, start: np.ndarray, steps: int, way: dict[str, Any]
) -> None:
    spec, random = artifact.spec, np.random.default_rng(0)
    token, x = start, spec.inputs[0].name
    states = {s.name: np.repeat(s.initial_value()[None], len(start), 0) for s in spec.states}
    wanted = [spec.outputs[0].name, *(s.next for s in spec.states)]
    for _ in range(steps):
        logits, *after = session.run(wanted, {x: token, **states})
        states = dict(zip(states, after, strict=True))
        token = numpy_sample(logits, random, **way)


@torch.no_grad()
def torch_loop(net: LanguageModel, start: torch.Tensor, steps: int, way: dict[str, Any]) -> None:
    token, states = start, None
    for _ in range(steps):
        logits, states = net.step(token, states)
        token = torch_sample(logits, **way)


def our_loop(engine: ut.Engine, start: np.ndarray, steps: int, way: dict[str, Any]) -> None:
    keys = list(range(len(start)))
    engine.generate(keys, start[:, None], steps, seed=1, **way)
    for key in keys:
        engine.drop(key)


def rate(call: Callable[[], None], tokens: int) -> float:
    """Tokens a second of a call that makes so many."""
    begin = time.perf_counter()
    call()
    return tokens / (time.perf_counter() - begin)


def exported(net: LanguageModel, tokens: int) -> Artifact:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ut.export(net, torch.randint(0, tokens, (1, 12)), path, time_axis=1)
        return read_artifact(path)


def compare(name: str, counts: list[int], rounds: int, steps: int, threads: int) -> None:
    """One model at each number of streams, sampled either way."""
    tokens, layers, width = MODELS[name]
    torch.manual_seed(0)
    net = LanguageModel(tokens, layers, width).eval()
    artifact = exported(net, tokens)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(artifact.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    engine = ut.Engine(artifact, backend="numba", max_streams=max(counts), threads=threads)
    for way, how in WAYS.items():
        for count in counts:
            length = max(256, steps // count)
            start = np.random.default_rng(1).integers(0, tokens, count)
            sides = {
                "undertow": partial(our_loop, engine, start, length, how),
                "ort": partial(ort_loop, session, artifact, start, length, how),
                "torch": partial(torch_loop, net, torch.from_numpy(start), length, how),
            }
            for side in sides.values():
                side()
            taken = in_turn({s: partial(rate, call, count * length) for s, call in sides.items()}, rounds)
            cells = [f"{SIDES[s]} {spread(r, 'tokens/s', 0, 9)}" for s, r in taken.items()]
            ratios = [
                f"x{statistics.median(a / b for a, b in zip(taken['undertow'], taken[s], strict=True)):.1f} {SIDES[s]}"
                for s in ("ort", "torch")
            ]
            print(
                f"{name} {layers} x {width}, {tokens} tokens, {way}, {count} streams: {'; '.join(cells)}; {', '.join(ratios)}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--streams", nargs="*", type=int, default=[1, 64, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--steps", type=int, default=4096, help="steps of one stream, shared out among many, at least 256 of each"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each side")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{heading('numba', 'numpy', 'onnxruntime', 'torch')}; threads: {given.threads}; median (range) of {given.rounds} rounds, the sides in turn; ratios are medians over rounds"
    )
    for name in given.models:
        compare(name, given.streams, given.rounds, given.steps, given.threads)


if __name__ == "__main__":
    main()
