"""What callers give, checked and laid out: contiguous arrays of the model's dtypes, and named dicts back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .arena import Key
from .artifact import StepSpec, TensorSpec
from .errors import FrameError, UndertowError
from .index import compiled
from .section import Section

Rest = tuple[
    np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray
]  # an input's buffers, slots and places there, frames


class Intake:
    """Checks and converts the frames of one model. limits: for inputs used as an index, how many entries there are."""

    def __init__(self, spec: StepSpec, limits: Mapping[str, int]):
        self.spec, self.limits, self._finite = spec, limits, compiled().finite
        first = spec.inputs[0]
        self._plain_input = len(spec.inputs) == 1 and first.dtype == "float32" and len(first.shape) < 4

    def by_name(self, given: Any) -> list[Any]:
        """The arrays in the order of the model's inputs. Raises FrameError where names are missing or unknown."""
        names = [t.name for t in self.spec.inputs]
        if isinstance(given, Mapping):
            if set(given) != set(names):
                raise FrameError(f"frames are given for inputs {sorted(map(str, given))}, the model has {names}")
            return [given[n] for n in names]
        if len(names) > 1:
            raise FrameError(
                f"frames are one {type(given).__name__}, the model has inputs {names}: give a dict of arrays by name"
            )
        return [given]

    def array(self, given: Any, tensor: TensorSpec, leading: tuple[int, ...] | None, what: str) -> np.ndarray:
        """`given` as (*leading, *frame), C-contiguous and writable; None: any number of frames. Raises FrameError."""
        try:
            array = np.asarray(given)
        except ValueError as error:
            raise FrameError(f"{what}: frames of unequal shapes ({error})") from error
        if array.shape != ((*array.shape[:1],) if leading is None else leading) + tensor.shape or (
            leading is None and not array.ndim
        ):
            shape = ", ".join(map(str, (*(("T",) if leading is None else leading), *tensor.shape)))
            raise FrameError(f"{what}: input '{tensor.name}' has shape {array.shape}, model expects ({shape})")
        if array.dtype != tensor.dtype and not (np.can_cast(array.dtype, tensor.dtype, "same_kind") or array.size == 0):
            raise FrameError(
                f"{what}: input '{tensor.name}' is {array.dtype.name}, model expects {tensor.dtype}; convert it first"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused as such
            return np.require(array, tensor.dtype, ["C", "A", "W"])

    def batch(self, given: Any, count: int) -> list[np.ndarray]:
        """Frames (B, *frame) of each input."""
        first = self.spec.inputs[0]
        plain = type(given) is np.ndarray and given.dtype == first.dtype and given.shape == (count, *first.shape)
        if plain and len(self.spec.inputs) == 1 and given.flags.carray:
            return [given]
        what = f"a batch of {count} streams"
        return [self.array(a, t, (count,), what) for a, t in zip(self.by_name(given), self.spec.inputs, strict=True)]

    def fit(self, inputs: list[np.ndarray]) -> bool:
        """Whether every frame of a `batch` may be stepped."""
        if self._plain_input:
            return self._finite(inputs[0])
        return all(self._fits(t, a) for t, a in zip(self.spec.inputs, inputs, strict=True))

    def bad_rows(self, inputs: list[np.ndarray], keys: Sequence[Key]) -> dict[Key, UndertowError]:
        """The streams whose frame may not be stepped."""
        errors: dict[Key, UndertowError] = {}
        for tensor, array in zip(self.spec.inputs, inputs, strict=True):
            for key, row in zip(keys, array, strict=True):
                if not self._fits(tensor, row):
                    errors[key] = self._refusal(key, tensor, row)
        return errors

    def refusal_of(self, key: Key, arrays: list[np.ndarray]) -> FrameError | None:
        """Why a chunk of the right shapes and dtypes may not be stepped."""
        for tensor, array in zip(self.spec.inputs, arrays, strict=True):
            if not self._fits(tensor, array):
                return self._refusal(key, tensor, array)
        return None

    def chunks(
        self, given: Mapping[Key, Any]
    ) -> tuple[list[list[np.ndarray]], dict[Key, UndertowError], list[np.ndarray] | None]:
        """For each input the streams' chunks, without those that have an error; and end to end where that was done for the check."""
        columns: list[list[np.ndarray]] = [[] for _ in self.spec.inputs]
        if len(columns) == 1:
            bare = [self._bare(chunk) for chunk in given.values()]
            if all(map(self._plain, bare)):
                joined = self.joined(0, bare)
                if self._fits(self.spec.inputs[0], joined):
                    return [bare], {}, [joined]
        errors: dict[Key, UndertowError] = {}
        for key, chunk in given.items():
            try:
                arrays = [
                    self.array(a, t, None, f"stream {key!r}")
                    for a, t in zip(self.by_name(chunk), self.spec.inputs, strict=True)
                ]
                if len({len(a) for a in arrays}) > 1:
                    raise FrameError(
                        f"stream {key!r}: inputs have {[len(a) for a in arrays]} frames, expected as many of each"
                    )
                for tensor, array in zip(self.spec.inputs, arrays, strict=True):
                    if not self._fits(tensor, array):
                        raise self._refusal(key, tensor, array)
            except FrameError as error:
                errors[key] = error
                continue
            for column, array in zip(columns, arrays, strict=True):
                column.append(array)
        return columns, errors, None

    def _bare(self, chunk: Any) -> Any:
        """The one input's chunk, which may come by name."""
        name = self.spec.inputs[0].name
        return chunk[name] if type(chunk) is dict and len(chunk) == 1 and name in chunk else chunk

    def _plain(self, chunk: Any) -> bool:
        """The chunk is an array of the right shape and dtype."""
        tensor = self.spec.inputs[0]
        plain = type(chunk) is np.ndarray and chunk.dtype == tensor.dtype and chunk.ndim == len(tensor.shape) + 1
        return plain and chunk.shape[1:] == tensor.shape

    def joined(self, i: int, column: list[np.ndarray]) -> np.ndarray:
        """One input's chunks end to end."""
        if len(column) == 1:
            return np.require(column[0], None, ["C", "A", "W"])
        tensor = self.spec.inputs[i]
        if not column:
            return np.zeros((0, *tensor.shape), tensor.dtype)
        return np.ascontiguousarray(np.concatenate(column))  # which keeps the order of columns that all chunks may have

    def _fits(self, tensor: TensorSpec, array: np.ndarray) -> bool:
        if array.dtype == np.float32 and 1 <= array.ndim <= 4 and array.flags.carray:
            return self._finite(array)
        if array.dtype.kind == "f":
            return bool(np.isfinite(array).all())
        limit = self.limits.get(tensor.name)
        return limit is None or not array.size or (int(array.min()) >= -limit and int(array.max()) < limit)

    def _refusal(self, key: Key, tensor: TensorSpec, array: np.ndarray) -> FrameError:
        if array.dtype.kind == "f":
            bad = np.argwhere(~np.isfinite(array))[0]
            return FrameError(
                f"stream {key!r}: input '{tensor.name}' is {array[tuple(bad)]} at {tuple(map(int, bad))}, expected finite numbers"
            )
        limit = self.limits[tensor.name]
        worst = int(array.max()) if int(array.max()) >= limit else int(array.min())
        return FrameError(
            f"stream {key!r}: input '{tensor.name}' is {worst}, expected an index from {-limit} to {limit - 1}"
        )

    def room(self, steps: int) -> list[np.ndarray]:
        """Output arrays of so many steps."""
        m = self.spec.outputs_per_step
        return [np.empty((steps, *((m,) if m > 1 else ()), *t.shape), t.dtype) for t in self.spec.outputs]

    def named_outputs(self, outputs: list[np.ndarray]) -> Any:
        if len(outputs) == 1:
            return outputs[0]
        return {t.name: y for t, y in zip(self.spec.outputs, outputs, strict=True)}

    def whole_steps(
        self, section: Section, slots: np.ndarray, before: np.ndarray, counts: np.ndarray, inputs: list[np.ndarray]
    ) -> tuple[list[np.ndarray], np.ndarray, list[Rest]]:
        """Buffered and new frames as whole steps (S, K, *frame), how many each stream has, and the rest, for `hold` after the steps."""
        k = self.spec.frames_per_step
        held = before % k
        total = held + counts
        steps, starts = total // k, np.cumsum(total) - total
        stream = np.repeat(np.arange(len(slots)), total)
        place = np.arange(int(total.sum())) - starts[stream]
        old = place < held[stream]
        stepped = place < (steps * k)[stream]
        rest = ~stepped
        where, out, rests = (slots[stream[rest]], (place - (steps * k)[stream])[rest]), [], []
        for tensor, array in zip(self.spec.inputs, inputs, strict=True):
            buffer = section.pending(tensor.name)
            frames = np.empty((len(place), *tensor.shape), tensor.dtype)
            frames[old] = buffer[slots[stream[old]], place[old]]
            frames[~old] = array
            rests.append((buffer, where, frames[rest]))
            out.append(frames[stepped].reshape(-1, k, *tensor.shape))
        return out, steps, rests

    @staticmethod
    def hold(rests: list[Rest]) -> None:
        """Buffers what is too little for a step; only now, so that a step that fails leaves the buffers as they were."""
        for buffer, where, frames in rests:
            buffer[where] = frames

    def tail(self, section: Section, slot: int, held: int, steps: int) -> list[np.ndarray]:
        """The buffered frames and zeros after the end, as so many steps."""
        k, out = self.spec.frames_per_step, []
        for tensor in self.spec.inputs:
            frames = np.zeros((steps * k, *tensor.shape), tensor.dtype)
            if held:
                frames[:held] = section.pending(tensor.name)[slot, :held]
            out.append(frames.reshape(steps, k, *tensor.shape) if k > 1 else frames)
        return out
