"""Frames that wait for the end of their streams: pages of memory that streams take as they grow and give back when they end."""

import numpy as np

from .artifact import StepSpec
from .errors import FrameError
from .index import Key
from .ragged import ranges

PAGE = 32  # frames
_FIRST_PAGES = 64


class Collected:
    """The frames of up to `max_streams` streams, at most `max_frames` each, by slot."""

    def __init__(self, spec: StepSpec, max_streams: int, max_frames: int):
        self.spec, self.max_frames = spec, max_frames
        self.counts = np.zeros(max_streams, np.int64)
        self._pages_of = np.zeros((max_streams, -(-max_frames // PAGE)), np.int32)  # touched as streams grow
        self._pages = [self._room(t.shape, t.dtype, _FIRST_PAGES) for t in spec.inputs]
        self._free, self._fresh = np.zeros(0, np.int32), 0

    @staticmethod
    def _room(shape: tuple[int, ...], dtype: str, pages: int) -> np.ndarray:
        return np.empty((pages * PAGE, *shape), dtype)

    def over(self, slots: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Which of the streams, new where the slot is below 0, cannot take counts[i] frames more."""
        return np.flatnonzero(np.where(slots >= 0, self.counts[slots], 0) + counts > self.max_frames)

    def refusal(self, key: Key, slot: int, count: int) -> FrameError:
        """Why a stream cannot take so many frames more."""
        held = int(self.counts[slot]) if slot >= 0 else 0
        return FrameError(
            f"stream {key!r}: {held} frames are collected and {count} come, at most {self.max_frames} are kept until the stream ends; "
            "close it earlier, or raise max_frames"
        )

    def add(self, slots: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray]) -> None:
        """Each stream's next counts[i] rows of the inputs; none has more than it may."""
        before = self.counts[slots]
        self._take(slots, -(-before // PAGE), -(-(before + counts) // PAGE))
        places = self._places(slots, before, counts)
        for pages, array in zip(self._pages, inputs, strict=True):
            pages[places] = array
        self.counts[slots] = before + counts

    def replace(self, slot: int, inputs: list[np.ndarray]) -> None:
        """The stream's frames are these from now on."""
        self.free(slot)
        self.add(np.array([slot], np.int64), np.array([len(inputs[0])], np.int64), inputs)

    def of(self, slot: int) -> list[np.ndarray]:
        """One stream's frames, for each input."""
        return self.read(np.array([slot], np.int64))

    def read(self, slots: np.ndarray) -> list[np.ndarray]:
        """For each input the streams' frames, end to end."""
        places = self._places(slots, np.zeros(len(slots), np.int64), self.counts[slots])
        return [pages[places] for pages in self._pages]

    def free(self, slot: int) -> None:
        """Forgets a stream's frames."""
        pages = self._pages_of[slot, : -(-int(self.counts[slot]) // PAGE)]
        self._free = np.concatenate([self._free, pages])
        self.counts[slot] = 0

    def _places(self, slots: np.ndarray, before: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Where in the pages frames before[i] .. before[i] + counts[i] of the streams lie, end to end."""
        frame = ranges(before, counts)
        return self._pages_of[np.repeat(slots, counts), frame // PAGE].astype(np.int64) * PAGE + frame % PAGE

    def _take(self, slots: np.ndarray, first: np.ndarray, last: np.ndarray) -> None:
        """Gives each stream its pages first[i] .. last[i]."""
        counts = last - first
        needed = int(counts.sum())
        if not needed:
            return
        old, fresh = self._free[:needed], max(0, needed - len(self._free))
        new = np.concatenate([old, np.arange(self._fresh, self._fresh + fresh, dtype=np.int32)])
        self._grow(self._fresh + fresh)
        self._free, self._fresh = self._free[needed:], self._fresh + fresh
        self._pages_of[np.repeat(slots, counts), ranges(first, counts)] = new

    def _grow(self, pages: int) -> None:
        have = len(self._pages[0]) // PAGE
        if pages <= have:
            return
        for i, (tensor, old) in enumerate(zip(self.spec.inputs, self._pages, strict=True)):
            self._pages[i] = self._room(tensor.shape, tensor.dtype, max(pages, 2 * have))
            self._pages[i][: len(old)] = old
