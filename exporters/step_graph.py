"""The step graph while it is being written: nodes, constants and states, each computed once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, cast, get_args

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..engine.artifact import DType, StateSpec
from ..engine.errors import ExportError


def dtype_name(dtype: Any) -> DType:
    """The name that the artifact has for a NumPy dtype. Raises ExportError for one that it has none for."""
    name = np.dtype(dtype).name
    if name not in get_args(DType):
        raise ExportError(
            f"tensors of {name} cannot be inputs, outputs or states; expected one of {', '.join(get_args(DType))}"
        )
    return cast(DType, name)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the user allows where a model needs the whole sequence.

    window: frames before and after that an attention without a window of its own is held to. lookahead: frames that a reverse layer
    sees beyond its own. running: a reduction over time is over the frames so far. whole: nothing is stepped, see `sequence_export`.
    """

    window: tuple[int, int] | None = None
    lookahead: int = 0
    running: bool = False
    whole: bool = False


@dataclass(slots=True)
class StepGraph:
    """Grows node by node; the same node on the same inputs is written once. Names are made unique, never changed later.

    positions: what depends on the places of frames alone. shared: tensors that several rules use, by what they are. valid_input: the graph
    input that says how many frames are real, once asked for. opsets, ir_version: of the whole-sequence graph.
    endless: no step comes after a stream's end, so nothing is past it. windows: the scores that were held to `bounds.window`; used: which of the bounds some
    layer needed.
    """

    frames_per_step: int = 1
    bounds: Bounds = field(default_factory=Bounds)
    endless: bool = False
    windows: dict[str, Any] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    positions: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    valid_input: str | None = None
    opsets: list[onnx.OperatorSetIdProto] = field(default_factory=list)
    ir_version: int = onnx.IR_VERSION
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    states: list[StateSpec] = field(default_factory=list)
    matrices: set[str] = field(default_factory=set)  # products of (B, F) and a constant (F, O)
    shared: dict[Any, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _constant_of: dict[tuple[Any, ...], str] = field(default_factory=dict)
    _result_of: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)

    def reserve(self, names: list[str]) -> None:
        """Keeps the names for later: nothing else is called so."""
        self._taken.update(names)

    def unique(self, name: str) -> str:
        """`name`, or `name#2`, `name#3` ... where it is taken; now it is."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}#{count}"
        self._taken.add(found)
        return found

    def valid(self) -> str:
        """The graph input, int64 (B,), that says how many of the step's frames are real."""
        self.valid_input = self.valid_input or self.unique("valid")
        return self.valid_input

    def constant(self, array: np.ndarray, name: str) -> str:
        """The name of a constant with these values."""
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constant_of:
            self._constant_of[key] = self.unique(name.removeprefix("module."))
            self.constants[self._constant_of[key]] = array
        return self._constant_of[key]

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), "ints")

    def emit(
        self, op: str, inputs: list[str], name: str, outputs: tuple[str, ...] | None = None, **attributes: Any
    ) -> list[str]:
        """Names of the node's outputs. outputs: what to call them, "" where one is not wanted; `name` where None."""
        wanted = outputs or (name,)
        key = (op, *inputs, repr(sorted(attributes.items())), tuple(bool(o) for o in wanted))
        if key not in self._result_of:
            made = [self.unique(o) if o else "" for o in wanted]
            self.nodes.append(helper.make_node(op, inputs, made, next(o for o in made if o), **attributes))
            self._result_of[key] = made
        return list(self._result_of[key])

    def state(self, name: str, initial: np.ndarray) -> str:
        """The graph input of a new state; `set_next` says what it becomes."""
        name = self.unique(name)
        value: float | bytes
        alike = initial.size and initial.dtype.kind == "f" and (initial == initial.flat[0]).all()
        if alike and np.isfinite(initial.flat[0]):
            value = float(initial.flat[0])
        else:
            value = initial.astype(initial.dtype.newbyteorder("<")).tobytes()
        self.states.append(StateSpec(name, "", initial.shape, dtype_name(initial.dtype), value))
        return name

    def set_next(self, name: str, following: str) -> None:
        """Says which tensor the state `name` is in the next step."""
        at = next(i for i, s in enumerate(self.states) if s.name == name)
        s = self.states[at]
        self.states[at] = StateSpec(s.name, following, s.shape, s.dtype, s.initial)

    def prune(self, outputs: list[str]) -> None:
        """Drops nodes and constants that no output and no next state needs, and joins MatMul and bias to one Gemm."""
        self._join_bias(outputs)
        needed = {*outputs, *(s.next for s in self.states)}
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {n: a for n, a in self.constants.items() if n in needed}

    def _join_bias(self, outputs: list[str]) -> None:
        """(B, F) @ (F, O) + (O,) is one Gemm, where nothing else reads the product."""
        reads = Counter([*outputs, *(s.next for s in self.states), *(i for n in self.nodes for i in n.input)])
        product = {n.output[0]: n for n in self.nodes if n.output[0] in self.matrices and reads[n.output[0]] == 1}
        for node in self.nodes:
            if node.op_type != "Add":
                continue
            for made, other in (node.input, node.input[::-1]):
                bias = self.constants.get(other)
                if (
                    made in product
                    and bias is not None
                    and bias.shape == self.constants[product[made].input[1]].shape[1:]
                ):
                    joined = helper.make_node("Gemm", [*product[made].input, other], list(node.output), node.name)
                    node.CopyFrom(joined)
                    break

    def initializers(self) -> list[onnx.TensorProto]:
        return [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
