"""Payloads that are the bytes of arrays: raw and pcm16. Those of many payloads are joined and become one array."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError, ConfigError
from .payloads import Decoded, Frames, each, encode_one, gathered, kind_of, no_rows, only_input
from .records import Answer


class RawCodec:
    """Little-endian arrays of the model's dtypes, C order; of several inputs one after the other."""

    def __init__(self, spec: StepSpec):
        self.inputs = spec.inputs
        self.frame_bytes = sum(frame_bytes(t) for t in spec.inputs)
        if not self.frame_bytes:
            raise ConfigError("codec 'raw': the model's frames have no values, so a payload's length says nothing")

    def decode(self, payload: bytes) -> Frames:
        count, rest = divmod(len(payload), self.frame_bytes)
        if rest:
            raise _no_whole(len(payload), self.frame_bytes)
        arrays, start = {}, 0
        for t in self.inputs:
            stop = start + count * frame_bytes(t)
            arrays[t.name] = from_little(payload[start:stop], t).reshape(count, *t.shape)
            start = stop
        return Frames(arrays, count == 1)

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        data, counts, errors = joined(payloads, self.frame_bytes)
        single = counts == 1
        if len(self.inputs) > 1 and counts.size and counts.max() > 1:
            return self._each(payloads)  # each payload has its inputs one after the other
        octets = np.frombuffer(data, np.uint8).reshape(-1, self.frame_bytes)
        frames, start = [], 0
        for t in self.inputs:
            stop = start + frame_bytes(t)
            part = octets if len(self.inputs) == 1 else np.ascontiguousarray(octets[:, start:stop])
            try:
                frames.append(from_little(part.reshape(-1), t).reshape(len(octets), *t.shape))
            except CodecError:  # a bool that is none: which payload's?
                return self._each(payloads)
            start = stop
        return Decoded(frames, counts, single, errors)

    def _each(self, payloads: Sequence[bytes | None]) -> Decoded:
        errors: dict[int, CodecError] = {}
        found = each({i: p for i, p in enumerate(payloads) if p is not None}, self.decode, errors)
        return gathered(self.inputs, len(payloads), np.empty(0, np.int64), no_rows(self.inputs), found, errors)

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        parts = [slices(to_little(numeric(name, a)), a, counts) for name, a in values.items()]
        return parts[0] if len(parts) == 1 else [b"".join(ones) for ones in zip(*parts, strict=True)]


class Pcm16Codec:
    """16-bit little-endian samples, -1 to 1 as -32768 to 32767; a frame is one sample, one of each channel, or N samples."""

    def __init__(self, spec: StepSpec):
        only = only_input(spec)
        if only is None or np.dtype(only.dtype).kind != "f":
            have = [(t.name, t.dtype) for t in spec.inputs]
            raise ConfigError(f"codec 'pcm16': the model's inputs are {have}, expected one of a float dtype")
        self.input, self.frame_bytes = only, 2 * int(np.prod(only.shape))
        if not self.frame_bytes:
            raise ConfigError("codec 'pcm16': the model's frames have no values")

    def decode(self, payload: bytes) -> Frames:
        count, rest = divmod(len(payload), self.frame_bytes)
        if rest:
            raise _no_whole(len(payload), self.frame_bytes)
        return Frames({self.input.name: self._samples(payload)}, count == 1)

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        data, counts, errors = joined(payloads, self.frame_bytes)
        return Decoded([self._samples(data)], counts, counts == 1, errors)

    def _samples(self, data: bytes | bytearray) -> np.ndarray:
        samples = np.frombuffer(data, "<i2").astype(np.float32)
        samples /= np.float32(32768)
        return samples.astype(self.input.dtype, copy=False).reshape(-1, *self.input.shape)

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        name, array = only_value(values, "pcm16")
        samples = pcm16(name, array)
        return slices(samples.tobytes(), samples, counts)


def joined(payloads: Sequence[bytes | None], frame_bytes: int) -> tuple[bytearray, np.ndarray, dict[int, CodecError]]:
    """The bytes of all that are whole frames, end to end; how many frames each has, int64; why the others are bad."""
    lengths = np.array([len(p) if p else 0 for p in payloads], np.int64)
    counts, rest = np.divmod(lengths, frame_bytes)
    errors = {i: _no_whole(int(lengths[i]), frame_bytes) for i in np.flatnonzero(rest).tolist()}
    if errors:
        counts[list(errors)] = 0
        payloads = [None if i in errors else p for i, p in enumerate(payloads)]
    return bytearray().join(filter(None, payloads)), counts, errors


def _no_whole(length: int, frame_bytes: int) -> CodecError:
    return CodecError(f"the payload has {length} bytes, expected a multiple of {frame_bytes} (a frame)")


def slices(data: bytes, array: np.ndarray, counts: np.ndarray) -> list[bytes]:
    """The bytes of an array's rows cut where each answer ends."""
    row_bytes = array.itemsize * int(np.prod(array.shape[1:]))
    stops = (np.cumsum(counts) * row_bytes).tolist()
    return [data[start:stop] for start, stop in pairwise([0, *stops])]


def frame_bytes(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


def from_little(data: bytes | np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """A writable array of the tensor's dtype; of an array of bytes that is writable, without a copy.

    Raises CodecError where a bool is neither 0 nor 1.
    """
    if tensor.dtype == "bool":
        octets = np.frombuffer(data, np.uint8)
        if octets.size and octets.max() > 1:
            raise CodecError(f"input '{tensor.name}' is bool and has a byte {int(octets.max())}, expected 0 or 1")
        return octets.astype(bool)
    array = np.frombuffer(data, np.dtype(tensor.dtype).newbyteorder("<"))
    return array.astype(tensor.dtype, copy=not array.flags.writeable)


def to_little(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def cast(array: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    """To the model's dtype, where that loses no more than precision. Raises CodecError."""
    if array.dtype.kind not in "fiub" or not np.can_cast(array.dtype, tensor.dtype, "same_kind"):
        raise CodecError(f"input '{tensor.name}': the array is {array.dtype}, model expects {tensor.dtype}")
    with np.errstate(over="ignore"):
        return np.array(array, dtype=tensor.dtype, order="C")


def numeric(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise CodecError(f"output '{name}' is {kind_of(array)}, this codec carries numbers; use json or msgpack")
    return array


def only_value(values: Mapping[str, np.ndarray], codec: str) -> tuple[str, np.ndarray]:
    if len(values) != 1:
        raise CodecError(f"codec '{codec}': the answer has {sorted(values)}, it carries one value; use json or msgpack")
    name, array = next(iter(values.items()))
    return name, numeric(name, array)


def pcm16(name: str, array: np.ndarray) -> np.ndarray:
    """Samples as little-endian int16, clipped to the range. Raises CodecError where one is not finite."""
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise CodecError(f"output '{name}' ({array.dtype}): 16-bit samples need finite floats")
    return np.minimum(np.rint(np.clip(array.astype(np.float64), -1, 1) * 32768), 32767).astype("<i2")
