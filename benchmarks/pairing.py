"""What the benchmarks have in common: the machine and versions in words, sides that take turns, median and spread."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

from undertow.demo import machine


def heading(*packages: str) -> str:
    """The machine and how busy it is, and the versions of undertow and of the packages that take part."""
    load = f"load {os.getloadavg()[0]:.1f} in the last minute"
    return ", ".join([machine(), load, *(f"{name} {version(name)}" for name in ("undertow", *packages))])


def spread(values: Sequence[float], unit: str, digits: int = 2, width: int = 0) -> str:
    """`median unit (lowest..highest)`; the median right-aligned to `width`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{width}.{digits}f} {unit} ({low:.{digits}f}..{high:.{digits}f})"


def in_turn(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each side measured, in rounds in which every side has its turn: drift of the machine falls on all of them."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            taken[name].append(measure())
    return taken


def microseconds(call: Callable[[], object], calls: int) -> float:
    """Of one of `calls` calls, on average."""
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls * 1e6
