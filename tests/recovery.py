"""Kafka's part of a recovery, in memory: a group's offsets, changelogs that are compacted at random, and lives that crash."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from undertow.connectors.batch import Batch, slots
from undertow.connectors.columns import Columns
from undertow.connectors.config import Policy
from undertow.connectors.kafka.state import State
from undertow.connectors.records import Answer, Record
from undertow.engine import Engine
from undertow.engine.errors import UndertowError

from .pipelines import by_stream

INTERVAL_S = 8.0  # rows wait for as long


class Log(list[tuple[int, bytes, bytes | None]]):
    """A changelog partition: offset, key, value; compacted, its old tombstones removed with that."""

    end = 0

    def write(self, told: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in told:
            self.append((self.end, key, value))
            self.end += 1

    def compact(self, choose: random.Random) -> None:
        """Up to some record, of each key the last one stays; a tombstone among those may go too."""
        upto = choose.randint(0, len(self))
        last = {key: offset for offset, key, _ in self[:upto]}
        kept = [r for r in self[:upto] if last[r[1]] == r[0] and (r[2] is not None or choose.random() < 0.5)]
        self[:] = kept + self[upto:]


class Cluster:
    """What outlives a process. given: committed answers; letters: committed dead letters, by place."""

    def __init__(self, records: Sequence[Record]):
        self.records: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            self.records[record.partition].append(record)
        self.logs: dict[str, Log] = {p: Log() for p in self.records}
        self.committed: dict[str, int] = dict.fromkeys(self.records, 0)
        self.given: list[Answer] = []
        self.letters: list[tuple[str, int, str]] = []

    @property
    def done(self) -> bool:
        return all(self.committed[p] >= rs[-1].next_offset for p, rs in self.records.items())

    def lines(self) -> dict[Any, list[tuple[Any, ...]]]:
        return by_stream(self.given)


class Life:
    """One process. Drives `State` in the order in which the Kafka processor does."""

    def __init__(self, cluster: Cluster, engine: Engine, policy: Policy, max_streams: int, choose: random.Random):
        for key in list(engine.keys()):
            engine.drop(key)
        self.cluster, self.choose, self.letters = cluster, choose, list[tuple[str, int, str]]()
        self.batch = Batch(engine, None, policy, max_streams, 100, self)  # type: ignore[arg-type]
        self.state, self.now = State(self.batch), 100.0
        self.replay_to: dict[str, int] = {}
        self.read: dict[str, int] = {}  # changelog offsets of what is followed or was restored
        self.moved: set[str] = set()
        self.answers: list[Answer] = []

    def write(self, columns: Columns, i: int, reason: UndertowError) -> None:
        """As a file of dead letters."""
        place = columns.partitions[columns.partition[i]], int(columns.offsets[i])
        self.letters.append((*place, str(reason)))

    def follow(self, partition: str) -> None:
        """Applies what the changelog has more than before, in pieces."""
        if partition not in self.read:
            self.state.follow(partition)
            self.read[partition] = 0
        new = [r for r in self.cluster.logs[partition] if r[0] >= self.read[partition]]
        while new:
            size = self.choose.choice((1, 2, 5, 100))
            self.state.apply(partition, [(key, value) for _, key, value in new[:size]], "log")
            new = new[size:]
        self.read[partition] = self.cluster.logs[partition].end

    def start(self, partition: str) -> None:
        self.follow(partition)
        committed = self.cluster.committed[partition]
        begin = self.state.start(partition, committed, self.now, "log")
        self.replay_to[partition] = committed if committed > begin else 0

    def poll(self) -> None:
        """Some next records of some partitions that run."""
        polled: list[Record] = []
        for p in self.choose.sample(sorted(self.replay_to), self.choose.randint(0, len(self.replay_to))):
            begin = self.batch.positions.next[p]
            polled += [r for r in self.cluster.records[p] if r.offset >= begin][: self.choose.choice((1, 1, 3, 9, 40))]
        if not polled:
            return
        for answers in self.batch.answers(self.batch.columns(polled)):
            self.answers += answers
        for p in {r.partition for r in polled}:
            self.moved.add(p)
            if self.replay_to[p] and self.batch.positions.next[p] >= self.replay_to[p]:
                self.replay_to[p] = 0
                self.state.caught_up(p)

    def commit(self, leaving: frozenset[str] = frozenset(), lost: bool = False) -> None:
        """Changes, answers, letters and offsets together; lost: the transaction is aborted, and this life is over."""
        told = {
            p: self.state.changes(p, self.now, INTERVAL_S, p in leaving)
            for p in self.replay_to
            if p in leaving or p in self.moved or self.state.due(p, self.now, INTERVAL_S)
        }
        if lost:
            return
        cluster, positions = self.cluster, self.batch.positions
        for p, changes in told.items():
            cluster.logs[p].write(changes)
            cluster.committed[p] = max(cluster.committed[p], positions.next[p])
        cluster.given += self.answers
        cluster.letters += self.letters
        self.answers, self.letters = [], []
        self.moved.clear()
        for p in leaving:
            self.drop(p)

    def drop(self, partition: str) -> None:
        self.state.drop([partition])
        self.read.pop(partition, None)
        self.replay_to.pop(partition, None)


def lived(cluster: Cluster, engine: Engine, policy: Policy, max_streams: int, seed: int) -> int:
    """Lives that crash or hand over, until all is committed; how many there were."""
    choose, lives = random.Random(seed), 0
    while not cluster.done:
        lives += 1
        life = Life(cluster, engine, policy, max_streams, choose)
        for p in cluster.records:
            life.start(p)
        for _ in range(choose.choice((2, 5, 10, 30))):
            turn(life)
            life.now += choose.choice((0.0, 0.1, 1.0, 3.0, 9.0))
        if choose.random() < 0.3:
            life.commit(frozenset(life.replay_to))
        elif choose.random() < 0.3:
            life.commit(lost=True)
    return lives


def turn(life: Life) -> None:
    """A poll, a commit now and then, and what else happens to a cluster meanwhile."""
    choose, cluster = life.choose, life.cluster
    life.poll()
    if choose.random() < 0.5:
        life.commit()
    if choose.random() < 0.2:
        cluster.logs[choose.choice(sorted(cluster.logs))].compact(choose)
    if choose.random() < 0.1:  # a partition goes and comes back
        p = choose.choice(sorted(life.replay_to))
        life.commit(frozenset({p}))
        life.start(p)


def whole(records: Sequence[Record], engine: Engine, policy: Policy, max_streams: int) -> Cluster:
    """What one life gives that takes one record at a time and is never interrupted."""
    cluster = Cluster(records)
    life = Life(cluster, engine, policy, max_streams, random.Random(0))
    for p in cluster.records:
        life.start(p)
    for record in records:
        for answers in life.batch.answers(life.batch.columns([record])):
            life.answers += answers
    life.commit()
    return cluster


def engine_of(path: Any, backend: str = "numba", max_streams: int = 64, decode: dict[str, Any] | None = None) -> Engine:
    return Engine(path, backend=backend, max_streams=slots(max_streams), decode=decode)
