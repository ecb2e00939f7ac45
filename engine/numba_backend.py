"""Runs a compiled step graph over the arena."""

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .arena import address
from .artifact import Artifact
from .cache import load_program
from .compiler import generate
from .errors import BackendError
from .program import PAD_BYTES, Unsupported
from .runners import Arrays, one_of, program_context, run_of
from .section import Section
from .token_work import Logits, Work, loop
from .voices import Voices

_MIN_ROWS_A_THREAD = 32


class NumbaBackend:
    """The compiled program of an artifact, bound to a section of an arena; one scratch a thread."""

    name = "numba"

    def __init__(self, artifact: Artifact, section: Section, threads: int):
        try:
            self.source = source = generate(artifact)
        except Unsupported as error:
            raise BackendError(
                f"{artifact.name}: the numba backend cannot compile {error}; use backend='ort' or 'auto'"
            ) from None
        self.limits = source.limits
        self._section = section
        self._block = load_program(source.text, {}).block
        xs, ys = artifact.spec.inputs, artifact.spec.outputs
        more_in, more_out = int(artifact.spec.frames_per_step > 1), int(artifact.spec.outputs_per_step > 1)
        self._inputs = tuple((t.dtype, len(t.shape) + more_in) for t in xs)
        self._outputs = tuple((t.dtype, len(t.shape) + more_out) for t in ys)
        self._elements = math.prod(xs[0].shape)
        self._run = run_of(_with_batch(self._inputs), _with_batch(self._outputs))
        self._memories = [self._memory() for _ in range(threads + 1)]
        self._contexts = [self._context(memory) for memory in self._memories]
        self._programs = [address(c) for c in self._contexts]
        self._busy = np.zeros(1, np.int64)  # 1 while a batch is stepped without the GIL
        self._pool = ThreadPoolExecutor(threads, "undertow") if threads > 1 else None

    def single(self, slot: int, generation: int) -> tuple[Any, np.ndarray]:
        """For a program with an input and an output: the step of one frame, `one(address of the context, x, y)`, and a handle's context for it."""
        section, generations = self._section, address(self._section.arena.generations)
        values = (
            section.address,
            generations,
            self._programs[-1],
            address(self._busy),
            slot,
            generation,
            section.stride,
        )
        arrays = [(dtype, max(1, rank)) for dtype, rank in (*self._inputs, *self._outputs)]
        return one_of(*arrays), np.array((*values, self._elements), np.int64)

    def _memory(self) -> np.ndarray:
        """Tables and scratch of a program, from a multiple of 64 bytes on."""
        source = self.source
        tables = (len(source.tables) + 1) * source.block * 8
        memory = np.zeros(tables + source.block * source.scratch_row + PAD_BYTES + 64, np.uint8)
        memory = memory[-address(memory) % 64 :]
        entries = memory[:tables].view(np.int64).reshape(-1, source.block)
        entries[1] = address(source.parameters)
        entries[2] = address(memory) + tables + np.arange(source.block) * source.scratch_row
        return memory

    def _context(self, memory: np.ndarray) -> np.ndarray:
        source = self.source
        return program_context(
            self._block.address, address(memory), source.block, len(source.tables), source.steps, source.sizes
        )

    def run(
        self,
        slots: np.ndarray,
        first: np.ndarray,
        length: np.ndarray,
        valid: np.ndarray,
        now: int,
        inputs: list[np.ndarray],
        outputs: list[np.ndarray],
    ) -> None:
        """Steps stream i over rows first[i] .. first[i] + length[i] of the inputs, in order; the outputs get the same rows."""
        work = (self._section.address, self._section.stride, slots, first, length, valid, now)
        self._split(
            len(slots),
            _MIN_ROWS_A_THREAD,
            lambda i, begin, end: self._run(self._programs[i], *work, begin, end, *inputs, *outputs),
        )

    def generate(self, voices: Voices, part: int, work: Work, now: int) -> None:
        """Tokens of each stream from its prompt until it ends. part: the offset of generation's part of a row from this stage's."""
        sampled, block = loop(), self.source.block

        def some(i: int, begin: int, end: int) -> None:
            lanes, logits = np.empty((block, 2), np.int64), Logits.room(voices, block)
            context = work.context(self._section, part, lanes, logits)
            sampled(self._programs[i], address(context), now, begin, end)

        self._split(len(work.slots), 1, some)

    def _split(self, count: int, least: int, run: Callable[[int, int, int], None]) -> None:
        """run(thread, begin, end) over 0..count, on as many threads as get at least so many streams each."""
        parts = 1 if self._pool is None else max(1, min(len(self._programs) - 1, count // least))
        self._busy[0] = 1
        try:
            if parts == 1 or self._pool is None:
                run(0, 0, count)
                return
            bounds = [count * i // parts for i in range(parts + 1)]
            waiting = [self._pool.submit(run, i, bounds[i], bounds[i + 1]) for i in range(parts)]
            for part in waiting:
                part.result()
        finally:
            self._busy[0] = 0


def _with_batch(arrays: Arrays) -> Arrays:
    return tuple((dtype, rank + 1) for dtype, rank in arrays)


def seconds(call: Any, times: int = 5) -> float:
    """The median time of a call."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
