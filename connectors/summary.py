"""What a run did, counted; records that are replayed after a crash count as replayed alone."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Summary:
    """answers: outputs given to the sink. quarantined: records of quarantined streams, passed over. replayed: records stepped a second time and not given out again.

    step_p50_us, step_p99_us: the engine's time for a batch, over the last 16,384 batches. stopped_by: the signal's name,
    None where the source was exhausted. Also what progress is told with, while it goes on.
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


def figures(summary: Summary) -> dict[str, Any]:
    """By name, to a thousandth."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(summary).items()}
