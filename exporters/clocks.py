"""When a tensor's elements along time are computed: how many a step, how late, and how many there are in all."""

import math
from dataclasses import dataclass, replace

from ..engine.artifact import Stage, length_of


@dataclass(frozen=True, slots=True)
class Clock:
    """Element e of the block that step s computes is element s * per_step - delay + e of the whole sequence's tensor.

    A delay below zero means that the block is ahead: elements before the first block are padding that the reader knows.
    lengths: stages that give how many elements there are for so many input frames, see `StepSpec.lengths`.
    """

    per_step: int = 1
    delay: int = 0
    lengths: tuple[Stage, ...] = ()

    def length(self, frames: int) -> int:
        """How many elements a sequence of so many frames has."""
        return length_of(self.lengths, frames)

    def then(self, multiply: int, add: int, divide: int, least: int = 0) -> tuple[Stage, ...]:
        """The lengths of what has (multiply * L + add) // divide elements where this has L. least: see `engine.artifact.length_of`."""
        if (multiply, add, divide) == (1, 0, 1):
            return self.lengths
        if self.lengths and multiply == divide == 1:
            m, a, d, before = self.lengths[-1]
            first = len(self.lengths) == 1  # of one frame or more, which a padding does not make none
            if d == 1 and (before == least or (first and m == 1 and a >= 0)) and (a >= 0 or add <= 0):
                joined = (m, a + add, 1, least)
                return self.lengths[:-1] + (() if joined[:3] == (1, 0, 1) else (joined,))
        return (*self.lengths, (multiply, add, divide, least))

    def certain(self, frames_per_step: int) -> int:
        """The least delay with which every element is known to exist by the time that its step has its frames."""
        t = 1
        while self.length(t * frames_per_step) <= 0 and t < 2**40:
            t *= 2
        return t * self.per_step - self.length(t * frames_per_step)

    def at_least(self, delay: int, frames_per_step: int) -> "Clock":
        """With the delay, or a longer one where elements would not be certain to exist."""
        return replace(self, delay=max(0, delay, self.certain(frames_per_step)))

    def fits(self, other: "Clock", frames_per_step: int) -> bool:
        """Whether both have equally many elements after every whole number of steps."""
        return self.per_step == other.per_step and all(
            self.length(t * frames_per_step) == other.length(t * frames_per_step) for t in (*range(1, 65), 10_007)
        )

    def shorter(self, other: "Clock", frames_per_step: int) -> tuple[Stage, ...]:
        """The lengths of that which ends first within a step."""
        inside = range(1, 65 * frames_per_step if frames_per_step < 64 else 4 * frames_per_step)
        first, second = ([clock.length(t) for t in inside] for clock in (self, other))
        if first == second:  # then that which says of more lengths that there is nothing at all
            return max(self.lengths, other.lengths, key=lambda stages: sum(least for *_, least in stages))
        return self.lengths if all(a <= b for a, b in zip(first, second, strict=True)) else other.lengths


def plain(clock: Clock, frames_per_step: int) -> bool:
    """Whether there are floor(T * M / K) elements of T frames, whatever T is."""
    reach = sum(abs(add) for _, add, _, _ in clock.lengths) * 2 + 4 * frames_per_step + 64
    return reach < 10_000 and all(clock.length(t) == t * clock.per_step // frames_per_step for t in range(1, reach))


def ends_with_steps(clock: Clock, frames_per_step: int) -> bool:
    """Whether whole steps of a stream's frames give all of its elements, so that none is left for after its end."""
    reach = sum(abs(add) for _, add, _, _ in clock.lengths) * 2 + 4 * frames_per_step + 64
    done = (t // frames_per_step * clock.per_step - clock.delay for t in range(reach))
    return reach < 10_000 and all(clock.length(t) <= max(0, d) for t, d in enumerate(done))


class NeedsMultiple(Exception):
    """The pass must start again with frames_per_step a multiple of what it was."""

    def __init__(self, factor: int):
        super().__init__(factor)
        self.factor = factor


def divided(per_step: int, stride: int) -> int:
    """How many of per_step elements are left of every `stride`-th. Raises NeedsMultiple."""
    if per_step % stride:
        raise NeedsMultiple(stride // math.gcd(per_step, stride))
    return per_step // stride
