"""Translation by the engine: every sentence a stream, read by the encoder, then generated from; many at once."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from search import Found

import undertow as ut


@dataclass(frozen=True, slots=True)
class Asked:
    """How sentences are translated. beam: hypotheses, 2 or more. length_penalty: Wu et al.'s power."""

    start: int
    stop: int
    max_steps: int
    beam: int
    length_penalty: float


def translations(engine: ut.Engine, sources: Sequence[Sequence[int]], asked: Asked, together: int) -> list[Found]:
    """Every source's, so many streams at a time."""
    found: list[Found] = []
    for keys in read(engine, sources, together):
        made = engine.generate(
            keys,
            [[asked.start]] * len(keys),
            asked.max_steps,
            stop=[asked.stop],
            beam=asked.beam,
            length_penalty=asked.length_penalty,
        )
        found += [Found(made[key].tokens.tolist(), made[key].log_probability) for key in keys]
    return found


def greedy(
    engine: ut.Engine, sources: Sequence[Sequence[int]], asked: Asked, together: int
) -> tuple[list[list[int]], list[tuple[int, float]]]:
    """Every source's likeliest pieces, one after the other, as they come; and of each step how many streams made it, in how many seconds."""
    found: list[list[int]] = []
    steps: list[tuple[int, float]] = []
    for keys in read(engine, sources, together):
        said: dict[str, list[int]] = {key: [] for key in keys}
        begin = time.perf_counter()
        for some in engine.generating(
            keys, [[asked.start]] * len(keys), asked.max_steps, temperature=0.0, stop=[asked.stop]
        ):
            steps.append((len(some), time.perf_counter() - begin))
            for key, tokens in some.items():
                said[key] += tokens.tolist()
            begin = time.perf_counter()
        found += said.values()
    return found, steps


def read(engine: ut.Engine, sources: Sequence[Sequence[int]], together: int) -> Iterator[list[str]]:
    """The keys of streams that have read their sources, so many at a time; they are dropped when the next ones are asked for."""
    for first in range(0, len(sources), together):
        given = {f"sentence {first + i}": np.array(s) for i, s in enumerate(sources[first : first + together])}
        engine.read_many(given)
        yield list(given)
        for key in given:
            engine.drop(key)


def attention(engine: ut.Engine, source: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
    """Where the decoder looks (U, S) after each of tokens (U,), which it is given, as it translates source (S,)."""
    engine.read("looked at", np.array(source))
    given = engine.push("looked at", np.array(tokens))
    engine.drop("looked at")
    return given["attention"][:, : len(source)]


def agreement(ours: Sequence[Found], theirs: Sequence[Found]) -> dict[str, Any]:
    """How many came out piece for piece the same, how far the log-probabilities of those are apart at most, and which did not."""
    same = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a.tokens == b.tokens]
    apart = max((abs(ours[i].log_probability - theirs[i].log_probability) for i in same), default=0.0)
    return {
        "compared": len(ours),
        "same": len(same),
        "worst_log_probability_difference": float(f"{apart:.2g}"),
        "different": sorted(set(range(len(ours))) - set(same)),
    }
