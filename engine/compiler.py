"""From a step graph to one specialised function: walks the graph, lowers each node, and says the program's source.

The program steps blocks of streams over the arena in place: `run` takes ragged work (each stream's rows of the frames
array, in order), `one` a single frame of a single stream. A block's step reads every old state before it writes a new one.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import onnx

from .artifact import Artifact, StateSpec
from .assembly import Source, assemble
from .folding import Constants
from .joins import pieces_of, shift, shiftable, whole
from .layout import Layout
from .lowerings import IN_PIECES, RECURRENT, TABLE
from .program import ACCESS, BATCH, COMPILED, UNPLACED, Program, Unsupported, Value


def missing(artifact: Artifact) -> list[str]:
    """Why the compiled backend cannot run the model; empty where it can."""
    try:
        generate(artifact)
    except Unsupported as error:
        return [str(error)]
    return []


def generate(artifact: Artifact) -> Source:
    """The program's source and packed parameters. Raises Unsupported, naming the node.

    Integer states may be an index: a first walk finds what their next values lie between, whatever they are themselves.
    """
    if not artifact.spec.batchable:
        raise Unsupported("a graph that takes one stream at a time")
    if artifact.spec.sequence:
        raise Unsupported("a graph of whole sequences, which is not stepped")
    bounds: dict[str, tuple[int, int]] = {}
    if any(s.dtype in ("int64", "int32") for s in artifact.spec.states):
        bounds = Walk(artifact, Program(probing=True), {}).bounds()
    walk = Walk(artifact, Program(), bounds)
    walk.store()
    return assemble(walk.program, artifact)


class Walk:
    """One walk over the graph's nodes in order: what each value is, and which are not read any more."""

    def __init__(self, artifact: Artifact, program: Program, bounds: dict[str, tuple[int, int]]):
        self.spec, self.graph, self.program = artifact.spec, artifact.model.graph, program
        self.layout = Layout.of(self.spec)
        self.constants = Constants(artifact.model)
        self.values = self._inputs(bounds)
        self.last = {name: i for i, node in enumerate(self.graph.node) for name in node.input}
        self.last |= {name: len(self.graph.node) for name in self._wanted()}
        for i, node in enumerate(self.graph.node):
            try:
                self._lower(node)
            except Unsupported as error:
                raise Unsupported(f"node '{node.name or node.output[0]}' ({node.op_type}): {error}") from None
            self.values = {name: v for name, v in self.values.items() if self.last.get(name, -1) > i}
            program.places.keep(v.offset for v in _placed_values(self.values.values()) if v.table == "s")

    def _wanted(self) -> list[str]:
        return [*(t.name for t in self.spec.outputs), *(s.next for s in self.spec.states)]

    def _inputs(self, bounds: dict[str, tuple[int, int]]) -> dict[str, Value]:
        values, spec = {}, self.spec
        frames = (spec.frames_per_step,) if spec.frames_per_step > 1 else ()
        for i, t in enumerate(spec.inputs):
            shape = (BATCH, *frames, *t.shape)
            values[t.name] = Value(shape, _supported(t.name, t.dtype), f"x{i}", 0, origin=f"x{i}")
        if spec.valid_input:
            values[spec.valid_input] = Value((BATCH,), "int64", "valid", 0, bounds=(0, spec.frames_per_step))
        for s in spec.states:
            dtype, offset = _supported(s.name, s.dtype), self.layout.states[s.name]
            values[s.name] = Value((BATCH, *s.shape), dtype, "rows", offset, bounds=bounds.get(s.name))
        return values

    def bounds(self) -> dict[str, tuple[int, int]]:
        """What each integer state lies between, now that its next value is known for any."""
        found = {}
        for s in self.spec.states:
            first = s.initial_value()
            if s.dtype in ("int64", "int32") and first.size:
                low, high = self._result(s.next).range
                found[s.name] = min(low, int(first.min())), max(high, int(first.max()))
        return found

    def _result(self, name: str) -> Value:
        """An output's value; a constant is the row of every stream."""
        if name not in self.values:
            array = self.constants.arrays[name]
            if array.shape[:1] != (1,) or name in self.constants.symbolic:
                raise Unsupported(f"'{name}', a constant of shape {array.shape}; expected one row for all streams")
            self.values[name] = self.program.parameter(array[0])
        return self.values[name]

    def _whole(self, name: str) -> Value:
        """An output's value in one place."""
        value = self._result(name)
        if value.pieces:
            value = self.values[name] = whole(self.program, value)
        return value

    def _old(self, state: StateSpec) -> Value:
        return Value((BATCH, *state.shape), state.dtype, "rows", self.layout.states[state.name])

    def store(self) -> None:
        """Outputs and next states, at the end: every old state is read before a new one is written."""
        program, old = self.program, self.layout.states
        for i, t in enumerate(self.spec.outputs):
            _store(program, program.placed(self._whole(t.name)), f"y{i}", 0)
        for s in self.spec.states:
            value = self._result(s.next)
            if value.pieces and not shiftable(self._old(s), value):
                value = self._whole(s.next)
            if value.table == "rows" and value.offset != old[s.name]:
                kept = program.scratch((BATCH, *s.shape), s.dtype)
                program.strided(kept, value, [value.size], [1], [1])
                self.values[s.next] = kept
        for s in self.spec.states:
            value = self._result(s.next)
            if value.pieces:
                shift(program, self._old(s), value)
            elif value.table != "rows":
                _store(program, value, "rows", old[s.name])

    def _lower(self, node: Any) -> None:
        if node.domain not in ("", "ai.onnx"):
            raise Unsupported(f"operator set {node.domain!r}")
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if self.constants.add(node, self.values, attributes):
            return
        if node.op_type not in TABLE:
            raise Unsupported("the operator is not in the compiled set")
        if node.op_type not in IN_PIECES:
            for name in node.input:
                if name in self.values:
                    self._whole(name)
        inputs = [self._input(name, node.op_type in RECURRENT) for name in node.input]
        results = TABLE[node.op_type](self.program, node, inputs, attributes)
        self.values.update({name: value for name, value in zip(node.output, results, strict=False) if name})

    def _input(self, name: str, placed: bool) -> Value | None:
        """A value, or a constant that is not in the parameters: most are packed or read at compile time."""
        if not name:
            return None
        if name in self.values:
            return self.values[name]
        array = self.constants.arrays[name]
        value = Value(array.shape, array.dtype.name, UNPLACED, 0, array)
        return self.program.placed(value) if placed and value.dtype in ACCESS else value


def _placed_values(values: Iterable[Value]) -> Iterator[Value]:
    for value in values:
        yield value
        if value.pieces:
            yield from (p.value for p in pieces_of(value)[1])


def _supported(name: str, dtype: str) -> str:
    if dtype not in COMPILED:
        raise Unsupported(f"'{name}' is {dtype}; compiled are {', '.join(COMPILED)}")
    return dtype


def _store(program: Program, value: Value, table: str, offset: int) -> None:
    program.rows()
    program.say(f"copy_bytes(get_int64({table} + 8 * r) + {offset}, {value.at()}, {value.size * value.item})", indent=2)
