"""A node's inputs and attributes, as its lowering reads them."""

from typing import Any

import numpy as np

from .program import BATCH, Unsupported, Value

Inputs = list[Value | None]
Attributes = dict[str, Any]


def optional(inputs: Inputs, place: int) -> Value | None:
    return inputs[place] if place < len(inputs) else None


def given(inputs: Inputs, place: int = 0) -> Value:
    value = optional(inputs, place)
    if value is None:
        raise Unsupported("a missing input")
    return value


def floats(inputs: Inputs, place: int = 0) -> Value:
    """An input of float32."""
    value = given(inputs, place)
    if value.dtype != "float32":
        raise Unsupported(f"values of {value.dtype}")
    return value


def constant(inputs: Inputs, place: int, what: str) -> np.ndarray:
    """An input that the graph holds."""
    value = given(inputs, place)
    if value.const is None:
        raise Unsupported(f"{what} that are computed")
    return value.const


def numbers(inputs: Inputs, attributes: Attributes, place: int, name: str) -> list[int] | None:
    """Whole numbers from an attribute, or since a later operator set from an input; None where there are none."""
    if name in attributes:
        return list(attributes[name])
    if optional(inputs, place) is None:
        return None
    return constant(inputs, place, name).reshape(-1).tolist()


def feature_axis(x: Value, axis: int, what: str) -> int:
    """The axis counted from the front; it may not be the batch axis."""
    axis = range(len(x.shape))[axis]
    if x.shape[axis] == BATCH:
        raise Unsupported(f"{what} the batch axis")
    return axis


def text(attributes: Attributes, name: str, default: str) -> str:
    value = attributes.get(name, default)
    return value.decode() if isinstance(value, bytes) else value
