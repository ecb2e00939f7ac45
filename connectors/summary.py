"""What a run did, counted; records that are replayed after a crash count as replayed alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

COUNTS = (
    "records", "frames", "answers", "streams_seen", "dead_letters", "late_frames", "quarantined", "replayed", "commits", "checkpoints",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """answers: outputs given to the sink. quarantined: records of quarantined streams, passed over. replayed: records stepped a second time and not given out again.

    step_p50_us, step_p99_us: the engine's time for a batch, over the last 16,384 batches. stopped_by: the signal's name,
    None where the source was exhausted. lag: records of the partitions of Kafka that it has, and has not taken yet; None where it
    has none. Also what progress is told with, while it goes on.
    """

    records: int
    frames: int
    answers: int
    streams_seen: int
    streams_live: int
    dead_letters: int
    late_frames: int
    quarantined: int
    replayed: int
    commits: int
    checkpoints: int
    seconds: float
    steps_per_s: float
    step_p50_us: float
    step_p99_us: float
    backend: str
    last_commit_s: float  # ago
    stopped_by: str | None = None
    lag: int | None = None


def total(
    lives: Sequence[Summary], running: Sequence[Summary], seconds: float, stopped_by: str | None = None
) -> Summary:
    """What several processes of one pipeline did in `seconds`. lives: of all that there were; running: of those that go on.

    Streams that are live, lag and last commit are those of `running`. step_p50_us is the middle process's, step_p99_us the slowest one's.
    """
    counts = {name: sum(getattr(life, name) for life in lives) for name in COUNTS}
    halves, lags = sorted(life.step_p50_us for life in lives), [one.lag for one in running if one.lag is not None]
    return Summary(
        **counts,
        streams_live=sum(one.streams_live for one in running),
        seconds=seconds,
        steps_per_s=counts["frames"] / seconds if seconds else 0.0,
        step_p50_us=halves[len(halves) // 2] if halves else 0.0,
        step_p99_us=max((life.step_p99_us for life in lives), default=0.0),
        backend=next((life.backend for life in lives if life.backend), ""),
        last_commit_s=min((one.last_commit_s for one in running or lives), default=seconds),
        stopped_by=stopped_by,
        lag=sum(lags) if lags else None,
    )


def figures(summary: Summary) -> dict[str, Any]:
    """By name, to a thousandth."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(summary).items()}
