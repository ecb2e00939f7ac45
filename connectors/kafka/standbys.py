"""Warm standbys: the streams of partitions that others run, kept as their changelogs say, so that this process could go on with them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiokafka import TopicPartition

from ..metrics import Metrics
from .changelog import ChangelogReader, Records
from .cluster import Cluster
from .intake import partition_name
from .state import State

log = logging.getLogger("undertow.kafka")
Apply = Callable[[TopicPartition, TopicPartition, Records], Awaitable[None]]  # partition, its changelog, what came
Alone = Callable[[Callable[[], Any]], Awaitable[Any]]


class Standbys:
    """apply: takes changelog records over. alone: runs work in a thread, nothing else beside it.

    warm: where the changelogs of partitions were left that are followed.
    """

    def __init__(self, cluster: Cluster, state: State, metrics: Metrics, apply: Apply, alone: Alone):
        self.cluster, self.state, self.metrics = cluster, state, metrics
        self.warm: dict[TopicPartition, int] = {}
        self._apply, self._alone = apply, alone
        self._reader = ChangelogReader(cluster.reader)
        self._task: asyncio.Task[None] | None = None

    def follow(self, partitions: Collection[TopicPartition]) -> None:
        """From now on these, and no others; whoever was followed must have been let go by `leave`."""
        if partitions or self.warm:
            self._task = asyncio.create_task(self._follow(frozenset(partitions)))

    async def leave(self, taken: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Stops following. Of the partitions that this process takes over: where it has left the changelogs of those that were followed."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("following failed", extra={"reason": f"{type(error).__name__}: {error}"})
                await self._forget(list(self.warm))
        return {tp: self.warm.pop(tp) for tp in taken if tp in self.warm}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._reader.close()

    async def _follow(self, partitions: frozenset[TopicPartition]) -> None:
        await self._forget(self.warm.keys() - partitions)
        if not partitions:
            return
        await self._alone(lambda: [self.state.follow(partition_name(tp)) for tp in partitions - self.warm.keys()])
        await self.cluster.with_changelogs({tp.topic for tp in partitions})
        logs = {self.cluster.log_of(tp): tp for tp in sorted(partitions)}
        await self._reader.follow({log_tp: self.warm.get(tp) for log_tp, tp in logs.items()})
        following = self.cluster.assignor.following
        while True:
            for log_tp, records in (await self._reader.poll()).items():
                await self._apply(logs[log_tp], log_tp, records)
                self.warm[logs[log_tp]] = self._reader.positions[log_tp]
            lags = {(logs[log_tp].topic, log_tp.partition): lag for log_tp, lag in self._reader.lags().items()}
            following.update({tp: lag for tp, lag in lags.items() if tp in following})
            self.metrics.standby_lag(lags)

    async def _forget(self, partitions: Collection[TopicPartition]) -> None:
        await self._alone(lambda: self.state.drop({partition_name(tp) for tp in partitions}))
        for tp in list(partitions):
            self.warm.pop(tp, None)
