"""What one call of `generate` asks for, checked; and what comes of each stream."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .index import Key
from .voices import Voices

Stop = Iterable[int] | Mapping[str, Iterable[int]]
Seed = int | Mapping[Any, int] | None
MOST_BEAMS = 32


@dataclass(frozen=True, slots=True)
class Generation:
    """What a stream generated.

    tokens: int64 (T,), or (T, N) of a model with N inputs, a stop token included. log_probability: of those tokens under the
    model's own distribution, whatever they were sampled by. finished: "stop" at a stop token, "length" after max_steps.
    n_best: of a beam search the hypotheses, the best first; this one is the first of them.
    """

    tokens: np.ndarray
    log_probability: float
    finished: str
    n_best: tuple["Generation", ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """The keywords of `Engine.generate`; stops: of each voice its stop tokens."""

    max_steps: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_steps: int = 0
    stops: tuple[np.ndarray, ...] = ()
    beam: int = 1
    length_penalty: float = 0.6
    n_best: int = 1

    def check(self, voices: Voices) -> None:
        """Raises ValueError where a number is out of its range, or the model has not what is asked for."""
        whole = {"max_steps": (self.max_steps, 1), "min_steps": (self.min_steps, 0), "top_k": (self.top_k, 0)}
        whole |= {"beam": (self.beam, 1), "n_best": (self.n_best, 1)}
        for name, (value, least) in whole.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least {least}")
        ranges = {
            "temperature": (self.temperature, 0.0 <= self.temperature < math.inf, "a number of at least 0"),
            "top_p": (self.top_p, 0.0 < self.top_p <= 1.0, "a share above 0, at most 1"),
            "repetition_penalty": (
                self.repetition_penalty,
                0 < self.repetition_penalty < math.inf,
                "a positive number",
            ),
            "length_penalty": (self.length_penalty, 0.0 <= self.length_penalty < math.inf, "a number of at least 0"),
        }
        for name, (value, fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"{name} is {value!r}, expected {expected}")
        for stop, size in zip(self.stops, voices.sizes, strict=True):
            bad = stop[(stop < 0) | (stop >= size)]
            if len(bad) or len(stop) >= size:
                raise ValueError(
                    f"stop has {int(bad[0]) if len(bad) else len(stop)}, expected some of the tokens 0 to {size - 1}"
                )
        self._check_beam(voices)

    def _check_beam(self, voices: Voices) -> None:
        if self.beam == 1:
            if self.n_best > 1:
                raise ValueError(f"n_best is {self.n_best}, expected 1 without a beam")
            return
        sampled = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0}
        for name, plain in sampled.items():
            if getattr(self, name) != plain:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} with beam={self.beam}: a beam search does not sample; leave it out"
                )
        if self.beam > MOST_BEAMS or self.n_best > self.beam:
            raise ValueError(f"beam is {self.beam} and n_best {self.n_best}, expected n_best <= beam <= {MOST_BEAMS}")
        if len(voices) > 1:
            raise ValueError(f"beam is {self.beam}, a model with {len(voices)} inputs is sampled only; use beam=1")

    @property
    def settings(self) -> np.ndarray:
        """In the order that `settle` reads them."""
        numbers = (self.temperature, self.top_p, self.repetition_penalty, self.top_k, self.max_steps, self.min_steps)
        return np.array(numbers, np.float64)


def stops_of(given: Stop, voices: Voices) -> tuple[np.ndarray, ...]:
    """Distinct stop tokens of each voice: `given` for all, or by the input's name. Raises ValueError."""
    if isinstance(given, Mapping):
        unknown = [name for name in given if name not in voices.names]
        if unknown:
            raise ValueError(f"stop has {unknown[0]!r}, the model's inputs are {list(voices.names)}")
        by_name: dict[Any, Iterable[int]] = dict(given)
        each = [list(by_name.get(name, ())) for name in voices.names]
    else:
        each = [list(given)] * len(voices)
    if any(isinstance(t, bool) or not isinstance(t, int | np.integer) for tokens in each for t in tokens):
        raise ValueError(f"stop is {given!r}, expected whole numbers: token ids")
    return tuple(np.unique(np.array(tokens, np.int64)) for tokens in each)


def stream_seed(seed: int, key: Key) -> int:
    """A stream's own seed, int64: eight bytes of BLAKE2b over the seed and the key as bytes: text as UTF-8, a number as its digits.

    So it is the same stream to it whether a key came from Kafka, where it is bytes, or from a file, where it is text.
    """
    named = key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(b"%d:%b" % (seed, named), digest_size=8).digest(), "little", signed=True)
