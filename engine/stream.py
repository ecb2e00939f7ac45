"""A handle to one stream: the shortest path from a frame to its output."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .arena import Key
from .errors import StaleStreamError

if TYPE_CHECKING:
    from .engine import Engine

_STALE = -1


class Stream:
    """One live stream of an engine. Stale, and says so, once the stream was closed, dropped or expired."""

    __slots__ = ("_context", "_delay", "_engine", "_generation", "_one", "_outputs", "_slot", "key")

    def __init__(self, engine: "Engine", key: Key, slot: int, generation: int):
        self.key, self._engine, self._slot, self._generation = key, engine, slot, generation
        spec = engine.spec
        simple = len(spec.inputs) == len(spec.outputs) == 1 and spec.frames_per_step == spec.outputs_per_step == 1
        direct = engine._backends.direct if simple and spec.outputs[0].shape and not engine._backends.limits else None
        self._one, self._context = (direct.one, direct.context) if direct else (None, 0)
        self._outputs, self._delay = (spec.outputs[0].shape, spec.outputs[0].dtype), spec.delay

    def step(self, frame: Any) -> Any:
        """The output `(*out)` that became ready with this frame `(*frame)`, or None while it is delayed.

        Raises FrameError (the stream is unchanged), StaleStreamError.
        """
        engine = self._engine
        if self._one is None:
            return self._slow_step(frame)
        with engine._lock:
            now = 0 if engine._idle_ns is None else engine._tick()
            out = np.empty(*self._outputs)
            try:
                seen = self._one(self._context, self._slot, self._generation, now, frame, out)
            except TypeError:  # not yet the array that the compiled function takes
                return self._slow_step(frame)
            if seen > self._delay:
                return out
            if seen >= 0:
                return None
            return self._slow_step(frame)

    def push(self, chunk: Any) -> Any:
        """What became ready, `(T', *out)`. Raises FrameError, StaleStreamError."""
        with self._engine._lock:
            self._check()
            return self._engine.push(self.key, chunk)

    def close(self) -> Any:
        """The tail `(T', *out)`; the handle is stale afterwards. Raises StaleStreamError."""
        with self._engine._lock:
            self._check()
            return self._engine.close(self.key)

    def _check(self) -> None:
        if self._engine._arena.generations[self._slot] != self._generation:
            raise StaleStreamError(
                f"stream {self.key!r} was closed, dropped or expired since this handle was made; call engine.stream again"
            )

    def _slow_step(self, frame: Any) -> Any:
        engine = self._engine
        with engine._lock:
            self._check()
            inputs = engine._intake.by_name(frame)
            chunk = {t.name: np.asarray(a)[None] for t, a in zip(engine.spec.inputs, inputs, strict=True)}
            out = engine.push(self.key, chunk)
        many = engine.spec.outputs_per_step > 1
        pick = (lambda y: y) if many else (lambda y: y[0])
        if isinstance(out, dict):
            return {name: pick(y) for name, y in out.items()} if len(next(iter(out.values()))) else None
        return pick(out) if len(out) else None
