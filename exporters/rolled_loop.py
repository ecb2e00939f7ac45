"""An unrolled loop over time as one ONNX Scan.

A family is what one tensor of the loop's body is in each step: a value for each frame. Families are found from the results down: the
values in one place of the steps' expressions belong together. From step STEADY on all must be made alike. What a step reads of the
step before is carried; what early steps do otherwise (a first frame) is chosen there by the number of the frame.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from ..engine.errors import ExportError
from .bodies import captured
from .tracked import module_of, where
from .unrolled import LATER, STEADY, Pick, Unrolled
from .values import Made, Values, renamed

Family = tuple[int | None, ...]


@dataclass(slots=True)
class State:
    """What the body reads of the step before. family: what it reads in each step; begin: its value in the first, zeros where None."""

    name: str
    family: Family
    next: str = ""
    built: Family | None = None


@dataclass(slots=True)
class RolledLoop:
    """The body while it is written: nodes, in no order, and what it reads. `length`: how many steps were unrolled."""

    values: Values
    found: Unrolled
    length: int
    label: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    scanned: dict[tuple[int, int], str] = field(default_factory=dict)
    captured: set[int] = field(default_factory=set)
    states: list[State] = field(default_factory=list)
    counted: bool = False
    _names: dict[Family, str] = field(default_factory=dict)
    _odd: list[tuple[str, str, Family, list[int]]] = field(default_factory=list)
    _emitted: dict[tuple[object, ...], list[str]] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    # -------------------------------------------------------------------------------------------------- families

    def value(self, family: Family) -> str:
        """The body's tensor that is the family's value in every step."""
        if family not in self._names:
            steady, regular = self._steady(family)
            odd = [k for k in range(STEADY) if family[k] is not None and not regular(k)]
            name = steady
            if odd:
                name = self._fresh(f"{self._called(family)}.early")
                self._odd.append((name, steady, family, odd))
            self._names[family] = name
        return self._names[family]

    def _steady(self, family: Family) -> tuple[str, Callable[[int], bool]]:
        """The tensor from STEADY on, and whether it is right in an earlier step."""
        late = [v for v in family[STEADY:] if v is not None]
        if len(late) < 2:
            raise self._refuse(
                "a step reads what was computed more than two frames before it", "keep a buffer of past frames"
            )
        first, times = late[0], [self.found.time[v] for v in late]
        if set(times) == {None}:
            if len(set(late)) == 1:
                return self._outer(first), lambda k: family[k] == first
            if self.values.made[first].array is not None:
                return self._counted_constant(family, late)
            return self._node(family, late)
        behind = {None if t is None or t == LATER else k - t for k, t in enumerate(times, STEADY)}
        if len(behind) != 1 or None in behind:
            raise self._differs(late)
        lag = behind.pop() or 0
        if lag < 0:
            raise self._refuse("a step reads a later frame", "stack frames, or use a convolution before the loop")
        if lag and first not in self.found.picks and self._comes_from_less(family, late):
            return self._node(family, late)
        if lag:
            return self._state(family), lambda k: self._is_past(family[k], k)
        if first in self.found.picks:
            return self._frame(family, late)
        return self._node(family, late)

    def _comes_from_less(self, family: Family, late: list[int]) -> bool:
        """Whether the family follows from one that is no larger, and is carried in its place: W h from h."""
        size, source = self._size(late[0]), self._only_source(family)
        while source is not None:
            first = next(v for v in source[STEADY:] if v is not None)
            if self._size(first) <= size:
                return True
            source = self._only_source(source)
        return False

    def _size(self, v: int) -> int:
        return math.prod(n or 1 for n in self.values.shape[v] or ())

    def _only_source(self, family: Family) -> Family | None:
        """The one family of the loop's that this one is computed from, in every step alike; None where there are others."""
        made = [None if v is None else self.values.made[v] for v in family]
        model = next(m for m in made[STEADY:] if m is not None)
        if model.proto is None or any(m is not None and not _alike(model, m) for m in made):
            return None
        found = set()
        for i, given in enumerate(model.inputs):
            column = tuple(None if m is None else m.inputs[i] for m in made)
            if given != Values.NOTHING and (self.found.time[given] is not None or len({*column} - {None}) > 1):
                found.add(column)
        lone = found.pop() if len(found) == 1 else None
        times = {self.found.time[v] for v in (lone or ())[STEADY:] if v is not None}
        return lone if lone and not times & {None, LATER} else None

    def _is_past(self, v: int | None, k: int) -> bool:
        time = None if v is None else self.found.time[v]
        return time is None or time < k

    def _state(self, family: Family) -> str:
        for s in self.states:
            pairs = list(zip(s.family, family, strict=True))
            if all(None in pair or pair[0] == pair[1] for pair in pairs):
                s.family = tuple(b if a is None else a for a, b in pairs)
                return s.name
        self.states.append(State(self._fresh(self._scope(family) or self._called(family)), family))
        return self.states[-1].name

    def _frame(self, family: Family, late: list[int]) -> tuple[str, Callable[[int], bool]]:
        picks = self.found.picks
        first = picks[late[0]]

        def same(v: int | None, k: int) -> bool:
            return v in picks and picks[v] == Pick(first.source, first.axis, k, first.kept)

        if not all(same(v, k) for k, v in enumerate(late, STEADY)):
            raise self._differs(late)
        return self._picked(first), lambda k: same(family[k], k)

    def _picked(self, pick: Pick) -> str:
        """The step's frame of what the pick selects from."""
        key = (pick.source, pick.axis)
        if key not in self.scanned:
            self.scanned[key] = self._fresh(f"{self.values.name[pick.source]}.frame")
        if not pick.kept:
            return self.scanned[key]
        axes = self._constant(np.array([pick.axis], np.int64))
        return self._emit(helper.make_node("Unsqueeze", ["", ""], ["kept"]), [self.scanned[key], axes], ("kept",))[0]

    def _node(self, family: Family, late: list[int]) -> tuple[str, Callable[[int], bool]]:
        """The node whose inputs are families themselves."""
        made = [None if v is None else self.values.made[v] for v in family]
        model = self.values.made[late[0]]
        if model.proto is None or any(not _alike(model, m) for m in made[STEADY:] if m is not None):
            raise self._differs(late)
        alike = [m is not None and _alike(model, m) for m in made]
        inputs = []
        for i, given in enumerate(model.inputs):
            column = tuple(m.inputs[i] if m is not None and same else None for m, same in zip(made, alike, strict=True))
            inputs.append("" if given == Values.NOTHING else self.value(column))
        name = self._emit(model.proto, inputs, model.key[:-3])[model.output]
        return name, lambda k: alike[k]

    def _counted_constant(self, family: Family, late: list[int]) -> tuple[str, Callable[[int], bool]]:
        """A constant that grows by as much in each step, from the number of the frame."""
        arrays = [self.values.made[v].array for v in late]
        numbers = [
            a
            for a in arrays
            if a is not None and a.dtype.kind in "iuf" and a.shape == (arrays[0] is not None and arrays[0].shape)
        ]
        if len(numbers) < len(late):
            raise self._differs(late)
        slope = numbers[1] - numbers[0]
        begin = numbers[0] - slope * STEADY

        def fits(v: int | None, k: int) -> bool:
            array = None if v is None else self.values.made[v].array
            if array is None or array.shape != begin.shape or array.dtype != begin.dtype:
                return False
            return bool(np.allclose(array, begin + slope * k, rtol=1e-6, atol=1e-7 if begin.dtype.kind == "f" else 0))

        if not all(fits(v, k) for k, v in enumerate(late, STEADY)):
            raise self._refuse(
                "a step uses a constant that depends on the frame's position otherwise than by growing evenly",
                "compute it from what is carried",
            )
        kind = helper.np_dtype_to_tensor_dtype(begin.dtype)
        count = self._emit(helper.make_node("Cast", [""], ["number"], to=kind), [self._count()], ("number", kind))[0]
        times = self._emit(helper.make_node("Mul", ["", ""], ["times"]), [count, self._constant(slope)], ("times",))[0]
        plus = self._emit(helper.make_node("Add", ["", ""], ["plus"]), [times, self._constant(begin)], ("plus",))[0]
        return plus, lambda k: fits(family[k], k)

    # ------------------------------------------------------------------------------------------------ early steps

    def settle(self) -> None:
        """Writes what is still to be written: the states' next values, and what early steps do otherwise."""
        while True:
            for s in self.states:
                if s.built != s.family:
                    s.built = s.family
                    s.next = self.value((*s.family[1:], None))
            if all(s.built == s.family for s in self.states):
                if not self._odd:
                    return
                self._choose(*self._odd.pop())

    def _choose(self, name: str, steady: str, family: Family, steps: list[int]) -> None:
        for i, k in enumerate(steps):
            v = family[k]
            assert v is not None
            at = self._constant(np.array(k, np.int64))
            now = self._emit(helper.make_node("Equal", ["", ""], ["is"]), [self._count(), at], ("is",))[0]
            out = name if i == len(steps) - 1 else self._fresh(f"{name}.{k}")
            self.nodes.append(helper.make_node("Where", [now, self._early(v, k), steady], [out], out))
            steady = out

    def _early(self, v: int, k: int) -> str:
        """The value as step `k` makes it."""
        time, made = self.found.time[v], self.values.made[v]
        if time is None:
            return self._outer(v)
        if time == k:
            if v in self.found.picks:
                return self._picked(self.found.picks[v])
            assert made.proto is not None
            inputs = ["" if i == Values.NOTHING else self._early(i, k) for i in made.inputs]
            return self._emit(made.proto, inputs, made.key[:-3])[made.output]
        if time < k:
            known = next((s.name for s in self.states if s.family[k] == v), None)
            if known is not None:
                return known
            now = next((f for f in self._names if f[k - 1] == v and self.found.time[v] == k - 1), None)
            if now is not None:
                return self._state((None, *now[:-1]))
        raise self._refuse(
            f"step {k} of the loop is not like the later ones, and reads what no other step computes",
            "do the same in every step",
        )

    # ---------------------------------------------------------------------------------------------------- results

    def last(self, v: int) -> State | None:
        """The state that is `v` after the last step, if the loop computes it in every step."""
        for family in list(self._names):
            if family[-1] == v and self.found.time[v] == self.length - 1:
                name = self._state((None, *family[:-1]))
                return next(s for s in self.states if s.name == name)
        return None

    def body(self, results: list[str]) -> tuple[onnx.GraphProto, list[State]]:
        """The body with its states, and those. results: its scan outputs."""
        self.settle()
        carried = list(self.states)
        if self.counted:
            one = self._constant(np.array(1, np.int64))
            self.nodes.append(helper.make_node("Add", [self._count(), one], ["count_next"], "count_next"))
            carried.append(State("count", (), "count_next"))
        outputs = []
        for i, name in enumerate([*(s.next for s in carried), *results]):
            outputs.append(self._fresh(f"{name}.out{i}"))
            self.nodes.append(helper.make_node("Identity", [name], [outputs[-1]], outputs[-1]))
        inputs = [*(s.name for s in carried), *self.scanned.values()]
        graph = helper.make_graph(
            _ordered(self.nodes, set(inputs)),
            self.label,
            [onnx.ValueInfoProto(name=n) for n in inputs],
            [onnx.ValueInfoProto(name=n) for n in outputs],
        )
        return graph, carried

    # ------------------------------------------------------------------------------------------------------ names

    def _emit(self, proto: onnx.NodeProto, inputs: list[str], kind: tuple[object, ...]) -> list[str]:
        key = (kind, tuple(inputs))
        if key not in self._emitted:
            names = [self._fresh(o) for o in proto.output]
            self.nodes.append(renamed(proto, inputs, dict(enumerate(names))))
            self._emitted[key] = names
        return self._emitted[key]

    def _outer(self, v: int) -> str:
        self.captured.add(v)
        return self.values.name[v]

    def _constant(self, array: np.ndarray) -> str:
        v = self.values.constant(np.asarray(array), f"{self.label}.constant{len(self.values.made)}")
        if v == len(self.found.time):
            self.found.time.append(None)
        return self._outer(v)

    def _count(self) -> str:
        self.counted = True
        return "count"

    def _called(self, family: Family) -> str:
        v = next(v for v in family[STEADY:] if v is not None)
        return self.values.name[v]

    def _scope(self, family: Family) -> str:
        """The module in which the value is made."""
        proto = self.values.made[next(v for v in family[STEADY:] if v is not None)].proto
        return "" if proto is None else module_of(proto)

    def _fresh(self, name: str) -> str:
        base = f"{self.label}.{name}"
        found, i = base, 1
        while found in self._taken:
            i += 1
            found = f"{base}#{i}"
        self._taken.add(found)
        return found

    def _refuse(self, reason: str, remedy: str) -> ExportError:
        return ExportError(f"a Python loop over time cannot become a step: {reason}; {remedy}")

    def _differs(self, late: list[int]) -> ExportError:
        nodes = [where(p) for v in late[:2] if (p := self.values.made[v].proto) is not None]
        what = f" ({' and '.join(dict.fromkeys(nodes))})" if nodes else ""
        return self._refuse(f"its steps are not alike from frame {STEADY} on{what}", "do the same in every step")


def _alike(a: Made, b: Made) -> bool:
    """Whether both are the same output of the same operation, on whatever inputs."""
    same = a.key[:-3] == b.key[:-3] and a.key[-2:] == b.key[-2:] and len(a.inputs) == len(b.inputs)
    return same and [i == Values.NOTHING for i in a.inputs] == [i == Values.NOTHING for i in b.inputs]


def _ordered(nodes: list[onnx.NodeProto], known: set[str]) -> list[onnx.NodeProto]:
    """Inputs before what reads them. known: names that are no node's; what no node makes is read from around."""
    makers = {o: n for n in nodes for o in n.output}
    ordered: list[onnx.NodeProto] = []
    done, stack = set(known), [(n, False) for n in reversed(nodes)]
    while stack:
        node, ready = stack.pop()
        if node.output[0] in done:
            continue
        if ready:
            ordered.append(node)
            done.update(node.output)
        else:
            stack.append((node, True))
            stack += [
                (makers[i], False) for i in reversed([*node.input, *captured(node)]) if i in makers and i not in done
            ]
    return ordered
