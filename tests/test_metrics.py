"""Metrics: what each event adds to, as Prometheus reads it, and what that costs."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from undertow.connectors.metrics import COUNTERS, HISTOGRAMS, LATENCY_S, Distribution, Metrics


def seen(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """What Prometheus would read: by name and the labels other than the pipeline's."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for s in family.samples:
            if s.name.startswith("undertow_"):
                labels = dict(s.labels)
                assert labels.pop("pipeline") == "test"
                found[s.name.removeprefix("undertow_"), *map(labels.get, sorted(labels, reverse=True))] = (
                    s.value
                )  # topic, then partition
    return found


def test_every_event_is_counted() -> None:
    """Each method moves its own numbers, and no others."""
    events = {
        lambda m: m.polled(3, 70): {("records_total",): 3, ("frames_total",): 70},
        lambda m: m.replayed(4): {("replayed_records_total",): 4},
        lambda m: m.answered(5): {("answers_total",): 5},
        lambda m: m.restored(6): {("rows_restored_total",): 6},
        lambda m: m.dead_letter(): {("dead_letters_total",): 1},
        lambda m: m.dead_letter(2): {("dead_letters_total",): 2},
        lambda m: m.late(7): {("late_frames_total",): 7},
        lambda m: m.quarantined(): {("quarantined_records_total",): 1},
        lambda m: m.aborted(): {("transactions_aborted_total",): 1},
        lambda m: m.fenced(): {("fenced_total",): 1},
        lambda m: m.assigned([("t", 0), ("t", 1)]): {("assigned_partitions",): 2, ("rebalances_total",): 1},
        lambda m: m.state(8, None): {("resident_streams",): 8},
        lambda m: m.lag({("t", 0): 9}): {("lag_records", "t", "0"): 9},
        lambda m: m.standby_lag({("u", 1): 10}): {("standby_lag_records", "u", "1"): 10},
        lambda m: m.restoring(("t", 2), 1, 4): {("restore_progress_ratio", "t", "2"): 0.25},
        lambda m: m.restoring(("t", 2), 0, 0): {("restore_progress_ratio", "t", "2"): 1},
    }
    before = seen(Metrics("test"))
    for event, expected in events.items():
        metrics = Metrics("test")
        event(metrics)
        after = seen(metrics)
        assert {name: value for name, value in after.items() if value != before.get(name)} == expected


def test_distributions() -> None:
    """A histogram's buckets say how many values are at most each bound; sum and count are those of the values."""
    metrics = Metrics("test")
    metrics.stepped(0.001, 16)
    metrics.stepped(0.0011, 17)
    metrics.checkpointed(99.0)
    metrics.committed(0.02, rows_written=5, latency_s=np.array([0.001, 0.002, 500.0]))
    metrics.committed(0.02, latency_s=np.array([]))
    found = seen(metrics)
    assert [found["step_seconds_bucket", le] for le in ("0.0005", "0.001", "0.0025", "+Inf")] == [0, 1, 2, 2]
    assert [found["batch_rows_bucket", le] for le in ("4.0", "16.0", "64.0")] == [0, 1, 2]
    assert [found["checkpoint_seconds_bucket", le] for le in ("30.0", "+Inf")] == [0, 1]
    assert [found["end_to_end_seconds_bucket", le] for le in ("0.001", "0.0025", "300.0", "+Inf")] == [1, 2, 2, 3]
    assert found["end_to_end_seconds_sum",] == pytest.approx(500.003)
    assert (found["step_seconds_count",], found["commit_seconds_count",], found["rows_written_total",]) == (2, 2, 5)


def test_many_values_are_as_many_single_ones() -> None:
    """Values added as an array are counted as one after the other, on the bounds themselves too."""
    values = np.concatenate([np.random.default_rng(0).exponential(2.0, 500), LATENCY_S, [-0.5, 0.0]])
    together, single = Distribution(LATENCY_S), Distribution(LATENCY_S)
    together.add_many(values)
    for value in values.tolist():
        single.add(value)
    assert together.counts == single.counts
    assert together.total == pytest.approx(single.total)


def test_the_age_of_state_grows() -> None:
    """The age is that of the moment when one looks, though nobody tells anything any more."""
    now = [100.0]
    metrics = Metrics("test", clock=lambda: now[0])
    metrics.state(3, unwritten_since=90.0)
    assert seen(metrics)["state_age_seconds",] == 10
    now[0] = 130.0
    assert seen(metrics)["state_age_seconds",] == 40
    metrics.state(3, None)
    assert seen(metrics)["state_age_seconds",] == 0


def test_a_partition_that_left_is_forgotten() -> None:
    """After a rebalance nothing is said of partitions that are others' now."""
    metrics = Metrics("test")
    metrics.assigned([("t", 0), ("t", 1)])
    metrics.lag({("t", 0): 5, ("t", 1): 6})
    for p in (0, 1):
        metrics.restoring(("t", p), 1, 1)
    metrics.assigned([("t", 1)])
    found = seen(metrics)
    assert {n for n in found if n[0] in ("lag_records", "restore_progress_ratio")} == {
        ("lag_records", "t", "1"),
        ("restore_progress_ratio", "t", "1"),
    }


def test_names() -> None:
    """Names follow Prometheus's conventions, each has a text, and two pipelines of a process do not meet."""
    text = generate_latest(Metrics("test").registry).decode()
    names = re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE)
    own = {name for name, _ in names if name.startswith("undertow_")}
    assert {f"undertow_{name}_total" for name in COUNTERS} | {f"undertow_{name}" for name in HISTOGRAMS} <= own
    assert all(re.fullmatch(r"undertow_[a-z_]+", name) for name in own)
    assert {name for name, kind in names if name.endswith("_total")} >= {n for n, kind in names if kind == "counter"}
    assert "process_resident_memory_bytes" in text
    Metrics("other").polled(1, 1)
    assert 'pipeline="other"' not in generate_latest(Metrics("test").registry).decode()


def test_the_docs_say_every_metric() -> None:
    """docs/pipelines.md has each metric with its kind, and no others."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "pipelines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+)[^|]* \| (`undertow_[^|]*) \| .* \|$", text, re.MULTILINE)
    said = {name: kind for kind, names in rows for name in re.findall(r"`(\w+)`", names)}
    exposed = re.findall(
        r"^# TYPE (undertow_\w+) (\w+)$", generate_latest(Metrics("test").registry).decode(), re.MULTILINE
    )
    assert said == dict(exposed)


def test_a_batch_costs_microseconds() -> None:
    """All that a batch tells takes under 5 microseconds of a core; the median of many, since others use the machine too."""
    metrics, costs = Metrics("test"), []
    for _ in range(200):
        begin = time.perf_counter()
        for _ in range(10):
            metrics.polled(4096, 8192)
            metrics.stepped(0.0012, 4096)
            metrics.answered(8192)
            metrics.late(0)
        costs.append((time.perf_counter() - begin) / 10)
    assert np.median(costs) < 5e-6
