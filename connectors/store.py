"""The local store: one LMDB write transaction is one atomic commit.

Two kinds of write. A commit: how long the sink's parts are and where each partition goes on. A checkpoint: that, and the
rows of the streams that changed, the streams that are gone, and the offsets that the rows stand for. What is read back
is a checkpoint and the commits since: the rows are restored, the source begins at the checkpoint's offsets, and what lies
below the committed ones is stepped without being given out again.

Every value is sealed (checksum, format, MessagePack) and says whose it is; the store belongs to one pipeline's name and
one model. The tree of pages is verified before LMDB maps it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec
from lmdb import verify

from ..engine import Key
from ..engine.errors import CheckpointError
from .store_lock import StoreLock
from .streams import Kept

FORMAT = b"UTST\x02"
_DIGEST_BYTES = 16
META, PARTITION, LENGTH, STREAM, REFUSED = b"meta", b"p", b"l", b"s", b"r"
T = TypeVar("T", bound=msgspec.Struct)


class _Value(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    """A value of the store."""


class Meta(_Value, frozen=True):
    """Whose store it is, and how many values of each kind it has."""

    name: str
    fingerprint: bytes
    partitions: int = 0
    lengths: int = 0
    streams: int = 0
    refusals: int = 0


class StoredPartition(_Value, frozen=True):
    """committed: records below were given out. checkpoint: the rows stand for this offset; None before the first one."""

    partition: str
    committed: int
    checkpoint: int | None = None
    watermark_ns: int | None = None


class StoredLength(_Value, frozen=True):
    part: str
    length: int


class StoredStream(_Value, frozen=True):
    """A stream's snapshot and what the pipeline keeps of it. wire_key: bytes as a tuple of them."""

    partition: str
    wire_key: str | int | tuple[bytes]
    kept: Kept
    snapshot: bytes

    @property
    def key(self) -> Key:
        return self.wire_key[0] if isinstance(self.wire_key, tuple) else self.wire_key


class StoredRefusal(_Value, frozen=True):
    partition: str
    offset: int


@dataclass(frozen=True, slots=True)
class Commit:
    """lengths: by part of the sink. partitions: those that moved. refused: records that found no room. Nothing else changes."""

    lengths: Mapping[str, int]
    partitions: Iterable[StoredPartition]
    refused: Iterable[tuple[str, int]] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """streams: gives those that changed; called again where the store has to grow. gone: streams that ended.

    settled: refusals that no replay meets again.
    """

    streams: Callable[[], Iterable[StoredStream]]
    gone: Iterable[tuple[str, Key]]
    settled: Iterable[tuple[str, int]]


@dataclass(slots=True)
class Recovered:
    """What the store holds, but for the streams."""

    partitions: dict[str, StoredPartition] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    refused: list[tuple[str, int]] = field(default_factory=list)


class Store:
    """A store that this process alone has open. Raises CheckpointError: in use, damaged, or another pipeline's or model's."""

    def __init__(self, path: Path, name: str, fingerprint: bytes, map_bytes: int = 16 * 2**20):
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = StoreLock(path)
        except OSError as error:
            raise CheckpointError(f"{path}: the store cannot be made ({error.strerror})") from error
        try:
            self._environment = self._open(map_bytes)
            self.meta = self._bound(name, fingerprint)
        except BaseException:
            self._lock.release()
            raise

    def recovered(self) -> Recovered:
        found, meta = Recovered(), self.meta
        for stored in self._values(PARTITION, StoredPartition, meta.partitions, "partitions"):
            found.partitions[stored.partition] = stored
        for stored in self._values(LENGTH, StoredLength, meta.lengths, "lengths"):
            found.lengths[stored.part] = stored.length
        refusals = self._values(REFUSED, StoredRefusal, meta.refusals, "refusals")
        found.refused = [(r.partition, r.offset) for r in refusals]
        return found

    def streams(self) -> Iterator[StoredStream]:
        """Every stream of the checkpoint."""
        return self._values(STREAM, StoredStream, self.meta.streams, "streams")

    def write(self, commit: Commit, checkpoint: Checkpoint | None = None) -> None:
        """All of it or, whatever happens meanwhile, nothing. On the disk when it returns."""

        def change(txn: lmdb.Transaction) -> Meta:
            old = self.meta
            partitions = old.partitions + sum(_put(txn, PARTITION, p, p.partition) for p in commit.partitions)
            lengths = old.lengths + sum(_put(txn, LENGTH, StoredLength(*x), x[0]) for x in commit.lengths.items())
            refusals = old.refusals + sum(_put(txn, REFUSED, StoredRefusal(*x), *x) for x in commit.refused)
            streams = old.streams
            if checkpoint is not None:
                streams += sum(_put(txn, STREAM, s, s.partition, s.key) for s in checkpoint.streams())
                streams -= sum(txn.delete(_key(STREAM, *name)) for name in checkpoint.gone)
                refusals -= sum(txn.delete(_key(REFUSED, *place)) for place in checkpoint.settled)
            meta = Meta(old.name, old.fingerprint, partitions, lengths, streams, refusals)
            _put(txn, META, meta)
            return meta

        self.meta = self._transact(change)

    def close(self) -> None:
        self._environment.close()
        self._lock.release()

    # ---------------------------------------------------------------------------------------------- inside

    def _open(self, map_bytes: int) -> lmdb.Environment:
        data = self.path / "data.mdb"
        try:
            if data.exists() and (problems := verify.verify(str(data))):
                raise self._damaged(f"{data.name}: {problems[0]}")
            size = max(map_bytes, data.stat().st_size if data.exists() else 0)
            return lmdb.Environment(str(self.path), map_size=size, max_dbs=0, metasync=True, sync=True)
        except (lmdb.Error, verify.VerifyError) as error:
            raise self._damaged(str(error)) from error
        except OSError as error:
            raise CheckpointError(f"{self.path}: the store cannot be opened ({error.strerror})") from error

    def _bound(self, name: str, fingerprint: bytes) -> Meta:
        """The store's meta, written where it is new."""
        with self._environment.begin() as txn:
            raw, empty = txn.get(_key(META)), not txn.stat()["entries"]
        if raw is None and not empty:
            raise self._damaged("it does not say whose it is")
        if raw is None:
            new = Meta(name, fingerprint)
            self._transact(lambda txn: _put(txn, META, new))
            return new
        meta = self._unsealed(bytes(raw), Meta, "meta")
        if meta.name != name:
            raise CheckpointError(
                f"{self.path}: the store is of the pipeline '{meta.name}', this one is '{name}'; give it another [store] path"
            )
        if meta.fingerprint != fingerprint:
            raise CheckpointError(
                f"{self.path}: the store was written by the model {meta.fingerprint.hex()}, this one is {fingerprint.hex()} "
                "(other weights or another graph); run the model that wrote it, or begin anew with another [store] path"
            )
        return meta

    def _transact(self, change: Callable[[lmdb.Transaction], Any]) -> Any:
        while True:
            try:
                with self._environment.begin(write=True) as txn:
                    return change(txn)
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise CheckpointError(
                    f"{self.path}: the store cannot be written ({error}); is the disk full?"
                ) from error

    def _values(self, kind: bytes, struct: type[T], expected: int, what: str) -> Iterator[T]:
        """All values of a kind. Raises CheckpointError where one is damaged or missing."""
        count = 0
        try:
            with self._environment.begin() as txn, txn.cursor() as cursor:
                found = cursor.set_range(kind)
                while found and (key := bytes(cursor.key())).startswith(kind):
                    yield self._unsealed(bytes(cursor.value()), struct, f"entry {key.hex()}")
                    found, count = cursor.next(), count + 1
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error
        if count != expected:
            raise self._damaged(f"it has {count} {what}, expected {expected}")

    def _unsealed(self, blob: bytes, struct: type[T], what: str) -> T:
        digest, body = blob[:_DIGEST_BYTES], blob[_DIGEST_BYTES:]
        if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
            raise self._damaged(f"{_told(body) or what}: the checksum does not match its {len(blob)} bytes")
        if body[: len(FORMAT)] != FORMAT:
            raise CheckpointError(
                f"{self.path}: {what} has format {body[: len(FORMAT)]!r}, this version reads {FORMAT!r}; run the version that wrote it"
            )
        try:
            return msgspec.msgpack.decode(body[len(FORMAT) :], type=struct)
        except msgspec.DecodeError as error:
            raise self._damaged(f"{what}: {error}") from error

    def _damaged(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: the store is damaged: {what}; take it from a copy, or begin anew with another [store] path"
        )


def _put(txn: lmdb.Transaction, kind: bytes, value: msgspec.Struct, *identity: str | int | bytes) -> bool:
    """True where the key is new."""
    key, body = _key(kind, *identity), FORMAT + msgspec.msgpack.encode(value)
    new = txn.get(key) is None
    txn.put(key, hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body)
    return new


def _key(kind: bytes, *identity: str | int | bytes) -> bytes:
    """Names may be longer than LMDB's keys: what follows the kind is their digest."""
    return kind + hashlib.blake2b(msgspec.msgpack.encode(identity), digest_size=24).digest() if identity else kind


def _told(body: bytes) -> str | None:
    """Which stream a damaged value says it is of, where that can still be read."""
    try:
        stored = msgspec.msgpack.decode(body[len(FORMAT) :], type=StoredStream)
    except (msgspec.DecodeError, ValueError):
        return None
    return f"stream {stored.key!r} of '{stored.partition}'"
