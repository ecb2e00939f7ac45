"""The .npy format: headers read without pickle, arrays from bytes, and a header that can be rewritten as a file grows."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ..engine.errors import CodecError

MAGIC = b"\x93NUMPY\x01\x00"
GROWING_HEADER_BYTES = 256


@dataclass(frozen=True, slots=True)
class Header:
    """start: where the values begin in the file. fortran: the first axis moves fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    start: int

    @property
    def total_bytes(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_header(file: IO[bytes]) -> Header:
    """Raises ValueError where it is not a .npy header of numbers."""
    readers: dict[tuple[int, int], Callable[[IO[bytes]], tuple[tuple[int, ...], bool, np.dtype]]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f".npy format {version}, expected 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file)
    if dtype.kind not in "fiub":
        raise ValueError(f"it holds {dtype}, expected numbers")
    if any(n < 0 for n in shape):
        raise ValueError(f"its shape is {shape}")
    return Header(shape, dtype, fortran, file.tell())


def npy_array(payload: bytes) -> np.ndarray:
    """The array, without a copy. Raises CodecError; nothing is allocated by what a header claims."""
    try:
        header = read_header(BytesIO(payload))
    except (ValueError, EOFError) as error:
        raise CodecError(f"not a .npy payload: {error}") from error
    if len(payload) != header.total_bytes:
        raise CodecError(
            f"the .npy payload has {len(payload)} bytes, its header (shape {header.shape} of {header.dtype}) says {header.total_bytes}"
        )
    flat = np.frombuffer(payload, header.dtype, offset=header.start)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def npy_bytes(array: np.ndarray) -> bytes:
    return npy_header(array.shape, array.dtype) + array.tobytes()


def npy_header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Of an array in C order."""
    out = BytesIO()
    npy.write_array_header_1_0(out, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return out.getvalue()


def place_of_values(payload: bytes) -> int:
    """Where the values begin, by what the header says of its own length."""
    width = 2 if payload[6:7] == b"\x01" else 4
    return 8 + width + int.from_bytes(payload[8 : 8 + width], "little")


def growing_header(rows: int, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """The header of `(rows, *shape)`, of the same length whatever `rows` is."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {(rows, *shape)!r}, }}".encode("latin1")
    room = GROWING_HEADER_BYTES - len(MAGIC) - 2
    return MAGIC + room.to_bytes(2, "little") + text.ljust(room - 1) + b"\n"
