"""Streams that go on by themselves: each token that is sampled is the next frame.

On the compiled backend a call is one compiled loop over steps. On others it is a loop of batches, with the same sampling after
each. What going on needs lies in the stream's row, see `token_rows`: a call may end anywhere and another go on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arena import address
from .errors import FrameError, UndertowError
from .generation_call import Call, Generation, Seed, stream_seed
from .index import Key
from .numba_backend import NumbaBackend
from .section import Section
from .stage import Stage, one_each
from .token_rows import BROKEN, STOPPED
from .token_work import Logits, Work, compiled, of_waves
from .voices import Voices

Feed = tuple[np.ndarray, np.ndarray, np.ndarray]  # tokens (total, voices), each stream's first row, and how many


class Generator:
    """Generates with one stage. kept: its part of the rows. Knows no keys but to name streams in errors and to derive seeds."""

    def __init__(self, stage: Stage, kept: Section, voices: Voices):
        self.stage, self.kept, self.voices = stage, kept, voices
        self.part = kept.offset - stage.section.offset
        self.columns = {name.partition(".")[2]: column for name, column in kept.columns().items()}
        self._sizes = np.array(voices.sizes, np.int64)
        self._limits = np.array(voices.limits, np.uint64)

    # ------------------------------------------------------------------------------------------ what is given

    def prompts(self, keys: Sequence[Key], given: Any) -> tuple[list[np.ndarray], dict[Key, UndertowError]]:
        """Each stream's prompt, int64 (T, voices), empty where it has none or an error; and the errors. Raises FrameError."""
        none = np.zeros((0, len(self.voices)), np.int64)
        if given is None:
            return [none] * len(keys), {}
        if isinstance(given, np.ndarray) and (rows := self._rows(given)) is not None and len(rows) == len(keys):
            return rows, {}
        each = [given.get(key) for key in keys] if isinstance(given, Mapping) else list(given)
        if len(each) != len(keys):
            raise FrameError(f"{len(each)} prompts for {len(keys)} streams, expected one of each, or None for all")
        prompts, errors = [], {}
        for key, prompt in zip(keys, each, strict=True):
            try:
                prompts.append(none if prompt is None else self._prompt(key, prompt))
            except FrameError as error:
                prompts.append(none)
                errors[key] = error
        return prompts, errors

    def _rows(self, given: np.ndarray) -> list[np.ndarray] | None:
        """`prompts` of an array with one in each row; None where something is wrong with one of them, or they are empty."""
        array = given[..., None] if given.ndim == 2 and len(self.voices) == 1 else given
        if array.ndim != 3 or array.shape[2] != len(self.voices) or array.dtype.kind not in "iu" or not array.size:
            return None
        found = np.ascontiguousarray(array, np.int64)
        return None if self._beyond(found) else list(found)

    def _beyond(self, tokens: np.ndarray) -> bool:
        """Whether a token (.., voices) is none of its voice."""
        return bool((tokens.view(np.uint64) >= self._limits).any())

    def _prompt(self, key: Key, given: Any) -> np.ndarray:
        names, what = self.voices.names, f"stream {key!r}: the prompt"
        if isinstance(given, Mapping):
            if set(given) != set(names):
                raise FrameError(f"{what} is for inputs {sorted(map(str, given))}, the model has {list(names)}")
            given = [given[name] for name in names]
            if len({len(v) for v in given}) > 1:
                raise FrameError(
                    f"{what} has {[len(v) for v in given]} tokens of {list(names)}, expected as many of each"
                )
            given = np.stack([np.asarray(v) for v in given], -1)
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise FrameError(f"{what} has tokens of unequal shapes ({error})") from error
        if array.size == 0:
            return np.zeros((0, len(names)), np.int64)
        if array.ndim == 1 and len(names) == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != len(names) or array.dtype.kind not in "iu":
            expected = "(T,)" if len(names) == 1 else f"(T, {len(names)}) of {', '.join(names)}"
            raise FrameError(f"{what} is {array.dtype.name} {array.shape}, expected whole numbers {expected}")
        found = np.ascontiguousarray(array, np.int64)
        if self._beyond(found):
            for name, limit, column in zip(names, self.voices.limits, array.T, strict=True):
                low, high = int(column.min()), int(column.max())
                if low < 0 or high >= limit:
                    worst = high if high >= limit else low
                    raise FrameError(f"{what} has token {worst} for input '{name}', expected 0 to {limit - 1}")
        return found

    def waiting(self, slots: np.ndarray) -> np.ndarray:
        """Which streams have a token that was sampled and is not stepped yet, bool (B,). Frames that were pushed since take its place."""
        return (self.columns["next"][slots, 0] >= 0) & (
            self.columns["since"][slots] == self.stage.section.frames[slots]
        )

    def seeds(self, keys: Sequence[Key], slots: np.ndarray, seed: Seed) -> None:
        """Each stream's own seed goes into its row. Without a seed those that have generated keep theirs."""
        column = self.columns["seed"]
        if seed is None:
            fresh = np.flatnonzero(self.columns["count"][slots] == 0).tolist()
            column[slots[fresh]] = [stream_seed(0, keys[i]) for i in fresh]
        elif isinstance(seed, Mapping):
            column[slots] = np.array([seed[key] % 2**64 for key in keys], np.uint64).view(np.int64)
        else:
            column[slots] = [stream_seed(seed, key) for key in keys]

    # ------------------------------------------------------------------------------------------ what is done

    def feed(self, slots: np.ndarray, prompts: Sequence[np.ndarray]) -> Feed:
        """What each stream steps first: the token that was sampled last, where it waits, and the prompt."""
        last, waits = self.columns["next"][slots], self.waiting(slots).tolist()
        parts = [p for i, prompt in enumerate(prompts) for p in ((last[i : i + 1], prompt) if waits[i] else (prompt,))]
        length = np.array([len(p) + w for p, w in zip(prompts, waits, strict=True)], np.int64)
        return np.concatenate(parts), np.cumsum(length) - length, length

    def hold(self, slots: np.ndarray, prompts: Sequence[np.ndarray], now: int) -> None:
        """Steps what waits and prompts of at least a token, but for each one's last, which waits from now on."""
        tokens, first, length = self.feed(slots, prompts)
        stepped = np.ones(len(tokens), np.bool_)
        stepped[first + length - 1] = False
        columns = [
            np.ascontiguousarray(c, t.dtype) for c, t in zip(tokens[stepped].T, self.stage.spec.inputs, strict=True)
        ]
        self.stage.advance(slots, length - 1, columns, now)
        self.remember(slots, prompts)
        self.columns["next"][slots] = tokens[~stepped]
        self.columns["since"][slots] = self.stage.section.frames[slots]

    def remember(self, slots: np.ndarray, prompts: Sequence[np.ndarray]) -> None:
        """The prompts' tokens are recent ones."""
        length = np.fromiter(map(len, prompts), np.int64, len(prompts))
        where = (self.stage.section.address, self.stage.section.stride, self.part)
        compiled().remember_prompts(*where, slots, np.concatenate(prompts), np.cumsum(length) - length, length)

    def sample(
        self, keys: Sequence[Key], slots: np.ndarray, prompts: Sequence[np.ndarray], call: Call, seed: Seed, now: int
    ) -> tuple[dict[Key, Generation], dict[Key, UndertowError]]:
        """What each stream generates, and the errors of those that were left as they were before."""
        if not len(slots):
            return {}, {}
        before = self.stage.section.arena.read(slots)
        self.seeds(keys, slots, seed)
        work = self.work(slots, self.feed(slots, prompts), call)
        self.remember(slots, prompts)
        try:
            self._run(work, now)
        except Exception:
            self.stage.section.arena.write_many(slots, before)
            raise
        broken = np.flatnonzero(work.status == BROKEN)
        self.stage.section.arena.write_many(slots[broken], before[broken])
        errors: dict[Key, UndertowError] = {}
        for i in broken.tolist():
            errors[keys[i]] = self.not_finite(keys[i], int(work.made[i]))
        made, status, scores = work.made.tolist(), work.status.tolist(), work.scores.tolist()
        results = {}
        tokens = work.tokens[:, :, 0] if len(self.voices) == 1 else work.tokens
        for i, key in enumerate(keys):
            if status[i] != BROKEN:
                mine = tokens[i, : made[i]].astype(np.int64)
                results[key] = Generation(mine, scores[i], "stop" if status[i] == STOPPED else "length")
        return results, errors

    def not_finite(self, key: Key, made: int) -> FrameError:
        return FrameError(
            f"stream {key!r}: the model's logits are not finite after {made} generated tokens; its state is as it was before the call"
        )

    def work(self, slots: np.ndarray, feed: Feed, call: Call) -> Work:
        """The arrays of a call."""
        count, stops = len(slots), call.stops
        ends = np.cumsum([0, *map(len, stops)])
        tokens = np.empty((count, call.max_steps, len(self.voices)), np.int32)
        numbers = (np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.int64))
        return Work(slots, *feed, self._sizes, np.concatenate(stops), ends, call.settings, tokens, *numbers)

    def outputs(self, logits: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Room for a step's outputs, of which the voices' are these."""
        tensors = self.stage.spec.outputs
        places = {y: v for v, (_, y) in enumerate(self.voices.pairs)}
        return [
            logits[places[i]] if i in places else np.empty((len(logits[0]), *t.shape), t.dtype)
            for i, t in enumerate(tensors)
        ]

    def _run(self, work: Work, now: int) -> None:
        found = [b for b in self.stage.backends.backends if isinstance(b, NumbaBackend)]
        if found:  # for a batch of any size, so that tokens do not depend on it
            found[0].generate(self.voices, self.part, work, now)
        else:
            self._by_waves(work, now)

    def _by_waves(self, work: Work, now: int) -> None:
        """A step of all streams at a time, until none is left."""
        spec, kernels, n = self.stage.spec, of_waves(), len(work.slots)
        lanes = np.stack([np.arange(n), np.zeros(n, np.int64)], 1)
        given = np.empty((len(self.voices), n), np.int64)
        logits = [np.empty((n, size), np.float32) for size in self.voices.sizes]
        room = Logits.of(logits)
        context = work.context(self.stage.section, self.part, lanes, room)
        while n:
            kernels.next_tokens(address(context), n, given)
            inputs = [given[v, :n].astype(t.dtype) for v, t in enumerate(spec.inputs)]
            outputs = self.outputs([y[:n] for y in logits])
            slots, ones = work.slots[lanes[:n, 0]], one_each(n)
            self.stage.backends.at(n).run(slots, np.arange(n), ones, ones, now, inputs, outputs)
            n = kernels.settle_lanes(address(context), n)
