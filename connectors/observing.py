"""From the figures that a processor tells as it goes on to metrics and health."""

import time
from collections.abc import Callable

from .health import Health
from .metrics import Metrics
from .summary import Summary

EVERY_S = 0.25  # figures cost a millisecond, and nobody looks more often


class Observed:
    """What a processor may be given as `told`. Passes the figures on to `told`."""

    def __init__(
        self,
        metrics: Metrics,
        health: Health,
        told: Callable[[Callable[[], Summary]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.metrics, self.health, self.told, self.clock = metrics, health, told, clock
        self._due = clock()
        self._last: Summary | None = None

    def __call__(self, summary: Callable[[], Summary]) -> None:
        self.health.state("running")
        if self.clock() >= self._due:
            self.take(summary())
            self._due = self.clock() + EVERY_S
        if self.told is not None:
            self.told(summary)

    def take(self, now: Summary) -> None:
        """Counts what came since the last figures."""

        def new(name: str) -> int:
            return getattr(now, name) - (getattr(self._last, name) if self._last else 0)

        self.metrics.polled(new("records"), new("frames"))
        self.metrics.replayed(new("replayed"))
        self.metrics.answered(new("answers"))
        self.metrics.dead_letter(new("dead_letters"))
        self.metrics.late(new("late_frames"))
        self.metrics.quarantined(new("quarantined"))
        self.metrics.state(now.streams_live, None)
        if new("commits"):
            self.health.committed()
        elif new("records"):
            self.health.taken()
        self._last = now
