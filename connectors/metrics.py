"""What a pipeline counts and measures, for Prometheus.

The hot path only adds to plain numbers: an event costs well under a microsecond and takes no lock. They become Prometheus's
families when somebody looks, in the thread of the one who looks: each number is right, and of two that belong together one
may be an event older. A pipeline without `[metrics]` counts just the same, and nobody looks.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Partition = tuple[str, int]  # topic and number

STEP_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
COMMIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
ROWS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)

COUNTERS = {
    "records": "Records taken from the source, but for those replayed.",
    "frames": "Frames of those records.",
    "answers": "Outputs given to the sink.",
    "replayed_records": "Records stepped a second time after a restart or a rebalance, and not given out again.",
    "rows_written": "Rows of streams written to the store or changelog.",
    "rows_restored": "Rows of streams read back from the store or changelog.",
    "dead_letters": "Records that could not be stepped and went to the dead letters.",
    "late_frames": "Frames dropped because their stream had seen them already.",
    "quarantined_records": "Records passed over because their stream gave what is not finite.",
    "transactions_aborted": "Transactions given up.",
    "fenced": "Times that this process was shut out because another one took its place.",
    "rebalances": "Assignments of partitions to this process.",
}
HISTOGRAMS = {
    "batch_rows": ("Streams stepped together by one call of the engine.", ROWS),
    "step_seconds": ("Time of one call of the engine.", STEP_S),
    "commit_seconds": ("Time of a commit: outputs made durable, offsets written.", COMMIT_S),
    "checkpoint_seconds": ("Time of writing the rows of a checkpoint.", COMMIT_S),
    "end_to_end_seconds": ("From a record's event time to the commit of its answer.", LATENCY_S),
}


class Distribution:
    """Values counted by bucket: those up to each bound, and those above all."""

    def __init__(self, bounds: Sequence[float]):
        self.bounds = bounds
        self.counts, self.total = [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_many(self, values: np.ndarray) -> None:
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.counts = [a + b for a, b in zip(self.counts, found.tolist(), strict=True)]
        self.total += float(values.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """As Prometheus has them: how many are at most each bound."""
        sums = np.cumsum(self.counts.copy()).tolist()
        return list(zip([*map(str, self.bounds), "+Inf"], sums, strict=True))


class Metrics(Collector):
    """One pipeline's. A method for each event, called as it happens, with numbers; `registry` is what is looked at.

    clock: seconds, as the processor's.
    """

    def __init__(self, pipeline: str, clock: Callable[[], float] = time.monotonic):
        self.pipeline, self.clock = pipeline, clock
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.distributions = {name: Distribution(bounds) for name, (_, bounds) in HISTOGRAMS.items()}
        self._resident, self._unwritten_since = 0, None
        self._lag: Mapping[Partition, int] = {}
        self._standby_lag: Mapping[Partition, int] = {}
        self._progress: dict[Partition, float] = {}
        self._assigned = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    # ------------------------------------------------------------------------------------------ the way of a batch

    def polled(self, records: int, frames: int) -> None:
        """Records came, with so many frames; not those that are replayed."""
        self.counts["records"] += records
        self.counts["frames"] += frames

    def replayed(self, records: int) -> None:
        self.counts["replayed_records"] += records

    def stepped(self, seconds: float, rows: int) -> None:
        """The engine was called once, for so many streams."""
        self.distributions["step_seconds"].add(seconds)
        self.distributions["batch_rows"].add(rows)

    def answered(self, outputs: int) -> None:
        self.counts["answers"] += outputs

    def committed(self, seconds: float, rows_written: int = 0, latency_s: np.ndarray | None = None) -> None:
        """A commit took so long. latency_s: of each record in it, now minus event time; of those that have one."""
        self.distributions["commit_seconds"].add(seconds)
        self.counts["rows_written"] += rows_written
        if latency_s is not None and len(latency_s):
            self.distributions["end_to_end_seconds"].add_many(latency_s)

    def checkpointed(self, seconds: float) -> None:
        self.distributions["checkpoint_seconds"].add(seconds)

    def state(self, resident: int, unwritten_since: float | None) -> None:
        """Streams in memory; and, by the clock, since when the oldest change of one is not in a row. None: all are written."""
        self._resident, self._unwritten_since = resident, unwritten_since

    # ------------------------------------------------------------------------------------------ partitions

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """A rebalance gave this process exactly these; what was told of others is forgotten."""
        mine = frozenset(partitions)
        self.counts["rebalances"] += 1
        self._assigned = len(mine)
        self._progress = {p: done for p, done in self._progress.items() if p in mine}
        self._lag = {p: n for p, n in self._lag.items() if p in mine}

    def lag(self, records: Mapping[Partition, int]) -> None:
        """How many records of each partition are not committed yet. The mapping is kept, so give a new one each time."""
        self._lag = records

    def standby_lag(self, records: Mapping[Partition, int]) -> None:
        """How many records of each followed changelog are not read yet. The mapping is kept, so give a new one each time."""
        self._standby_lag = records

    def restoring(self, partition: Partition, done: int, total: int) -> None:
        """`done` of `total` of what a partition needs (changelog records, input to replay) are there; equal: it is restored."""
        self._progress[partition] = done / total if total else 1.0

    def restored(self, rows: int) -> None:
        """So many rows more were read back."""
        self.counts["rows_restored"] += rows

    # ------------------------------------------------------------------------------------------ what went wrong

    def dead_letter(self, records: int = 1) -> None:
        self.counts["dead_letters"] += records

    def late(self, frames: int) -> None:
        self.counts["late_frames"] += frames

    def quarantined(self, records: int = 1) -> None:
        self.counts["quarantined_records"] += records

    def aborted(self) -> None:
        """A transaction was given up."""
        self.counts["transactions_aborted"] += 1

    def fenced(self) -> None:
        """Another process has taken this one's place."""
        self.counts["fenced"] += 1

    # ------------------------------------------------------------------------------------------ for Prometheus

    def collect(self) -> Iterator[Metric]:
        """The families, as `registry` asks for them."""
        for name, text in COUNTERS.items():
            family = CounterMetricFamily(f"undertow_{name}", text, labels=["pipeline"])
            family.add_metric([self.pipeline], self.counts[name])
            yield family
        for name, (text, _) in HISTOGRAMS.items():
            family = HistogramMetricFamily(f"undertow_{name}", text, labels=["pipeline"])
            values = self.distributions[name]
            family.add_metric([self.pipeline], values.buckets(), values.total)
            yield family
        since = self._unwritten_since
        yield self._gauge("resident_streams", "Streams whose state is in memory.", self._resident)
        age = 0.0 if since is None else max(0.0, self.clock() - since)
        yield self._gauge("state_age_seconds", "Age of the oldest change of a stream that is in no row yet.", age)
        yield self._gauge("assigned_partitions", "Partitions that this process has.", self._assigned)
        yield self._by_partition("lag_records", "Records of a partition that are not committed yet.", self._lag)
        text = "Records of a changelog that a warm standby has not read yet."
        yield self._by_partition("standby_lag_records", text, self._standby_lag)
        text = "How much of a partition's state is back, 0 to 1."
        yield self._by_partition("restore_progress_ratio", text, self._progress.copy())

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"undertow_{name}", text, labels=["pipeline"])
        family.add_metric([self.pipeline], value)
        return family

    def _by_partition(self, name: str, text: str, values: Mapping[Partition, float]) -> Metric:
        family = GaugeMetricFamily(f"undertow_{name}", text, labels=["pipeline", "topic", "partition"])
        for (topic, partition), value in values.items():
            family.add_metric([self.pipeline, topic, str(partition)], value)
        return family
