"""The rows of most streams: a fixed layout, so that very many become columns, and columns them, at once.

Plain is a live stream of which nothing is kept but numbers: it is not quarantined, none of its frames wait for answers or
for its end, and the policy needs no last frame. Little-endian: magic, CRC-32 of what follows it, size of the state, the
columns of `Streams`, the layout's digest, the state.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from ...engine.errors import CheckpointError
from ..columns import NO_SEQ, NO_TIME
from ..streams import Kept

MAGIC = b"UTCP\x01\0\0\0"
COLUMNS = ("frames", "seq", "last_ns", "due_ns")
HEAD = np.dtype(
    [("magic", "<u8"), ("crc", "<u4"), ("size", "<u4"), ("offset", "<i8"), *((n, "<i8") for n in COLUMNS), ("layout", "<u8")]
)  # fmt: skip
_CHECKED = 12  # the CRC is of what follows it


def plain_type(row_bytes: int) -> np.dtype:
    """HEAD and a state of so many bytes."""
    return np.dtype([*((name, HEAD[name]) for name in HEAD.names or ()), ("state", "u1", (row_bytes,))])


def pack(offset: int, layout: bytes, columns: Sequence[np.ndarray], states: np.ndarray) -> list[bytes]:
    """A value a row. columns: of COLUMNS, int64 (n,); states: uint8 (n, row_bytes)."""
    count, row_bytes = states.shape
    rows = np.zeros(count, plain_type(row_bytes))
    rows["magic"], rows["size"], rows["layout"] = _number(MAGIC), row_bytes, _number(layout)
    rows["offset"], rows["state"] = offset, states
    for name, column in zip(COLUMNS, columns, strict=True):
        rows[name] = column
    size, view = rows.itemsize, memoryview(rows.tobytes())
    rows["crc"] = [zlib.crc32(view[i + _CHECKED : i + size]) for i in range(0, count * size, size)]
    blob = rows.tobytes()
    return [blob[i : i + size] for i in range(0, count * size, size)]


def is_plain(value: bytes | None, row_bytes: int) -> bool:
    """The value says that it is a plain row with a state of this size."""
    return value is not None and len(value) == HEAD.itemsize + row_bytes and value[:8] == MAGIC


def unpack(values: Sequence[bytes], row_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `plain_type`, of values that `is_plain` takes; and of which the checksum is right, bool (n,)."""
    rows = np.frombuffer(b"".join(values), plain_type(row_bytes))
    crcs = np.fromiter((zlib.crc32(value[_CHECKED:]) for value in values), np.uint32, len(values))
    return rows, crcs == rows["crc"]


def has_layout(rows: np.ndarray, layout: bytes) -> np.ndarray:
    """Whether each is of this layout, bool (n,)."""
    return rows["layout"] == _number(layout)


def unpacked(value: bytes, where: str) -> tuple[int, bytes, Kept, bytes]:
    """Offset, layout, what is kept, and state, of one value that begins with MAGIC. Raises CheckpointError."""
    if len(value) < HEAD.itemsize:
        raise CheckpointError(f"{where} is damaged: it has {len(value)} bytes, expected {HEAD.itemsize} or more")
    head = np.frombuffer(value, HEAD, 1)[0]
    if len(value) != HEAD.itemsize + head["size"] or zlib.crc32(value[_CHECKED:]) != head["crc"]:
        raise CheckpointError(f"{where} is damaged: its checksum does not match its {len(value)} bytes")
    seq, last_ns, due_ns = (int(head[name]) for name in COLUMNS[1:])
    kept = Kept(
        int(head["frames"]),
        None if seq == NO_SEQ else seq,
        None if last_ns == NO_TIME else last_ns,
        None if due_ns == NO_TIME else due_ns,
    )
    return int(head["offset"]), int(head["layout"]).to_bytes(8, "little"), kept, value[HEAD.itemsize :]


def _number(eight: bytes) -> int:
    return int.from_bytes(eight, "little")
