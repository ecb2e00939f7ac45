"""Recordings played as live streams by the bundle's own pipeline, and what its answers were worth so far."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from .connectors.config import MemorySinkConfig, PlacedPipeline, read_pipeline
from .connectors.files_config import FilesSinkConfig, FilesSourceConfig
from .connectors.files_sink import FilesSink
from .connectors.records import Answer
from .connectors.running import run
from .connectors.summary import Summary
from .demo import PIPELINE, Answers, Bundle
from .engine.errors import ConfigError


class Run:
    """One playing of a bundle's recordings, from their first frame on. speed: times real time, in place of the pipeline's."""

    def __init__(self, bundle: Bundle, speed: float | None = None):
        self.placed = read_pipeline(bundle.folder / PIPELINE)
        source, sink = self.placed.pipeline.source, self.placed.pipeline.sink
        if not isinstance(source, FilesSourceConfig) or not isinstance(sink, FilesSinkConfig):
            raise ConfigError(
                f"{bundle.folder / PIPELINE}: the demo plays from files to files, [source] or [sink] is another type"
            )
        files = FilesSink(sink, self.placed.folder, bundle.artifact.spec)
        self.sink = Watched(files, bundle)
        if speed is not None:
            source = msgspec.structs.replace(source, rate=speed)
        pipeline = msgspec.structs.replace(self.placed.pipeline, source=source, sink=MemorySinkConfig())
        self._watched = PlacedPipeline(pipeline, self.placed.folder, self.placed.file)
        self.answers_path, self.rate = self.placed.path(sink.path), source.rate

    def play(self, told: Callable[[Callable[[], Summary]], None]) -> Summary:
        """Runs the pipeline anew: what an earlier playing left is removed."""
        shutil.rmtree(self.placed.store_path, ignore_errors=True)
        self.answers_path.unlink(missing_ok=True)
        return run(self._watched, sink=self.sink, told=told)


class Watched:
    """The pipeline's sink, which also keeps the answers and counts those that are right."""

    truncatable = True

    def __init__(self, sink: FilesSink, bundle: Bundle):
        self._sink, self._truth = sink, bundle.truth
        self._numbers = {name: i for i, name in enumerate(bundle.labels)}
        self.answers = Answers(
            {key: np.full(len(f), -1) for key, f in bundle.frames.items()},
            {key: np.zeros(len(f), np.float32) for key, f in bundle.frames.items()},
        )
        self.right = self.given = 0

    @property
    def accuracy(self) -> float:
        """Share of the frames answered so far whose most likely label is the truth."""
        return self.right / max(1, self.given)

    async def open(self, lengths: Mapping[str, int] | None) -> None:
        await self._sink.open(lengths)

    async def write(self, answers: Iterable[Answer]) -> None:
        await self._sink.write(answers)
        for answer in answers:
            self._keep(str(answer.key), answer.step, answer.values)

    def _keep(self, key: str, step: int, values: Mapping[str, Any]) -> None:
        labels = np.array([self._numbers[name] for name in values["label"].tolist()])
        rows = slice(step, step + len(labels))
        self.answers.label[key][rows], self.answers.confidence[key][rows] = labels, values["confidence"]
        self.given += len(labels)
        self.right += int((labels == self._truth[key]).sum())

    async def flush(self) -> Mapping[str, int]:
        return await self._sink.flush()

    async def close(self) -> None:
        await self._sink.close()
