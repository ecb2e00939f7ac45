"""Two accounts of one stream side by side: two models' outputs, or what is stepped again and what was written."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from .one_stream import OneStream, Payload
from .output_lines import rows
from .payloads import plain
from .records import Answer

Place = tuple[int, int, int]  # the stream's life, the output's step in it, and which of that step's events


@dataclass(slots=True)
class Difference:
    """Of one output. worst: absolute difference, None of text and of lists. over: how many outputs differ by more than the tolerance, or at all, of text.

    worst_at, first_at: step and source. first: the two values there.
    """

    compared: int = 0
    worst: float | None = None
    worst_at: str | None = None
    over: int = 0
    first_at: str | None = None
    first: list[Any] | None = None


@dataclass(slots=True)
class Shadow:
    """only_first, only_second: outputs that one model alone has. unlike: outputs of other names, shapes or kinds, which are not compared."""

    outputs: dict[str, Difference] = field(default_factory=dict)
    only_first: int = 0
    only_second: int = 0
    unlike: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def placed(stream: OneStream) -> Iterator[tuple[Place, Answer, int]]:
    """Every output: its place, the answer that it is in and where in that."""
    told = Counter[tuple[int, int]]()
    for answer, life in zip(stream.answers, stream.lives, strict=True):
        for i in range(rows(answer)):
            step = (life, answer.step + i)
            yield (*step, told[step]), answer, i
            told[step] += 1


def shadow(first: OneStream, second: OneStream, tolerance: float) -> Shadow:
    """The two models' outputs, paired by step."""
    other = {place: (answer, i) for place, answer, i in placed(second)}
    found, met = Shadow(), 0
    for place, answer, i in placed(first):
        if place not in other:
            found.only_first += 1
            continue
        met += 1
        theirs, j = other[place]
        _compare(found, answer, i, theirs, j, tolerance)
    found.only_second = len(other) - met
    return found


def _compare(found: Shadow, answer: Answer, i: int, theirs: Answer, j: int, tolerance: float) -> None:
    unlike = set(answer.values) ^ set(theirs.values)
    for name in answer.values.keys() & theirs.values.keys():
        ours, other = np.asarray(answer.values[name]), np.asarray(theirs.values[name])
        if ours.shape[1:] != other.shape[1:] or _kind(ours) != _kind(other):
            unlike.add(name)
            continue
        difference = found.outputs.setdefault(name, Difference())
        difference.compared += 1
        _note(difference, ours[i : i + 1], other[j : j + 1], f"step {answer.step + i}, {answer.source}", tolerance)
    found.unlike = sorted({*found.unlike, *unlike})


def _kind(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "US" else "lists" if array.dtype.kind == "O" else "numbers"


def _note(difference: Difference, a: np.ndarray, b: np.ndarray, where: str, tolerance: float) -> None:
    """a, b: one value each, with an axis before it."""
    if _kind(a) != "numbers":
        far = not alike(a.tolist(), b.tolist(), tolerance)
    else:
        gap = distance(a, b)
        if difference.worst is None or gap > difference.worst:
            difference.worst, difference.worst_at = gap, where
        far = gap > tolerance
    if far:
        difference.over += 1
        if difference.first_at is None:
            difference.first_at, difference.first = where, [plain(a)[0], plain(b)[0]]


def alike(a: Any, b: Any, tolerance: float) -> bool:
    """The same text, lists and fields, in which numbers are no further apart than `tolerance`."""
    return matching(a, b, lambda x, y: distance(np.asarray(x), np.asarray(y)) <= tolerance)


def matching(a: Any, b: Any, close: Callable[[float, float], bool]) -> bool:
    """The same text, lists and fields, but for floats, which `close` judges."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(matching(a[k], b[k], close) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(matching(x, y, close) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return close(a, b)
    return a == b


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where one alone is not a number."""
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        return float(max((abs(x - y) for x, y in zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)), default=0))
    x, y = a.astype(np.float64), b.astype(np.float64)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(x - y))
    return float(np.nan_to_num(gaps, nan=np.inf, posinf=np.inf).max(initial=0.0))


@dataclass(slots=True)
class Compared:
    """Records of the output topic against what is stepped again. first: where the first that differs is, and both payloads."""

    equal: int = 0
    differ: int = 0
    missing: int = 0
    repeated: int = 0
    foreign: int = 0
    first: list[str] | None = None

    @property
    def alike(self) -> bool:
        return not (self.differ or self.missing or self.foreign)

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def compared(again: list[Payload], written: Mapping[tuple[str, int], list[bytes]]) -> Compared:
    """written: payloads by source and step."""
    found, left = Compared(), set(written)
    for payload in again:
        place = (payload.source, payload.step)
        there = written.get(place, [])
        left.discard(place)
        found.missing += not there
        found.repeated += max(0, len(there) - 1)
        wrong = [value for value in there if value != payload.value]
        found.equal += bool(there) and not wrong
        found.differ += bool(wrong)
        if wrong and found.first is None:
            found.first = [f"step {payload.step}, {payload.source}", _shown(payload.value), _shown(wrong[0])]
    found.foreign = sum(len(written[place]) for place in left)
    return found


def _shown(payload: bytes) -> str:
    text = payload[:200].decode(errors="backslashreplace")
    return text if text.isprintable() else payload[:100].hex()
