"""Whether a pipeline lives, and whether it does its work: two questions, and the reasons where the answer is no.

Alive is a process whose event loop turns; what does not is best killed. Ready is one that has all its partitions restored and
commits what it takes; what is not is best left alone until it is. A process that loads its model or restores is alive.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

State = Literal["starting", "restoring", "running", "stopping"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer. facts: what it goes by, and `reason` where it is no; JSON's types."""

    good: bool
    facts: dict[str, Any]


class Health:
    """What the processor says of itself; asked from any thread.

    loop_timeout_s: without a beat for longer, the loop hangs. commit_timeout_s: records that were taken longer ago have to
    be committed. clock: seconds.
    """

    def __init__(
        self, loop_timeout_s: float = 10.0, commit_timeout_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ):
        self.loop_timeout_s, self.commit_timeout_s, self.clock = loop_timeout_s, commit_timeout_s, clock
        self._lock = threading.Lock()
        self._state: State = "starting"
        self._detail: Mapping[str, Any] = {}
        self._since = clock()
        self._beat: float | None = None
        self._uncommitted_since: float | None = None

    def beat(self) -> None:
        """The loop turns. Called once a second or more often, from the loop itself, through long restores as well."""
        self._beat = self.clock()

    def state(self, state: State, detail: Mapping[str, Any] | None = None) -> None:
        """What the processor does now; once it stops, it stops. detail: JSON's types, say `{"frames/3": 0.42}` of a restore."""
        with self._lock:
            if self._state == "stopping" != state:
                return
            if state != self._state:
                self._since = self.clock()
            self._state, self._detail = state, dict(detail or {})

    def taken(self) -> None:
        """Records were taken that have to be committed."""
        if self._uncommitted_since is None:
            self._uncommitted_since = self.clock()

    def committed(self) -> None:
        """All that was taken is committed, or is no longer this process's to commit."""
        self._uncommitted_since = None

    def alive(self) -> Verdict:
        """Before the first beat there is no loop that could hang, so that a model may take its time to load."""
        beat = self._beat
        facts: dict[str, Any] = {"alive": True, **self._facts()}
        if beat is None:
            return Verdict(True, facts)
        silent = self.clock() - beat
        facts["last_beat_s"] = round(silent, 3)
        if silent <= self.loop_timeout_s:
            return Verdict(True, facts)
        reason = f"the loop has not turned for {silent:.1f} s, expected at most {self.loop_timeout_s:g} s"
        return Verdict(False, {**facts, "alive": False, "reason": reason})

    def ready(self) -> Verdict:
        alive, facts = self.alive(), self._facts()
        since = self._uncommitted_since
        waits = 0.0 if since is None else self.clock() - since
        facts["uncommitted_s"] = round(waits, 3)
        if not alive.good:
            reason = alive.facts["reason"]
        elif facts["state"] != "running":
            reason = f"the pipeline is {facts['state']}"
        elif waits > self.commit_timeout_s:
            reason = f"records that were taken {waits:.1f} s ago are not committed, expected within {self.commit_timeout_s:g} s"
        else:
            return Verdict(True, {"ready": True, **facts})
        return Verdict(False, {"ready": False, **facts, "reason": reason})

    def _facts(self) -> dict[str, Any]:
        with self._lock:
            facts: dict[str, Any] = {"state": self._state, "state_s": round(self.clock() - self._since, 3)}
            return {**facts, "detail": self._detail} if self._detail else facts
