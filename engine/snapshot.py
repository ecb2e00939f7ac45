"""Snapshots of one stream and of all streams: bytes with a version, a checksum and the fingerprint of their model; no pickle."""

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .arena import Arena, Key
from .errors import CheckpointError, SnapshotError, UndertowError
from .layout import FRAMES

_VERSION = b"\x01\x00"
_DIGEST_BYTES = 16
MAX_FRAMES = 2**62
_SNAPSHOT, _CHECKPOINT = b"UTSN", b"UTCK"


class _Snapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fingerprint: bytes
    states: list[tuple[str, list[int], str]]
    row: bytes


class _Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fingerprint: bytes
    states: list[tuple[str, list[int], str]]
    keys: list[str | int | tuple[bytes]]
    rows: bytes


def snapshot(arena: Arena, fingerprint: bytes, slot: int) -> bytes:
    """The stream in this slot as portable bytes."""
    return _seal(_SNAPSHOT, _Snapshot(fingerprint, _states(arena), arena.read(np.array([slot], np.int64)).tobytes()))


def unpack_snapshot(arena: Arena, fingerprint: bytes, key: Key, blob: bytes) -> np.ndarray:
    """The row, uint8 (row_bytes,). Raises SnapshotError where the bytes are damaged or are another model's."""
    found = _open(_SNAPSHOT, blob, _Snapshot, f"stream {key!r}: the snapshot", SnapshotError)
    _same_model(arena, fingerprint, found, f"stream {key!r}", SnapshotError)
    if len(found.row) != arena.layout.row_bytes:
        raise SnapshotError(
            f"stream {key!r}: the snapshot's row has {len(found.row)} bytes, expected {arena.layout.row_bytes}"
        )
    row = np.frombuffer(found.row, np.uint8)
    _possible(row[None], f"stream {key!r}", SnapshotError)
    return row


def write_checkpoint(arena: Arena, fingerprint: bytes, path: str | os.PathLike[str]) -> None:
    """Every resident stream in one file, written in one move and synced to the disk."""
    path = Path(path)
    residents = arena.index.items()
    keys: list[Any] = [(key,) if isinstance(key, bytes) else key for key, _ in residents]
    slots = np.array([slot for _, slot in residents], np.int64)
    data = _seal(_CHECKPOINT, _Checkpoint(fingerprint, _states(arena), keys, arena.read(slots).tobytes()))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_checkpoint(arena: Arena, fingerprint: bytes, path: str | os.PathLike[str]) -> tuple[list[Key], np.ndarray]:
    """Keys and their rows, uint8 (n, row_bytes). Raises CheckpointError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    found = _open(_CHECKPOINT, data, _Checkpoint, f"{path}: the checkpoint", CheckpointError)
    _same_model(arena, fingerprint, found, str(path), CheckpointError)
    keys: list[Key] = [k[0] if isinstance(k, tuple) else k for k in found.keys]
    if len(found.rows) != len(keys) * arena.layout.row_bytes or len(set(keys)) != len(keys):
        raise CheckpointError(
            f"{path}: {len(keys)} keys and {len(found.rows)} bytes of rows of {arena.layout.row_bytes} do not fit"
        )
    rows = np.frombuffer(found.rows, np.uint8).reshape(len(keys), arena.layout.row_bytes)
    _possible(rows, str(path), CheckpointError)
    return keys, rows


def _possible(rows: np.ndarray, where: str, error: type[UndertowError]) -> None:
    """The counts of frames, which address buffered frames, are those of some stream."""
    seen = np.ascontiguousarray(rows[:, FRAMES : FRAMES + 8]).view(np.int64)
    if ((seen < 0) | (seen >= MAX_FRAMES)).any():
        raise error(
            f"{where}: a stream has seen {int(seen.min())} .. {int(seen.max())} frames, expected 0 .. {MAX_FRAMES}"
        )


def _states(arena: Arena) -> list[tuple[str, list[int], str]]:
    return [(s.name, list(s.shape), s.dtype) for s in arena.spec.states]


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
    expected = {s.name: s for s in arena.spec.states}
    for name, shape, dtype in found.states:
        have = expected.get(name)
        if have is None:
            raise error(
                f"{where}: state '{name}' is not in this model, which has {sorted(expected)}; was it written by another model?"
            )
        if tuple(shape) != have.shape or dtype != have.dtype:
            raise error(
                f"{where}: state '{name}' has shape {tuple(shape)} of {dtype}, model expects {have.shape} of {have.dtype}; was it written by another model?"
            )
    if found.fingerprint != fingerprint or len(found.states) != len(expected):
        raise error(
            f"{where}: was written by the model {found.fingerprint.hex()}, this one is {fingerprint.hex()} (other weights or another graph); "
            "load the model that wrote it"
        )
