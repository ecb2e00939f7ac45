"""What a pipeline has stored of its streams between two runs, in a changelog or in the local store: to look at, take out and put in."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..engine import Engine, Key
from ..engine.artifact import StepSpec
from ..engine.errors import CheckpointError, ConfigError
from .config import PlacedPipeline
from .numbering import Numbering, Span
from .output_lines import stream_name, stream_text
from .store import Checkpoint, Commit, Store
from .streams import Kept
from .times import format_time

Wanted = Callable[[str, Key], bool]  # partition and key


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A stream as it was when all records of its partition below `offset` had been taken.

    size: bytes of its state. fits: its states are those of the pipeline's model. snapshot: where it was asked for and fits.
    """

    partition: str
    key: Key
    offset: int
    kept: Kept
    size: int
    fits: bool
    snapshot: bytes | None = None

    def facts(self) -> dict[str, Any]:
        last = self.kept.last_ns
        return {
            "stream": stream_name(self.key),
            "partition": self.partition,
            "offset": self.offset,
            "frames": self.kept.frames,
            "event_time": None if last is None else format_time(last),
            "bytes": self.size,
            "fits": self.fits,
        }


@dataclass(frozen=True, slots=True)
class StoredPlace:
    """A partition. committed: records below were answered, None where nothing was. replay_from: where the next run has to begin
    to read, None where nothing is stored. watermark_ns: there. fingerprint: of the model that wrote it."""

    partition: str
    committed: int | None
    replay_from: int | None
    watermark_ns: int | None
    fingerprint: bytes | None

    @property
    def behind(self) -> int:
        """Offsets below the committed one that may not be in the rows."""
        return 0 if self.committed is None or self.replay_from is None else self.committed - self.replay_from

    def facts(self) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "committed": self.committed,
            "replay_from": self.replay_from,
            "watermark": None if self.watermark_ns is None else format_time(self.watermark_ns),
            "fingerprint": None if self.fingerprint is None else self.fingerprint.hex(),
        }


@dataclass(frozen=True, slots=True)
class StoredStreams:
    """What was asked for, by partition and key. fingerprint: of the pipeline's model."""

    places: dict[str, StoredPlace]
    rows: list[StoredRow]
    fingerprint: bytes


class States(Protocol):
    """engine: of the pipeline's model, for its rows and snapshots."""

    engine: Engine

    def read(self, wanted: Wanted, snapshots: bool = False) -> StoredStreams:
        """Raises CheckpointError, ConnectorError."""
        ...

    def delete(self, row: StoredRow) -> None:
        """The stream begins anew with its next record. Raises CheckpointError, ConnectorError where a run could be in the way."""
        ...

    def put(self, key: Key, snapshot: bytes, partition: str | None, replace: bool) -> StoredRow:
        """Stores a stream as it is in a snapshot, to go on with the first record that is not committed. replace: a stream that is
        there. Raises SnapshotError, CheckpointError, ConnectorError, ConfigError."""
        ...


class LocalStates:
    """The local store. Nothing runs on it meanwhile: it is locked."""

    def __init__(self, placed: PlacedPipeline, engine: Engine):
        self.placed, self.engine = placed, engine

    def read(self, wanted: Wanted, snapshots: bool = False) -> StoredStreams:
        store = self._store()
        try:
            found = store.recovered()
            places = {
                p.partition: StoredPlace(p.partition, p.committed, p.checkpoint, p.watermark_ns, store.meta.fingerprint)
                for p in found.partitions.values()
            }
            rows = []
            for s in store.streams():
                if wanted(s.partition, s.key):
                    at, blob = places[s.partition].replay_from or 0, s.snapshot if snapshots else None
                    rows.append(StoredRow(s.partition, s.key, at, s.kept, len(s.snapshot), True, blob))
        finally:
            store.close()
        return StoredStreams(places, sorted(rows, key=_order), self.engine.fingerprint)

    def delete(self, row: StoredRow) -> None:
        store = self._store()
        try:
            place = store.recovered().partitions[row.partition]
            if place.checkpoint != place.committed:
                raise CheckpointError(
                    f"{store.path}: '{row.partition}' is committed up to {place.committed}, its rows stand for {place.checkpoint}: the next run steps "
                    "what is between, and the stream would come back with that; run the pipeline and end it with a signal first"
                )
            store.write(Commit({}, []), Checkpoint(list, [(row.partition, row.key)], []))
        finally:
            store.close()

    def put(self, key: Key, snapshot: bytes, partition: str | None, replace: bool) -> StoredRow:
        raise ConfigError(
            f"{self.placed.file}: [source] type is {self.placed.pipeline.source.__struct_config__.tag!r}: states are imported into changelogs, those of "
            "pipelines from Kafka; in a program use Engine.restore"
        )

    def _store(self) -> Store:
        path: Path = self.placed.store_path
        if not (path / "data.mdb").exists():
            raise CheckpointError(
                f"{path}: there is no store; the pipeline has not run, or its [store] path is another"
            )
        return Store(path, self.placed.pipeline.name, self.engine.fingerprint)


def named(text: str, partition: str | None) -> Wanted:
    """The stream of this name, as it is shown: text, or `base64:..` of bytes that are none."""
    return lambda place, key: stream_text(key) == text and (partition is None or place == partition)


def only(found: StoredStreams, text: str, partition: str | None) -> StoredRow:
    """The row of the stream. Raises CheckpointError where there is none, or one in each of several partitions."""
    if not found.rows:
        where = partition or f"{len(found.places)} partitions"
        raise CheckpointError(
            f"stream '{text}': nothing is stored of it in {where}; `undertow state list` shows what is"
        )
    if len(found.rows) > 1:
        places = ", ".join(row.partition for row in found.rows)
        raise CheckpointError(f"stream '{text}' is stored in {places}; say which with --partition")
    return found.rows[0]


def kept_of(spec: StepSpec, frames: int) -> Kept:
    """Of a stream of which only the state is known: it has seen so many frames, when is not known."""
    numbering, spans = Numbering.of(spec), list[Span]()
    if frames and not numbering.at_once:
        numbering.answered(spans, Span(0, frames, None, 0))  # those that are answered leave
    return Kept(frames, spans=spans)


def states_of(engine: Engine, row: StoredRow) -> dict[str, np.ndarray]:
    """The stream's states by name. Raises CheckpointError, SnapshotError."""
    check_fits(row)
    engine.restore(row.key, row.snapshot or b"")
    try:
        return engine.state(row.key)
    finally:
        engine.drop(row.key)


def check_fits(row: StoredRow) -> None:
    if not row.fits:
        raise CheckpointError(
            f"stream {row.key!r}: its state is of a model with other states than [model] path; give the pipeline the model that wrote it"
        )


def _order(row: StoredRow) -> tuple[str, str]:
    return row.partition, stream_text(row.key)
