"""What a changelog topic holds: a row a stream, plain (`plain_rows`) or sealed, and a marker, sealed.

Keys: `s` and the stream's key, or `m` for the marker. Sealed values: a checksum, a format, MessagePack. A stream that has ended
leaves a row without a state, which says from which offset on that holds, until no replay can begin below it; then a tombstone.
"""

import hashlib
from typing import Any, TypeVar, cast

import msgspec

from ...engine.errors import CheckpointError
from ..streams import Kept
from .plain_rows import MAGIC, unpacked

FORMAT = b"UTCL\x01"
DIGEST_BYTES = 16
MARKER, STREAM = b"m", b"s"  # what keys begin with
T = TypeVar("T", bound=msgspec.Struct)


class Row(msgspec.Struct, array_like=True, frozen=True):
    """A stream as it was when all records below `offset` had been taken. layout: of its state's bytes.

    kept, state: None where the stream had ended. collected: frames of a model of whole sequences, of each input.
    """

    offset: int
    layout: bytes
    kept: Kept | None = None
    state: bytes | None = None
    collected: list[bytes] = []


class Marker(msgspec.Struct, array_like=True, frozen=True):
    """Where a replay has to begin at the latest, and what a partition was there.

    watermark_ns: before the record at `replay_from`. refused: offsets of records from there on that found no room.
    fingerprint, layout: of the model that wrote it. next_offset: records below had been taken.
    """

    replay_from: int
    watermark_ns: int | None
    refused: list[int]
    fingerprint: bytes
    layout: bytes
    next_offset: int


_DECODERS: dict[type, msgspec.msgpack.Decoder[Any]] = {kind: msgspec.msgpack.Decoder(kind) for kind in (Row, Marker)}


def stream_key(key: bytes) -> bytes:
    return STREAM + key


def seal(value: msgspec.Struct) -> bytes:
    body = FORMAT + msgspec.msgpack.encode(value)
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() + body


def unseal(blob: bytes, kind: type[T], where: str, stream: bytes | None = None) -> T:
    """Raises CheckpointError, naming `where` and the stream, where the bytes are damaged or of another version."""
    if kind is Row and blob[:8] == MAGIC:
        return cast(T, Row(*unpacked(blob, _told(where, stream))))
    body = memoryview(blob)[DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=DIGEST_BYTES).digest() != blob[:DIGEST_BYTES]:
        raise CheckpointError(f"{_told(where, stream)} is damaged: its checksum does not match its {len(blob)} bytes")
    if body[: len(FORMAT)] != FORMAT:
        raise CheckpointError(
            f"{_told(where, stream)} has format {bytes(body[: len(FORMAT)])!r}, this version reads {FORMAT!r}; run the version that wrote it"
        )
    try:
        return _DECODERS[kind].decode(body[len(FORMAT) :])
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{_told(where, stream)} is not valid: {error}") from error


def _told(where: str, stream: bytes | None) -> str:
    return where if stream is None else f"{where}: stream {stream!r}"
