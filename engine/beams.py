"""Beam search: each stream's hypotheses are rows on the arena's spare slots, stepped as one batch with those of the others."""

from collections.abc import Sequence

import numpy as np

from .artifact import StepSpec
from .beam_kernels import compiled
from .errors import UndertowError
from .generation import Feed, Generator
from .generation_call import MOST_BEAMS, Call, Generation, Seed
from .index import Key
from .layout import Layout
from .stage import one_each
from .token_rows import BROKEN

_MOST_SLOTS, _MOST_BYTES = 2048, 2**26


def beam_slots(spec: StepSpec) -> int:
    """Spare slots of a model: those of one stream with MOST_BEAMS hypotheses, more where rows are small."""
    return max(2 * MOST_BEAMS + 1, min(_MOST_SLOTS, _MOST_BYTES // Layout.of(spec).row_bytes))


def beam_search(
    generator: Generator,
    keys: Sequence[Key],
    slots: np.ndarray,
    prompts: Sequence[np.ndarray],
    call: Call,
    seed: Seed,
    now: int,
) -> tuple[dict[Key, Generation], dict[Key, UndertowError]]:
    """As `Generator.sample`. As many streams at a time as the spare slots hold."""
    arena = generator.stage.section.arena
    some = (arena.slots - arena.max_streams) // (2 * call.beam + 1)
    results: dict[Key, Generation] = {}
    errors: dict[Key, UndertowError] = {}
    for begin in range(0, len(slots), some):
        end = begin + some
        search = Search(generator, slots[begin:end], call, now)
        generator.seeds(keys[begin:end], search.slots, seed)
        search.run(generator.feed(slots[begin:end], prompts[begin:end]), prompts[begin:end])
        for b, key in enumerate(keys[begin:end]):
            if search.status[b] == BROKEN:
                errors[key] = generator.not_finite(key, search.length(b))
            else:
                results[key] = search.result(b)
    return results, errors


class Search:
    """The hypotheses of some streams. slots: of each stream the first of its spare ones, at first a copy of its row: twice `beam`
    of them for beams, which change sides with every step, and the best's."""

    def __init__(self, generator: Generator, slots: np.ndarray, call: Call, now: int):
        self.generator, self.call, self.now = generator, call, now
        self.stage, self.arena = generator.stage, generator.stage.section.arena
        count, width, depth = len(slots), call.beam, call.max_steps
        self.status = np.zeros(count, np.int64)
        self.steps = 0
        self.slots = self.arena.max_streams + np.arange(count) * (2 * width + 1)
        self._side = 0
        self._live, self._scores = np.ones(count, np.int64), np.zeros((count, width))
        self._history = np.zeros((2, depth, count, width), np.int32)  # the beam that a beam comes from, and its token
        self._best, self._sums = np.full((count, width), -np.inf), np.zeros((count, width))
        self._ends = np.zeros((count, width, 4), np.int64)
        self._moves = np.empty((count * (2 * width + 1), 3), np.int64)
        self._origins = slots
        self._fork(np.stack([slots, self.slots, slots], 1))
        self._logits = np.empty((count * width, generator.voices.sizes[0]), np.float32)

    def run(self, feed: Feed, prompts: Sequence[np.ndarray]) -> None:
        """Searches, and leaves each stream's row as the best hypothesis' is, its last token not stepped yet."""
        self.generator.remember(self.slots, prompts)
        self._read(feed)
        active = np.arange(len(self.slots))
        rows = active
        while len(active):
            self._extend(active, rows)
            active = active[self.status[active] == 0]
            rows = self._step(active)
        good = np.flatnonzero(self.status != BROKEN)
        self._fork(np.stack([self.slots[good] + 2 * self.call.beam, self._origins[good], good], 1))

    def length(self, b: int) -> int:
        """How many tokens stream b had when its logits were not finite."""
        return int(self._ends[b, 0, 0])

    def result(self, b: int) -> Generation:
        """What stream b generated."""
        made = []
        for k in range(self.call.n_best):
            if self._best[b, k] == -np.inf:
                break
            end, tokens = self._ends[b, k], np.empty(int(self._ends[b, k, 0]) + 1, np.int64)
            compiled().trace(*self._history, b, end, tokens)
            made.append(Generation(tokens, float(self._sums[b, k]), "stop" if end[3] else "length"))
        first = made[0]
        return Generation(first.tokens, first.log_probability, first.finished, tuple(made))

    def _fork(self, moves: np.ndarray) -> None:
        """Copies rows, moves (M, 3): from slot, to slot, anything."""
        if self.arena.followed:
            self.arena.write_many(moves[:, 1], self.arena.read(moves[:, 0]))
        else:
            compiled().fork(self.arena.address, self.arena.row_bytes, np.ascontiguousarray(moves))

    def _read(self, feed: Feed) -> None:
        """Steps what each stream begins with: its last token and its prompt. The logits of the last of those stay."""
        tokens, first, length = feed
        for t in range(int(length.max(initial=0))):
            some = np.flatnonzero(length > t)
            logits = self._run(
                self.slots[some], tokens[first[some] + t, 0], np.empty((len(some), self._logits.shape[1]), np.float32)
            )
            ends = length[some] == t + 1
            self._logits[some[ends]] = logits[ends]

    def _run(self, slots: np.ndarray, tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """The logits after a token of each row."""
        ones, given = one_each(len(slots)), tokens.astype(self.stage.spec.inputs[0].dtype)
        self.stage.backends.at(len(slots)).run(
            np.ascontiguousarray(slots),
            np.arange(len(slots)),
            ones,
            ones,
            self.now,
            [given],
            self.generator.outputs([logits]),
        )
        return logits

    def _extend(self, active: np.ndarray, rows: np.ndarray) -> None:
        """One token more of each stream's beams; their rows are forked."""
        call, step = self.call, self.steps
        count = compiled().extend(
            active, rows, self._live, self._logits, self._scores, call.stops[0], step, step < call.min_steps,
            step + 1 == call.max_steps, call.length_penalty, call.max_steps, call.n_best, self._side,
            self.arena.max_streams, *self._history, self._best, self._sums, self._ends, self.status, self._moves,
        )  # fmt: skip
        moves, section = self._moves[:count], self.stage.section
        self._fork(moves)
        compiled().take(section.address, section.stride, self.generator.part, moves)
        self._side, self.steps = 1 - self._side, step + 1

    def _step(self, active: np.ndarray) -> np.ndarray:
        """Steps the beams of these streams by their last tokens; each stream's first row of the logits."""
        if not len(active):
            return active
        live = self._live[active]
        first = np.cumsum(live) - live
        streams = np.repeat(active, live)
        beams = np.arange(len(streams)) - np.repeat(first, live)
        slots = self.slots[streams] + self._side * self.call.beam + beams
        self._run(slots, self._history[1][self.steps - 1, streams, beams], self._logits[: len(streams)])
        return first
