"""The local store: what is damaged or belongs to something else is refused, commits are atomic, one process a store."""

from pathlib import Path

import lmdb
import numpy as np
import pytest

import undertow as ut
from undertow.connectors.config import PlacedPipeline
from undertow.connectors.memory import MemorySink, MemorySource
from undertow.connectors.running import run
from undertow.connectors.store import Checkpoint, Commit, Store, StoredPartition, StoredStream
from undertow.connectors.streams import Kept

from .pipelines import SIZE, pipeline
from .step_graph import lookahead_step

MODEL = b"m" * 16


def stopped(folder: Path) -> PlacedPipeline:
    """A pipeline whose store holds two open streams."""
    placed = pipeline(folder)
    frames = {key: np.ones((9, SIZE), np.float32) for key in ("pump-7", "pump-8")}
    records = [r for r in MemorySource.of(frames, chunk=3)._records if not r.end]
    run(placed, source=MemorySource(records), sink=MemorySink())
    return placed


def again(placed: PlacedPipeline) -> None:
    run(placed, source=MemorySource([]), sink=MemorySink())


def stream(key: str, size: int = 10) -> StoredStream:
    return StoredStream("p", key, Kept(1), b"x" * size)


def values(path: Path) -> dict[bytes, bytes]:
    with lmdb.open(str(path)) as environment, environment.begin() as txn:
        return {bytes(k): bytes(v) for k, v in txn.cursor()}


def put(path: Path, key: bytes, value: bytes | None) -> None:
    with lmdb.open(str(path)) as environment, environment.begin(write=True) as txn:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)


def test_every_value_damaged_or_gone_is_refused(tmp_path: Path) -> None:
    """A flipped bit in any value, or a value that is missing, is refused with the store's path, and a stream's by its name."""
    placed = stopped(tmp_path)
    kept = values(placed.store_path)
    assert sorted(key[:1] for key in kept) == [b"l", b"m", b"p", b"p", b"s", b"s"]
    for key, value in kept.items():
        for i in {3, 16, 21, len(value) // 2, len(value) - 1}:
            put(placed.store_path, key, value[:i] + bytes([value[i] ^ 4]) + value[i + 1 :])
            with pytest.raises(ut.CheckpointError, match=r"test\.state: "):
                again(placed)
        put(placed.store_path, key, None)
        with pytest.raises(ut.CheckpointError, match=r"test.state: the store is damaged: it (has [01] |does not say)"):
            again(placed)
        put(placed.store_path, key, value)
    key, value = next((k, v) for k, v in kept.items() if k[:1] == b"s" and b"pump-7" in v)
    put(placed.store_path, key, value[:-1] + bytes([value[-1] ^ 1]))
    with pytest.raises(
        ut.CheckpointError, match=r"test.state: the store is damaged: stream 'pump-7' of 'pump-7': the checksum"
    ):
        again(placed)


def test_a_damaged_file_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    """A file cut short, and a wrong page pointer, are errors that name the store, never a crash of the process."""
    placed = stopped(tmp_path)
    data = placed.store_path / "data.mdb"
    whole = data.read_bytes()
    page = 4096
    for wrong in (
        whole[: 2 * page + 100],
        whole[: page // 2],
        b"\0" * len(whole),
        whole[: 2 * page] + b"\xff" * (len(whole) - 2 * page),
    ):
        data.write_bytes(wrong)
        with pytest.raises(ut.CheckpointError, match=r"test.state: the store is damaged: .*take it from a copy"):
            again(placed)
    data.write_bytes(whole)
    again(placed)


def test_the_store_belongs_to_a_name_and_a_model(tmp_path: Path) -> None:
    """Another pipeline's store and another model's are refused, with what to do."""
    placed = stopped(tmp_path)
    with pytest.raises(ut.CheckpointError, match="is of the pipeline 'test', this one is 'other'; give it another"):
        Store(placed.store_path, "other", MODEL)
    with pytest.raises(ut.CheckpointError, match=r"was written by the model .* run the model that wrote it"):
        again(pipeline(tmp_path, lookahead_step(3)))


def test_one_process_a_store(tmp_path: Path) -> None:
    """A store that is open is refused with the pid of its process, and free again once closed."""
    store = Store(tmp_path, "a", MODEL)
    for _ in range(2):
        with pytest.raises(ut.CheckpointError, match=r"process \d+ runs this store; stop it first"):
            Store(tmp_path, "a", MODEL)
    store.close()
    Store(tmp_path, "a", MODEL).close()


def test_the_store_grows(tmp_path: Path) -> None:
    """A checkpoint larger than the map is written whole, its streams asked for anew each time the map grows."""
    store, asked = Store(tmp_path, "a", MODEL, map_bytes=64 * 2**10), []

    def streams() -> list[StoredStream]:
        asked.append(1)
        return [stream(str(i), 1000) for i in range(1000)]

    store.write(Commit({"file": 9}, [StoredPartition("p", 5, 5, 7)]), Checkpoint(streams, [], []))
    assert len(asked) > 1
    store.close()
    store = Store(tmp_path, "a", MODEL)
    assert sorted(s.key for s in store.streams()) == sorted(map(str, range(1000)))
    assert store.recovered().lengths == {"file": 9}
    assert store.recovered().partitions == {"p": StoredPartition("p", 5, 5, 7)}
    store.close()


def test_a_failed_checkpoint_changes_nothing(tmp_path: Path) -> None:
    """What fails in the middle of a checkpoint leaves the one before: its lengths, its offsets and its streams."""
    store = Store(tmp_path, "a", MODEL)
    store.write(Commit({"f": 1}, [StoredPartition("p", 1, 1)]), Checkpoint(lambda: [stream("a"), stream("b")], [], []))

    def broken() -> list[StoredStream]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(Commit({"f": 2}, [StoredPartition("p", 2, 2)]), Checkpoint(broken, [("p", "a")], []))
    store.write(Commit({"g": 3}, []))
    store.close()
    store = Store(tmp_path, "a", MODEL)
    assert store.recovered().lengths == {"f": 1, "g": 3}
    assert store.recovered().partitions["p"].checkpoint == 1
    assert {s.key for s in store.streams()} == {"a", "b"}
    store.write(Commit({}, []), Checkpoint(lambda: [stream("a")], [("p", "b"), ("p", "never seen")], []))
    assert [s.key for s in store.streams()] == ["a"]
    store.close()


def test_names_of_any_length(tmp_path: Path) -> None:
    """Partitions and keys longer than LMDB's keys, and the same bytes and text as keys, are streams of their own."""
    long = "x" * 3000
    keys = [long, (long.encode(),), long + "y", 1, "1", (b"1",)]
    store = Store(tmp_path, "a", MODEL)
    many = [StoredStream(long, key, Kept(1), b"") for key in keys]
    store.write(Commit({}, [StoredPartition(long, 1)]), Checkpoint(lambda: many, [], []))
    assert {(type(s.key), s.key) for s in store.streams()} == {(type(s.key), s.key) for s in many}
    store.write(Commit({}, []), Checkpoint(list, [(long, s.key) for s in many[1:]], []))
    assert [s.key for s in store.streams()] == [long]
    store.close()
