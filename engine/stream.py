"""A handle to one stream: the shortest path from a frame to its output."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .arena import Key, address
from .decoders import Events
from .errors import StaleStreamError
from .single import Single

if TYPE_CHECKING:
    from .engine import Engine


class Stream:
    """One live stream of an engine. Stale, and says so, once the stream was closed, dropped or expired."""

    __slots__ = ("_address", "_context", "_delay", "_engine", "_generation", "_new", "_one", "_slot", "key")

    def __init__(self, engine: "Engine", key: Key, slot: int, generation: int):
        self.key, self._engine, self._slot, self._generation = key, engine, slot, generation
        spec, self._one = engine.spec, None
        simple = len(spec.inputs) == len(spec.outputs) == 1 and spec.frames_per_step == spec.outputs_per_step == 1
        direct = engine._executor.direct if isinstance(engine._executor, Single) else None
        if direct and simple and spec.outputs[0].shape and engine._idle_ns is None:
            self._one, self._context = direct.single(slot, generation)
            self._address, self._delay = address(self._context), spec.delay
            self._new = np.zeros(spec.outputs[0].shape, spec.outputs[0].dtype).copy  # faster than numpy.empty

    def step(self, frame: Any) -> Any:
        """The output `(*out)` that became ready with this frame `(*frame)`, or None while it is delayed; with a decoder its `Events`, or None.

        Raises FrameError (the stream is unchanged), StaleStreamError.
        """
        if self._one is not None:
            out = self._new()
            try:
                seen = self._one(self._address, frame, out)
            except TypeError:  # not the array that the compiled function takes
                seen = -1
            if seen > self._delay:
                return out
            if seen >= 0:
                return None
        return self._checked_step(frame)

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

    def _checked_step(self, frame: Any) -> Any:
        engine = self._engine
        with engine._lock:
            self._check()
            inputs, what = engine._intake.by_name(frame), f"stream {self.key!r}"
            chunk = {
                t.name: engine._intake.array(a, t, (), what)[None]
                for t, a in zip(engine.spec.inputs, inputs, strict=True)
            }
            out = engine.push(self.key, chunk)
        if isinstance(out, Events):
            return out if len(out) else None
        many = engine.spec.outputs_per_step > 1
        pick = (lambda y: y) if many else (lambda y: y[0])
        if isinstance(out, dict):
            return {name: pick(y) for name, y in out.items()} if len(next(iter(out.values()))) else None
        return pick(out) if len(out) else None
