"""What an output means: `[decode]`. A decoder takes the answers of a batch at once and gives them new values."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError
from .columns import Answers
from .config import LabelsDecode, RawDecode

Decoder = Callable[[Answers], Answers]


def make_decoder(config: RawDecode | LabelsDecode, spec: StepSpec) -> Decoder:
    """Raises ConfigError where the model has not what the decoder needs."""
    return (lambda answers: answers) if isinstance(config, RawDecode) else Labels(config, spec)


class Labels:
    """`label` and `confidence` of each output: the likeliest of the last axis, and its probability."""

    def __init__(self, config: LabelsDecode, spec: StepSpec):
        names = [t.name for t in spec.outputs]
        if config.output is None and len(names) > 1:
            raise ConfigError(
                f"[decode] type = 'labels': the model has outputs {names}; say which with output = \"...\""
            )
        self.output, self.scores = config.output or names[0], config.scores
        if self.output not in names:
            raise ConfigError(f"[decode] output = {self.output!r} is not an output of the model, which has {names}")
        labels, shape = config.labels or spec.labels, spec.outputs[names.index(self.output)].shape
        if not labels:
            raise ConfigError(
                "[decode] type = 'labels': the model names no labels; export it with labels=, or give labels = [...]"
            )
        if not shape or shape[-1] != len(labels):
            raise ConfigError(
                f"[decode] type = 'labels': there are {len(labels)} labels, output '{self.output}' has shape {shape}; "
                "its last axis has to have one value a label"
            )
        self.labels = np.array(list(labels))

    def __call__(self, answers: Answers) -> Answers:
        scores = answers.values[self.output]
        best = scores.argmax(-1)
        return replace(answers, values={"label": self.labels[best], "confidence": self._probability(scores, best)})

    def _probability(self, scores: np.ndarray, best: np.ndarray) -> Any:
        top = np.take_along_axis(scores, best[..., None], -1)
        if self.scores == "logits":
            return (1 / np.exp(scores - top).sum(-1)).astype(np.float32)
        return (np.exp(top) if self.scores == "log-probabilities" else top)[..., 0].astype(np.float32)
