"""What decoders that look at one of a model's outputs have in common: which one, and what its values are called."""

from collections.abc import Sequence

import numpy as np

from ..artifact import StepSpec, TensorSpec
from ..errors import ConfigError
from .decoder import About


def chosen(what: str, key: str, tensors: Sequence[TensorSpec], name: str | None) -> TensorSpec:
    """The one of this name, or the only one. what: asks for it; key: "input" or "output". Raises ConfigError."""
    names = [t.name for t in tensors]
    if name is None and len(names) > 1:
        raise ConfigError(f'[decode] {what}: the model has {key}s {names}; say which with {key} = "..."')
    if name is not None and name not in names:
        raise ConfigError(f"[decode] {key} = {name!r} is not an {key} of the model, which has {names}")
    return tensors[0 if name is None else names.index(name)]


def chosen_output(kind: str, spec: StepSpec, name: str | None) -> TensorSpec:
    """The output of this name, or the only one; float32. Raises ConfigError."""
    found = chosen(f"type = '{kind}'", "output", spec.outputs, name)
    if found.dtype != "float32":
        raise ConfigError(f"[decode] type = '{kind}': output '{found.name}' is {found.dtype}, expected float32")
    return found


def chosen_labels(kind: str, spec: StepSpec, output: TensorSpec, labels: Sequence[str] | None) -> list[str]:
    """A name for each value along the output's last axis. Raises ConfigError."""
    found = labels or spec.labels
    if not found:
        raise ConfigError(
            f"[decode] type = '{kind}': the model names no labels; export it with labels=, or give labels = [...]"
        )
    if not output.shape or output.shape[-1] != len(found):
        raise ConfigError(
            f"[decode] type = '{kind}': there are {len(found)} labels, output '{output.name}' has shape {output.shape}; "
            "its last axis has to have one value a label"
        )
    return list(found)


def probabilities(scores: np.ndarray, kind: str) -> np.ndarray:
    """Of "logits", "log-probabilities" or "probabilities" along the last axis; float32, NaN where scores are not finite."""
    if kind == "probabilities":
        return scores
    with np.errstate(invalid="ignore", over="ignore"):
        if kind == "log-probabilities":
            return np.exp(scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


def not_in_chain(what: str, about: About) -> None:
    """Raises ConfigError where there are several stages."""
    if about.in_chain:
        raise ConfigError(
            f"[decode] {what}: needs the frames that the model's outputs answer; in a chain of stages there are none"
        )


def seconds(places: np.ndarray, place_s: float | None) -> dict[str, np.ndarray]:
    """`begin_s` beside `begin`, where the model's rate is known."""
    return {} if place_s is None else {"begin_s": places * place_s}
