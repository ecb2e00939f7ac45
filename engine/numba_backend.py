"""Runs a compiled step graph over the arena."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import types

from .arena import address
from .artifact import Artifact
from .cache import load_program
from .compiler import generate
from .errors import BackendError
from .program import PAD_BYTES, Unsupported
from .section import Section
from .token_program import loop_text
from .token_work import LOOP, Logits, Work
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
        self._run, self._one = self._compile(artifact)
        self._generate: Any = None  # compiled when it is first used
        self._memories = [self._memory() for _ in range(threads + 1)]
        self._scratch = [int(address(m) + -address(m) % 64) for m in self._memories]
        self._busy = np.zeros(1, np.int64)  # 1 while a batch is stepped without the GIL
        self._pool = ThreadPoolExecutor(threads, "undertow") if threads > 1 else None

    def single(self, slot: int, generation: int) -> tuple[Any, np.ndarray]:
        """The compiled step of one frame, `one(address of the context, *inputs, *outputs)`, and a handle's context for it."""
        section, generations = self._section, address(self._section.arena.generations)
        busy = address(self._busy)
        values = (section.address, generations, self._scratch[-1], busy, slot, generation, section.stride)
        return self._one, np.array(values, np.int64)

    def _compile(self, artifact: Artifact) -> tuple[Any, Any]:
        spec, i64 = artifact.spec, types.int64
        more_in, more_out = int(spec.frames_per_step > 1), int(spec.outputs_per_step > 1)
        single = [_array(t.dtype, max(1, len(t.shape) + more_in)) for t in spec.inputs]
        single += [_array(t.dtype, max(1, len(t.shape) + more_out)) for t in spec.outputs]
        many = [_array(t.dtype, len(t.shape) + more_in + 1) for t in spec.inputs] + [
            _array(t.dtype, len(t.shape) + more_out + 1) for t in spec.outputs
        ]
        index = types.Array(i64, 1, "C")
        signatures = (i64, i64, i64, index, index, index, index, i64, i64, i64, *many), (i64, *single)
        module = load_program(self.source.text, {"run": [signatures[0]], "one": [signatures[1]]})
        return module.run, module.one

    def _memory(self) -> np.ndarray:
        source = self.source
        tables = (len(source.tables) + 1) * source.block * 8
        memory = np.zeros(tables + source.block * source.scratch_row + PAD_BYTES + 64, np.uint8)
        skip = -address(memory) % 64
        entries = memory[skip : skip + tables].view(np.int64).reshape(-1, source.block)
        entries[1] = address(source.parameters)
        entries[2] = address(memory) + skip + tables + np.arange(source.block) * source.scratch_row
        return memory

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
            lambda i, begin, end: self._run(self._scratch[i], *work, begin, end, *inputs, *outputs),
        )

    def generate(self, voices: Voices, part: int, work: Work, now: int) -> None:
        """Tokens of each stream from its prompt until it ends. part: the offset of generation's part of a row from this stage's."""
        if self._generate is None:
            self._generate = load_program(loop_text(self.source, voices), {"generate": [LOOP]}).generate
        loop, block = self._generate, self.source.block

        def some(i: int, begin: int, end: int) -> None:
            lanes, logits = np.empty((block, 2), np.int64), Logits.room(voices, block)
            context = work.context(self._section, part, lanes, logits)
            loop(self._scratch[i], address(context), now, begin, end)

        self._split(len(work.slots), 1, some)

    def _split(self, count: int, least: int, run: Callable[[int, int, int], None]) -> None:
        """run(thread, begin, end) over 0..count, on as many threads as get at least so many streams each."""
        parts = 1 if self._pool is None else max(1, min(len(self._scratch) - 1, count // least))
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


def _array(dtype: str, rank: int) -> types.Array:
    kind = {"float32": types.float32, "int64": types.int64, "int32": types.int32, "bool": types.boolean}[dtype]
    return types.Array(kind, rank, "C")


def seconds(call: Any, times: int = 5) -> float:
    """The median time of a call."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return float(np.median(taken))
