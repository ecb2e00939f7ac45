"""Payloads that are .npy files. Many alike have the same header, which is read once."""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import CodecError, ConfigError
from .array_codecs import cast, only_value, slices
from .npy import npy_array, npy_header, place_of_values
from .payloads import Decoded, Frames, each, encode_one, gathered, no_rows, only_input
from .records import Answer


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

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        """One frames that have the header of the first one are cut out of all of them at once."""
        inputs, errors = (self.input,), {}
        parts = {i: p for i, p in enumerate(payloads) if p is not None}
        alike, rows = self._alike(parts)
        if len(alike) < len(parts):
            for i in alike.tolist():
                del parts[i]
            others = each(parts, self.decode, errors)
        else:
            others = {}
        return gathered(inputs, len(payloads), alike, rows, others, errors)

    def _alike(self, parts: Mapping[int, bytes]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Places of those that have the first one's header and length, where that is of one frame; and their frames."""
        first = next(iter(parts.values()), b"")
        start, length = place_of_values(first), len(first)
        try:
            array = npy_array(first)
        except CodecError:
            array = np.empty((), object)
        if array.dtype == object or array.shape != self.input.shape or not array.flags.c_contiguous:
            return np.empty(0, np.int64), no_rows((self.input,))
        header = first[:start]
        alike = [i for i, p in parts.items() if len(p) == length and p.startswith(header)]
        octets = np.frombuffer(b"".join([parts[i] for i in alike]), np.uint8).reshape(len(alike), length)
        values = np.ascontiguousarray(octets[:, start:]).view(array.dtype).reshape(len(alike), *self.input.shape)
        try:
            return np.array(alike, np.int64), [cast(values, self.input)]
        except CodecError:  # of every one of them
            return np.empty(0, np.int64), no_rows((self.input,))

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        _, array = only_value(values, "numpy")
        header = cache(lambda count: npy_header((count, *array.shape[1:]), array.dtype))
        data = slices(array.tobytes(), array, counts)
        return [header(count) + part for count, part in zip(counts.tolist(), data, strict=True)]
