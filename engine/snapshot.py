"""Snapshots of one stream and of all streams: bytes with a version, a checksum and the fingerprint of their model; no pickle."""

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .arena import Arena, Key
from .collected import Collected
from .errors import CheckpointError, SnapshotError, UndertowError
from .layout import FRAMES

_VERSION = b"\x01\x00"
_DIGEST_BYTES = 16
MAX_FRAMES = 2**62
_SNAPSHOT, _CHECKPOINT = b"UTSN", b"UTCK"


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """frames: of each input those that were collected, where the model takes whole sequences."""

    fingerprint: bytes
    states: list[tuple[str, list[int], str]]
    row: bytes
    frames: list[bytes] = []


class _Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    fingerprint: bytes
    states: list[tuple[str, list[int], str]]
    keys: list[str | int | tuple[bytes]]
    rows: bytes
    frames: list[bytes] = []


def snapshot(arena: Arena, fingerprint: bytes, slot: int, collected: Collected | None) -> bytes:
    """The stream in this slot as portable bytes."""
    slots = np.array([slot], np.int64)
    row, frames = arena.read(slots).tobytes(), [] if collected is None else collected.read(slots)
    return _seal(_SNAPSHOT, _Snapshot(fingerprint, _states(arena), row, [a.tobytes() for a in frames]))


def unpack_snapshot(arena: Arena, fingerprint: bytes, key: Key, blob: bytes) -> tuple[np.ndarray, list[np.ndarray]]:
    """The row, uint8 (row_bytes,), and the collected frames. Raises SnapshotError where the bytes are damaged or are another model's."""
    found = _open(_SNAPSHOT, blob, _Snapshot, f"stream {key!r}: the snapshot", SnapshotError)
    _same_model(arena, fingerprint, found, f"stream {key!r}", SnapshotError)
    if len(found.row) != arena.row_bytes:
        raise SnapshotError(
            f"stream {key!r}: the snapshot's row has {len(found.row)} bytes, expected {arena.row_bytes}"
        )
    row = np.frombuffer(found.row, np.uint8)
    seen = _possible(arena, row[None], f"stream {key!r}", SnapshotError)
    return row, _frames(arena, found.frames, int(seen[0]), f"stream {key!r}", SnapshotError)


def write_checkpoint(
    arena: Arena, fingerprint: bytes, path: str | os.PathLike[str], collected: Collected | None
) -> None:
    """Every resident stream in one file, written in one move and synced to the disk."""
    path = Path(path)
    residents = arena.index.items()
    keys: list[Any] = [(key,) if isinstance(key, bytes) else key for key, _ in residents]
    slots = np.array([slot for _, slot in residents], np.int64)
    frames = [] if collected is None else [a.tobytes() for a in collected.read(slots)]
    data = _seal(_CHECKPOINT, _Checkpoint(fingerprint, _states(arena), keys, arena.read(slots).tobytes(), frames))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_checkpoint(
    arena: Arena, fingerprint: bytes, path: str | os.PathLike[str]
) -> tuple[list[Key], np.ndarray, list[list[np.ndarray]]]:
    """Keys, their rows, uint8 (n, row_bytes), and the frames that were collected of each. Raises CheckpointError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    found = _open(_CHECKPOINT, data, _Checkpoint, f"{path}: the checkpoint", CheckpointError)
    _same_model(arena, fingerprint, found, str(path), CheckpointError)
    keys: list[Key] = [k[0] if isinstance(k, tuple) else k for k in found.keys]
    if len(found.rows) != len(keys) * arena.row_bytes or len(set(keys)) != len(keys):
        raise CheckpointError(
            f"{path}: {len(keys)} keys and {len(found.rows)} bytes of rows of {arena.row_bytes} do not fit"
        )
    rows = np.frombuffer(found.rows, np.uint8).reshape(len(keys), arena.row_bytes)
    seen = _possible(arena, rows, str(path), CheckpointError)
    frames = _frames(arena, found.frames, int(seen.sum()), str(path), CheckpointError)
    parts = [np.split(array, np.cumsum(seen)[:-1]) for array in frames]
    return keys, rows, [list(p) for p in zip(*parts, strict=True)] if parts and keys else [[] for _ in keys]


def check_rows(arena: Arena, rows: np.ndarray, where: str) -> None:
    """Raises SnapshotError where rows are not uint8 (n, row_bytes) or have seen impossible numbers of frames."""
    if rows.ndim != 2 or rows.shape[1] != arena.row_bytes or rows.dtype != np.uint8:
        raise SnapshotError(f"{where}: rows are {rows.dtype} {rows.shape}, expected uint8 (n, {arena.row_bytes})")
    _possible(arena, rows, where, SnapshotError)


def collected_frames(arena: Arena, parts: list[bytes], count: int, where: str) -> list[np.ndarray]:
    """As many collected frames of each input as the stream has seen. Raises SnapshotError."""
    return _frames(arena, parts, count, where, SnapshotError)


def _frames(arena: Arena, parts: list[bytes], count: int, where: str, error: type[UndertowError]) -> list[np.ndarray]:
    """So many collected frames of each input; of a model that is stepped there are none."""
    found = []
    if len(parts) != len(arena.collects):
        raise error(f"{where}: has collected frames of {len(parts)} inputs, expected {len(arena.collects)}")
    for tensor, raw in zip(arena.collects, parts, strict=True):
        size = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        if len(raw) != count * size:
            raise error(
                f"{where}: input '{tensor.name}' has {len(raw)} bytes of collected frames, expected {count} frames of {size}"
            )
        found.append(np.frombuffer(raw, tensor.dtype).reshape(count, *tensor.shape))
    return found


def _possible(arena: Arena, rows: np.ndarray, where: str, error: type[UndertowError]) -> np.ndarray:
    """The counts of frames, which address buffered frames; they are those of some stream. Those of the first stage."""
    counts = []
    for stage in arena.stages:
        begin = stage.offset + FRAMES
        counts.append(seen := np.ascontiguousarray(rows[:, begin : begin + 8]).view(np.int64)[:, 0])
        if ((seen < 0) | (seen >= MAX_FRAMES)).any():
            raise error(
                f"{where}: a stream has seen {int(seen.min())} .. {int(seen.max())} frames, expected 0 .. {MAX_FRAMES}"
            )
    return counts[0]


def _states(arena: Arena) -> list[tuple[str, list[int], str]]:
    return [(name, list(s.shape), s.dtype) for name, _, s in arena.states]


def _seal(magic: bytes, content: Any) -> bytes:
    body = magic + _VERSION + msgspec.msgpack.encode(content)
    return hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body


def _open(magic: bytes, blob: bytes, kind: Any, what: str, error: type[UndertowError]) -> Any:
    if not isinstance(blob, bytes | bytearray | memoryview):
        raise error(f"{what} is {type(blob).__name__}, expected bytes")
    blob = bytes(blob)
    digest, body = blob[:_DIGEST_BYTES], blob[_DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise error(f"{what} is damaged: its checksum does not match its {len(blob)} bytes; take it from another copy")
    if body[:4] != magic or body[4:6] != _VERSION:
        raise error(f"{what} has format {body[:6]!r}, this version of undertow reads {magic + _VERSION!r}")
    try:
        return msgspec.msgpack.decode(body[6:], type=kind)
    except msgspec.DecodeError as cause:
        raise error(f"{what} is not valid: {cause}") from cause


def _same_model(arena: Arena, fingerprint: bytes, found: Any, where: str, error: type[UndertowError]) -> None:
    expected = {name: s for name, _, s in arena.states}
    for name, shape, dtype in found.states:
        have = expected.pop(name, None)
        if have is None:
            known = sorted(name for name, _, _ in arena.states)
            raise error(f"{where}: state '{name}' is not in this model, which has {known}; {_whose(name)}")
        if tuple(shape) != have.shape or dtype != have.dtype:
            raise error(
                f"{where}: state '{name}' has shape {tuple(shape)} of {dtype}, model expects {have.shape} of {have.dtype}; {_whose(name)}"
            )
    if expected:
        name = min(expected)
        raise error(f"{where}: has no state '{name}', which this model has; {_whose(name)}")
    if found.fingerprint != fingerprint:
        raise error(
            f"{where}: was written by the model {found.fingerprint.hex()}, this one is {fingerprint.hex()} (other weights or another graph); "
            "load the model that wrote it"
        )


def _whose(state: str) -> str:
    """A question: what else may have written a snapshot than what reads it."""
    return (
        "was it written with another decoder ([decode])?"
        if state.startswith("decode.")
        else "was it written by another model?"
    )
