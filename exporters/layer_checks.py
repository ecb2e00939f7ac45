"""What cannot be right in a graph that is said to be one step."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ..engine.errors import ExportError
from .plain import run
from .tracked import where

RECURRENT = ("LSTM", "GRU", "RNN")
_COPIES = ("Identity",)


def check_directions(model: onnx.ModelProto, states: Sequence[str]) -> list[str]:
    """Notes on recurrent layers. Raises ExportError for one that runs backwards from a state."""
    reached, notes = _reached(model.graph, states), []
    for node in model.graph.node:
        if node.op_type not in RECURRENT:
            continue
        direction = next((a.s.decode() for a in node.attribute if a.name == "direction"), "forward")
        fed = any(name in reached for name in node.input[5:7] if name)
        if direction != "forward" and fed:
            raise ExportError(
                f"{where(node)}: a {direction} {node.op_type} is fed with a state, and a step cannot know the frames after it; "
                "train the layer in one direction, or run the model on whole sequences"
            )
        if direction != "forward":
            notes.append(
                f"{where(node)} is a {direction} {node.op_type} that starts anew in every step: right where it runs over an axis inside of one step's frames, wrong where that axis is time"
            )
        elif not fed:
            notes.append(f"{where(node)}, a {node.op_type}, is reached by no state and starts anew in every step")
    return notes


def _reached(graph: onnx.GraphProto, names: Sequence[str]) -> set[str]:
    found = set(names)
    for node in graph.node:
        if found.intersection(node.input):
            found.update(n for n in node.output if n)
    return found


def check_changes(model: onnx.ModelProto, states: Mapping[str, str], feed: Mapping[str, np.ndarray]) -> None:
    """Every state's next value is another than it was, whatever comes. Raises ExportError."""
    sources = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type in _COPIES}
    floats = [n for n in states if feed[n].dtype.kind == "f" and feed[n].size]
    after = run(model, [states[n] for n in floats], feed) if floats else {}
    for name, last in states.items():
        origin = last
        while origin in sources:
            origin = sources[origin]
        same = name in floats and after[last].shape == feed[name].shape and bool((after[last] == feed[name]).all())
        if origin == name or same:
            raise ExportError(
                f"state '{name}' never changes: its next value '{last}' is '{name}' itself; pair it with another output, "
                f"or give it as a constant: constants={{'{name}': ...}}"
            )
