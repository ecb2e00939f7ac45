"""Payload bytes <-> frames: json, msgpack, raw, pcm16, numpy. One codec serves one model.

A payload is one frame `(*frame)`, a chunk `(T, *frame)`, or, of json and msgpack for a model with several inputs, an
object of those by name. Decoding gives arrays of the model's dtypes, or CodecError; how much it allocates is bounded by
the payload's own length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError, ConfigError
from .files_config import CodecName
from .npy import npy_array, npy_bytes
from .records import Answer, Record, Unreadable
from .trees import JSON, MSGPACK, Tree


@dataclass(frozen=True, slots=True)
class Frames:
    """arrays: `(T, *frame)` by input name, of the model's dtypes. single: the payload was one frame, not a chunk."""

    arrays: dict[str, np.ndarray]
    single: bool

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


class Codec(Protocol):
    def decode(self, payload: bytes) -> Frames:
        """Raises CodecError: got, expected."""
        ...

    def encode(self, answer: Answer) -> bytes:
        """The answer's values as a chunk: of several values an object by name. Raises CodecError."""
        ...


def make_codec(name: CodecName, spec: StepSpec) -> Codec:
    """The codec for the model's frames. Raises ConfigError where it cannot carry them."""
    makers: dict[str, Callable[[StepSpec], Codec]] = {
        "json": lambda s: TreeCodec(s, JSON),
        "msgpack": lambda s: TreeCodec(s, MSGPACK),
        "raw": RawCodec,
        "pcm16": Pcm16Codec,
        "numpy": NumpyCodec,
    }
    return makers[name](spec)


def frames_of(record: Record, codec: Codec | None) -> Frames | None:
    """The record's frames whatever form its value has, None where it only ends streams. Raises CodecError.

    codec: of payload bytes; a source that decodes itself needs none.
    """
    value = record.value
    if value is None:
        return None
    if isinstance(value, Unreadable):
        raise CodecError(f"{record.source}: {value.reason}")
    if isinstance(value, Mapping):
        return Frames(dict(value), record.single)
    if isinstance(value, bytes | bytearray | memoryview):
        if codec is None:
            raise CodecError(f"{record.source}: the payload is bytes and the source has no codec")
        try:
            return codec.decode(bytes(value))
        except CodecError as error:
            raise CodecError(f"{record.source}: {error}") from error
    raise CodecError(f"{record.source}: the payload is {type(value).__name__}, expected bytes or arrays by input name")


class TreeCodec:
    """Nested lists of numbers, in JSON or MessagePack."""

    def __init__(self, spec: StepSpec, tree: Tree):
        self.inputs, self.tree = spec.inputs, tree

    def decode(self, payload: bytes) -> Frames:
        if len(self.inputs) == 1:
            array, single = self.tree.array(payload, self.inputs[0])
            return Frames({self.inputs[0].name: array}, single)
        parts = self.tree.fields(payload)
        names = [t.name for t in self.inputs]
        if set(parts) != set(names):
            raise CodecError(f"the object has {sorted(parts)}, the model has inputs {names}")
        found = {t.name: self.tree.array(parts[t.name], t) for t in self.inputs}
        lengths = {name: "one frame" if single else f"{len(a)} frames" for name, (a, single) in found.items()}
        if len(set(lengths.values())) > 1:
            raise CodecError(f"inputs have {lengths}, expected as many of each")
        return Frames({name: a for name, (a, _) in found.items()}, next(iter(found.values()))[1])

    def encode(self, answer: Answer) -> bytes:
        values = {name: plain(array) for name, array in answer.values.items()}
        return self.tree.encode(next(iter(values.values())) if len(values) == 1 else values)


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
            raise CodecError(
                f"the payload has {len(payload)} bytes, expected a multiple of {self.frame_bytes} (a frame)"
            )
        arrays, start = {}, 0
        for t in self.inputs:
            stop = start + count * frame_bytes(t)
            arrays[t.name] = from_little(payload[start:stop], t).reshape(count, *t.shape)
            start = stop
        return Frames(arrays, count == 1)

    def encode(self, answer: Answer) -> bytes:
        return b"".join(to_little(numeric(name, a)) for name, a in answer.values.items())


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
            raise CodecError(
                f"the payload has {len(payload)} bytes, expected a multiple of {self.frame_bytes} (a frame)"
            )
        samples = np.frombuffer(payload, "<i2").astype(np.float32) / np.float32(32768)
        array = samples.astype(self.input.dtype).reshape(count, *self.input.shape)
        return Frames({self.input.name: array}, count == 1)

    def encode(self, answer: Answer) -> bytes:
        name, array = only_value(answer, "pcm16")
        return pcm16(name, array).tobytes()


class NumpyCodec:
    """A .npy file as a payload, without pickle; one array, so one input and one output."""

    def __init__(self, spec: StepSpec):
        only = only_input(spec)
        if only is None:
            names = [t.name for t in spec.inputs]
            raise ConfigError(f"codec 'numpy': holds one array, the model has inputs {names}; use json, msgpack or raw")
        self.input = only

    def decode(self, payload: bytes) -> Frames:
        array = npy_array(payload)
        single = array.shape == self.input.shape
        if not single and (array.ndim == 0 or array.shape[1:] != self.input.shape):
            raise CodecError(f"the array has shape {array.shape}, expected {self.input.shape} or (T, ...) of it")
        rows = array[None] if single else array
        return Frames({self.input.name: cast(rows, self.input)}, single)

    def encode(self, answer: Answer) -> bytes:
        return npy_bytes(only_value(answer, "numpy")[1])


def only_input(spec: StepSpec) -> TensorSpec | None:
    """The model's input, where it has one."""
    return next(iter(spec.inputs)) if len(spec.inputs) == 1 else None


def frame_bytes(tensor: TensorSpec) -> int:
    return int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize


def from_little(data: bytes, tensor: TensorSpec) -> np.ndarray:
    """A writable array of the tensor's dtype. Raises CodecError where a bool is neither 0 nor 1."""
    if tensor.dtype == "bool":
        octets = np.frombuffer(data, np.uint8)
        if octets.size and octets.max() > 1:
            raise CodecError(f"input '{tensor.name}' is bool and has a byte {int(octets.max())}, expected 0 or 1")
        return octets.astype(bool)
    return np.frombuffer(data, np.dtype(tensor.dtype).newbyteorder("<")).astype(tensor.dtype)


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
        raise CodecError(f"output '{name}' is {array.dtype}, this codec carries numbers; use json or msgpack")
    return array


def only_value(answer: Answer, codec: str) -> tuple[str, np.ndarray]:
    if len(answer.values) != 1:
        raise CodecError(
            f"codec '{codec}': the answer has {sorted(answer.values)}, it carries one value; use json or msgpack"
        )
    name, array = next(iter(answer.values.items()))
    return name, numeric(name, array)


def pcm16(name: str, array: np.ndarray) -> np.ndarray:
    """Samples as little-endian int16, clipped to the range. Raises CodecError where one is not finite."""
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise CodecError(f"output '{name}' ({array.dtype}): 16-bit samples need finite floats")
    return np.clip(np.rint(array.astype(np.float64) * 32768), -32768, 32767).astype("<i2")


def plain(array: np.ndarray) -> Any:
    """Nested lists; as JSON has no such numbers, "NaN", "Infinity" and "-Infinity" (protobuf's JSON mapping)."""
    array = np.asarray(array)
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    words = {np.inf: "Infinity", -np.inf: "-Infinity"}
    cells = [x if np.isfinite(x) else words.get(x, "NaN") for x in array.ravel().tolist()]
    boxed = np.empty(array.size, object)
    boxed[:] = cells
    return boxed.reshape(array.shape).tolist()
