"""What is known before any frame comes: constants, and what the graph computes from constants and shapes alone.

A shape has the batch size in it, which is not known. It is carried as `BATCH_SIZE` through the operators that only move the
numbers of a shape, and what arrives with it at a Reshape, an Expand or a ConstantOfShape is the batch axis again.
Anything else that would read it is refused.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .program import BATCH, Unsupported, Value

BATCH_SIZE = 2**40 + 15
_MOVING = (
    "Gather",
    "Slice",
    "Concat",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Identity",
    "Cast",
    "Split",
    "Where",
    "Equal",
)
_SHAPE_INPUTS = {("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0)}


class Constants:
    """Arrays by name."""

    def __init__(self, model: onnx.ModelProto):
        self.arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.opsets = list(model.opset_import)
        self.symbolic: set[str] = set()  # which have the batch size in them

    def add(self, node: Any, inputs: dict[str, Value], attributes: dict[str, Any]) -> bool:
        """Whether the node's outputs are constants, and were added."""
        if node.op_type == "Constant":
            self.arrays[node.output[0]] = _constant(attributes)
        elif node.op_type in ("Shape", "Size") and node.input[0] in inputs:
            self._measure(node, inputs[node.input[0]], attributes)
        elif node.input and all(not name or name in self.arrays for name in node.input) and not self._batched(node):
            self._fold(node)
        else:
            self._refuse_batch_size(node)
            return False
        return True

    def _batched(self, node: Any) -> bool:
        return node.op_type in ("Expand", "ConstantOfShape") and node.input[-1] in self.symbolic

    def _measure(self, node: Any, x: Value, attributes: dict[str, Any]) -> None:
        shape = [BATCH_SIZE if d == BATCH else d for d in x.shape]
        kept = shape[attributes.get("start", 0) : attributes.get("end", len(shape))]
        if node.op_type == "Size":
            raise Unsupported("the number of elements of a whole batch")
        self._keep(node.output[0], np.array(kept, np.int64))

    def _keep(self, name: str, array: np.ndarray) -> None:
        self.arrays[name] = array
        if array.dtype == np.int64 and (array == BATCH_SIZE).any():
            self.symbolic.add(name)

    def _fold(self, node: Any) -> None:
        from onnx.reference import ReferenceEvaluator

        given = {n: self.arrays[n] for n in node.input if n}
        if self.symbolic & set(given):
            self._check_moving(node, given)
        if node.op_type == "DequantizeLinear":  # the reference evaluator has it for some operator sets alone
            self._keep(node.output[0], dequantized(node, list(given.values())))
            return
        function = helper.make_function("fold", "fold", list(given), [n for n in node.output if n], [node], self.opsets)
        try:
            results = ReferenceEvaluator(function).run(None, given, attributes={})
        except Exception as error:  # the reference evaluator's errors share no base
            raise Unsupported(f"constants that cannot be folded ({error})") from error
        for name, array in zip([n for n in node.output if n], results, strict=True):
            self._keep(name, np.asarray(array))

    def _check_moving(self, node: Any, given: dict[str, np.ndarray]) -> None:
        others = [a for n, a in given.items() if n not in self.symbolic]
        compared = node.op_type == "Equal" and not all((a <= 0).all() for a in others)
        kept = all(a.i == onnx.TensorProto.INT64 for a in node.attribute if a.name == "to")
        first = 3 if node.op_type in ("Where", "Equal", "Concat") else 1  # those that are moved; the rest say where to
        places = set() if node.op_type == "Concat" else set(node.input[first:])
        if node.op_type not in _MOVING or compared or not kept or self.symbolic & places:
            raise Unsupported("arithmetic with the batch size")

    def _refuse_batch_size(self, node: Any) -> None:
        for place, name in enumerate(node.input):
            if name in self.symbolic and (node.op_type, place) not in _SHAPE_INPUTS:
                raise Unsupported("a number that is the batch size")


def dequantized(node: Any, inputs: list[np.ndarray]) -> np.ndarray:
    """(x - zero point) * scale, the scale for the whole tensor or for each place of an axis, in the scale's dtype."""
    numbers = {a.name: a.i for a in node.attribute}
    if numbers.get("block_size"):
        raise Unsupported("scales of blocks of an axis; one scale for each place of it")
    x, scale, *zero = inputs
    others = tuple(i for i in range(x.ndim) if i != numbers.get("axis", 1) % x.ndim) if scale.ndim else ()
    wide = x.astype(np.int32) - (np.expand_dims(zero[0], others).astype(np.int32) if zero else 0)
    return wide.astype(scale.dtype) * np.expand_dims(scale, others)


def _constant(attributes: dict[str, Any]) -> np.ndarray:
    if "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    (kind, value), *_ = attributes.items()
    return np.asarray(value, np.float32 if "float" in kind else np.int64)
