"""A slow, obvious generation: one stream, one token at a time, sorted lists and float64. The oracle of generation's tests.

Two float roundings may part the oracle from the engine: where the random number falls within `margin` of the border between
two tokens, or a cut between two weights. Every token comes with its margin, so a test can tell such a tie from a mistake.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from undertow.engine.artifact import Artifact

from .naive import NaiveStream

RECENT = 64


@dataclass
class Call:
    """What one call of generate asks for."""

    max_steps: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[int, ...] = ()
    min_steps: int = 0


@dataclass
class Made:
    """What came of it."""

    tokens: list[Any] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    log_probability: float = 0.0
    finished: str = "length"


def stream_seed(seed: int, key: str | bytes | int) -> int:
    """The first eight bytes of BLAKE2b over the seed, a colon and the key, as Kafka would have it."""
    named = key if isinstance(key, bytes) else str(key).encode()
    digest = hashlib.blake2b(str(seed).encode() + b":" + named, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def uniform(seed: int, n: int) -> float:
    """Number n of SplitMix64, over 2**53."""
    mask = 2**64 - 1
    z = (seed + (n + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**53


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


def pick(logits: np.ndarray, recent: list[int], call: Call, barred: bool, u: float) -> tuple[int, float]:
    """The token, and how far the nearest border is, as a share of the probability."""
    x = logits.astype(np.float64).copy()
    for token in set(recent):
        if token < len(x):
            x[token] = x[token] / call.repetition_penalty if x[token] > 0 else x[token] * call.repetition_penalty
    if barred:
        x[list(call.stop)] = -np.inf
    if call.temperature == 0:
        order = np.argsort(-x, kind="stable")
        return int(order[0]), float(x[order[0]] - x[order[1]])
    p, margin = softmax(x / call.temperature), 1.0
    order = np.argsort(-p, kind="stable")
    if 0 < call.top_k < len(x):
        least = p[order[call.top_k - 1]]
        margin = min(margin, least - p[order[call.top_k]])
        p = np.where(p >= least, p, 0.0)
        p /= p.sum()
    if call.top_p < 1:
        running = np.cumsum(p[order])
        last = int(np.argmax(running >= call.top_p))
        margin = min(margin, np.abs(running - call.top_p).min())
        p = np.where(p >= p[order[last]], p, 0.0)
        p /= p.sum()
    running = np.cumsum(p)
    margin = min(margin, np.abs(running - u).min())
    return int(np.argmax(running > u)), float(margin)


class NaiveGenerator:
    """One stream that generates."""

    def __init__(self, artifact: Artifact, key: str | bytes | int):
        self.stream, self.key = NaiveStream(artifact), key
        self.inputs = [t.name for t in artifact.spec.inputs]
        self.outputs = [t.name for t in artifact.spec.outputs]
        self.recent: list[list[int]] = [[] for _ in self.inputs]
        self.pending: list[int] | None = None
        self.count = 0

    def copy(self) -> "NaiveGenerator":
        other = NaiveGenerator(self.stream.artifact, self.key)
        other.stream, other.recent = self.stream.copy(), [list(r) for r in self.recent]
        other.pending, other.count = self.pending, self.count
        return other

    def step(self, tokens: list[int]) -> list[np.ndarray]:
        """The logits of each voice after one token of each."""
        frame = {t.name: np.array(x, t.dtype) for t, x in zip(self.stream.spec.inputs, tokens, strict=True)}
        row = self.stream.feed(frame)[0]
        return [row[name] for name in self.outputs]

    def read(self, prompt: list[Any]) -> list[np.ndarray]:
        """The logits after the token that was sampled last and the prompt."""
        logits: list[np.ndarray] = []
        if self.pending is not None:
            logits = self.step(self.pending)
        for given in prompt:
            tokens = list(np.atleast_1d(given))
            for ring, token in zip(self.recent, tokens, strict=True):
                ring.append(int(token))
            logits = self.step(tokens)
        return logits

    def take(self, tokens: list[int]) -> None:
        """These tokens were chosen."""
        for ring, token in zip(self.recent, tokens, strict=True):
            ring.append(token)
        self.pending, self.count = tokens, self.count + 1

    def generate(self, prompt: list[Any], call: Call, seed: int) -> Made:
        made, own, voices = Made(), stream_seed(seed, self.key), len(self.inputs)
        logits = self.read(prompt)
        for n in range(call.max_steps):
            chosen = []
            for v, x in enumerate(logits):
                u = uniform(own, self.count * voices + v)
                token, margin = pick(x, self.recent[v][-RECENT:], call, n < call.min_steps, u)
                made.log_probability += float(np.log(softmax(x)[token]))
                made.margins.append(margin)
                chosen.append(token)
            made.tokens.append(chosen if voices > 1 else chosen[0])
            self.take(chosen)
            if any(token in call.stop for token in chosen):
                made.finished = "stop"
                break
            if n + 1 < call.max_steps:
                logits = self.step(chosen)
        return made


def penalty(length: int, alpha: float) -> float:
    """Wu et al. 2016, equation 14."""
    return ((5 + length) / 6) ** alpha


def beam_search(start: NaiveGenerator, prompt: list[int], call: Call, width: int, alpha: float) -> list[Made]:
    """The best `width` hypotheses, the best first. The search never ends before max_steps: nothing can have been missed."""
    found: list[tuple[float, Made]] = []
    origin = start.copy()
    live = [(0.0, origin, [], origin.read(prompt)[0])]
    for n in range(call.max_steps):
        candidates = []
        for b, (score, _, _, logits) in enumerate(live):
            logs = np.log(softmax(logits))
            for token, log_probability in enumerate(logs):
                if n >= call.min_steps or token not in call.stop:
                    candidates.append((score + log_probability, b, token))
        candidates.sort(key=lambda c: (-c[0], c[1], c[2]))
        following = []
        for rank, (score, b, token) in enumerate(candidates):
            tokens = [*live[b][2], token]
            if token in call.stop:
                if rank < width:
                    found.append(
                        (score / penalty(len(tokens), alpha), Made(tokens, log_probability=score, finished="stop"))
                    )
            elif len(following) < width:
                stream = live[b][1].copy()
                stream.take([token])
                following.append((score, stream, tokens))
        if n + 1 == call.max_steps:
            found += [(s / penalty(len(t), alpha), Made(t, log_probability=s)) for s, _, t in following]
            break
        live = [(score, stream, tokens, stream.step([tokens[-1]])[0]) for score, stream, tokens in following]
    found.sort(key=lambda f: -f[0])
    return [made for _, made in found[:width]]


def same_until_a_tie(got: Any, made: Made, close: float = 1e-5) -> bool:
    """Whether tokens are the oracle's up to the first one that rounding may have decided; says if that is all of them."""
    voices = len(made.margins) // max(1, len(made.tokens))
    for t, (a, b) in enumerate(zip(np.asarray(got).tolist(), made.tokens, strict=False)):
        if a != b:
            nearest = min(made.margins[t * voices : (t + 1) * voices])
            assert nearest < close, f"token {t} is {a}, the oracle has {b}, {nearest:.2g} from a border"
            return False
    assert len(got) == len(made.tokens), f"{len(got)} tokens, the oracle has {len(made.tokens)}"
    return True
