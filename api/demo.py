"""What the demo needs to know: a folder with a pipeline and recordings with their truth, and how a run compares with torch."""

import json
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .engine import Engine
from .engine.artifact import Artifact, read_artifact
from .engine.errors import ConfigError
from .report import Portrait

WARM_UP = 50  # steps that are not timed
PIPELINE = "pipeline.toml"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Recordings to run. frames, truth and expected are by stream; expected: torch's log-probabilities (T, labels)."""

    folder: Path
    artifact: Artifact
    labels: tuple[str, ...]
    frames: Mapping[str, np.ndarray]
    truth: Mapping[str, int]
    expected: Mapping[str, np.ndarray]

    @property
    def rate_hz(self) -> float:
        """Frames of a stream in a second."""
        return self.artifact.spec.sample_rate_hz or 1.0

    @property
    def total(self) -> int:
        """Frames of all recordings."""
        return sum(map(len, self.frames.values()))


@dataclass(frozen=True, slots=True)
class Answers:
    """By stream, for each frame (T,): which label is the likeliest, -1 where nothing was said, and its probability."""

    label: Mapping[str, np.ndarray]
    confidence: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, scores: Mapping[str, np.ndarray]) -> "Answers":
        """From log-probabilities (T, labels)."""
        return cls({k: s.argmax(1) for k, s in scores.items()}, {k: np.exp(s.max(1)) for k, s in scores.items()})


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a run did. confusion (labels, labels): frames by truth and prediction; by_recording: the majority's accuracy.

    worst_difference: between the run's and torch's probability of a label. disagreements: frames with another label.
    """

    accuracy: float
    torch_accuracy: float
    by_recording: float
    torch_by_recording: float
    worst_difference: float
    disagreements: int
    confusion: np.ndarray


def excerpt() -> Path:
    """The bundle that is part of the package: one held-out person, each activity with either hand, ten seconds each."""
    return Path(__file__).resolve().parent / "excerpt"


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, as examples/activity/export.py writes it. Raises ConfigError, ArtifactError."""
    files = {name: folder / name for name in ("activity.onnx", "truth.json", "torch.npz", "recordings", PIPELINE)}
    for name, path in files.items():
        if not path.exists():
            raise ConfigError(
                f"{folder}: has no {name}, so there is no demo in it; "
                "leave the folder out, or make one: python examples/activity/export.py --out demo"
            )
    artifact = read_artifact(files["activity.onnx"])
    labels = artifact.spec.labels or ()
    truth = {key: labels.index(name) for key, name in json.loads(files["truth.json"].read_text()).items()}
    frames = {key: np.load(files["recordings"] / f"{key}.npy", allow_pickle=False) for key in truth}
    with np.load(files["torch.npz"], allow_pickle=False) as archive:
        expected = {key: archive[key] for key in truth}
    return Bundle(folder, artifact, labels, frames, truth, expected)


def compare(bundle: Bundle, answers: Answers) -> Comparison:
    """A run's answers against the truth and against torch.

    Raises ConfigError where a stream's answers are missing or are not one for each frame.
    """
    for key, expected in bundle.expected.items():
        got = int((answers.label[key] >= 0).sum()) if key in answers.label else 0
        if got != len(expected):
            raise ConfigError(
                f"stream '{key}': the run gave {got} answers, expected {len(expected)}, one for each frame"
            )
    torch = Answers.of(bundle.expected)
    ours, theirs = _hits(bundle, answers), _hits(bundle, torch)
    confusion = np.zeros((len(bundle.labels),) * 2, int)
    for key, label in bundle.truth.items():
        confusion[label] += np.bincount(answers.label[key], minlength=len(bundle.labels))
    return Comparison(
        ours[0],
        theirs[0],
        ours[1],
        theirs[1],
        max(_difference(answers, key, expected) for key, expected in bundle.expected.items()),
        sum(int((answers.label[key] != torch.label[key]).sum()) for key in bundle.expected),
        confusion,
    )


def _difference(answers: Answers, key: str, expected: np.ndarray) -> float:
    theirs = np.exp(np.take_along_axis(expected, answers.label[key][:, None], 1)[:, 0])
    return float(np.abs(answers.confidence[key] - theirs).max())


def _hits(bundle: Bundle, answers: Answers) -> tuple[float, float]:
    """(share of frames, share of recordings by majority) that are right."""
    frames = sum(int((answers.label[key] == label).sum()) for key, label in bundle.truth.items())
    votes = [np.bincount(answers.label[key]).argmax() == label for key, label in bundle.truth.items()]
    return frames / bundle.total, float(np.mean(votes))


def time_one_stream(bundle: Bundle) -> np.ndarray:
    """Microseconds of each `stream().step` of one stream alone, without the first ones."""
    frames = max(bundle.frames.values(), key=len)
    one = Engine(bundle.artifact, max_streams=1).stream("alone")
    times_us = np.empty(len(frames))
    for t, frame in enumerate(frames):
        began = time.perf_counter_ns()
        one.step(frame)
        times_us[t] = (time.perf_counter_ns() - began) / 1e3
    return times_us[min(WARM_UP, len(frames) // 2) :]


def portrait(
    bundle: Bundle, key: str, channels: tuple[str, ...], panels: tuple[tuple[str, str, range], ...]
) -> Portrait:
    """One stream stepped frame by frame, with its state after every frame."""
    engine = Engine(bundle.artifact, max_streams=1)
    frames, scores, states = bundle.frames[key], [], []
    for frame in frames:
        scores.append(engine.push(key, frame[None])[0])
        states.append(engine.state(key))
    hidden = {name: np.stack([s[name].ravel() for s in states]) for name in states[0]}
    return Portrait(key, frames, channels, panels, np.exp(scores), hidden, bundle.truth[key], bundle.rate_hz)


def telling_stream(bundle: Bundle, answers: Answers) -> str:
    """The stream whose share of right frames is nearest to that of all: neither the best nor the worst to show."""
    share = {key: float((answers.label[key] == label).mean()) for key, label in bundle.truth.items()}
    whole = _hits(bundle, answers)[0]
    return min(share, key=lambda key: (abs(share[key] - whole), key))


def machine() -> str:
    """The processor's name, cores and Python version, for beside the figures."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"
