"""A step graph as one of many streams at once, and the proof that no stream sees another.

Sizes that were fixed at 1 are freed, and so are reshapes that hold that 1. The proof is by experiment: three streams of
random frames and states as one batch give what each gives alone, in every output.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..engine.errors import ExportError
from .branches import choose_branches
from .placing import Place, whole
from .plain import Feed, constant, plain, run

STREAMS = 3
ATTEMPTS = 16
CLOSE = 1e-4  # of the largest magnitude: a batch adds in another order than one row, see `parity`


@dataclass(frozen=True, slots=True)
class Batched:
    """A plain graph of B streams, or of one at a time (`reason` says why); where its inputs and results have their axes."""

    model: onnx.ModelProto
    inputs: dict[str, Place]
    results: dict[str, Place]
    reason: str = ""


class _Fixed(Exception):
    """The graph takes one stream at a time; says why."""


def batched(
    model: onnx.ModelProto, frames: Sequence[Place], states: Sequence[Sequence[Place]], results: Sequence[str]
) -> Batched:
    """The graph for any number of streams where it can be, for each place that the states' batch axes may have; else for one."""
    reason = ""
    if loose := [p.name for p in frames if p.batch is None] + [s[0].name for s in states if s[0].batch is None]:
        reason = f"'{loose[0]}' has no batch axis"
    else:
        for chosen, freed in islice(product(product(*states), (False, True)), ATTEMPTS):
            try:
                return _for_many(model, [*frames, *chosen], results, freed)
            except _Fixed as error:
                reason = reason if reason and not freed else str(error)
    places = [whole(p) for p in [*frames, *(s[0] for s in states)]]
    return _for_one(model, places, results, reason)


def _for_many(model: onnx.ModelProto, places: Sequence[Place], results: Sequence[str], freed: bool) -> Batched:
    """The graph of B streams, its reshapes freed or as they are. Raises _Fixed where three streams are not each alone."""
    rng = np.random.default_rng(0)
    alone = [draw(places, rng) for _ in range(STREAMS)]
    together = _stacked(places, alone)
    pair = _stacked(places, alone[:2])
    try:
        free = _chosen(sized(model, places, "B"), alone, together)
        free = _free_reshapes(free, places, alone, together) if freed else free
        free = plain(free, (together, pair))
        singles = [run(model, results, feed) for feed in alone]
        many = run(free, results, together)
    except ExportError as error:
        raise _Fixed(str(error)) from None
    found = {}
    for name in results:
        axis = _batch_axis(name, [s[name] for s in singles], many[name])
        found[name] = Place(name, many[name].dtype.name, singles[0][name].shape, axis)
    return Batched(free, {p.name: p for p in places}, found)


def _for_one(model: onnx.ModelProto, places: Sequence[Place], results: Sequence[str], reason: str) -> Batched:
    rng = np.random.default_rng(0)
    feeds = draw(places, rng), draw(places, rng)
    ready = plain(sized(model, places, 1), feeds)
    values = run(ready, results, feeds[0])
    found = {n: Place(n, v.dtype.name, v.shape, 0 if v.shape[:1] == (1,) else None) for n, v in values.items()}
    return Batched(ready, {p.name: p for p in places}, found, reason)


def sized(model: onnx.ModelProto, places: Sequence[Place], batch: str | int) -> onnx.ModelProto:
    """The model with those inputs' shapes, and no notes on others'."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    del result.graph.input[:], result.graph.value_info[:]
    for place in places:
        dims = [batch if i == place.batch else size for i, size in enumerate(place.sizes)]
        result.graph.input.append(helper.make_tensor_value_info(place.name, kinds[place.name], dims))
    for value in result.graph.output:
        value.type.tensor_type.ClearField("shape")
    return result


def draw(places: Sequence[Place], rng: np.random.Generator) -> Feed:
    """One stream's random inputs: integers are 0 and 1, which every table and counter takes."""
    found = {}
    for place in places:
        dtype = np.dtype(place.dtype)
        numbers = rng.normal(0, 1, place.sizes) if dtype.kind == "f" else rng.integers(0, 2, place.sizes)
        found[place.name] = numbers.astype(dtype)
    return found


def _stacked(places: Sequence[Place], feeds: Sequence[Feed]) -> Feed:
    return {p.name: np.concatenate([f[p.name] for f in feeds], axis=p.batch) for p in places}


def _chosen(model: onnx.ModelProto, alone: Sequence[Feed], together: Feed) -> onnx.ModelProto:
    """The graph with its choices made, by what one stream and, where the graph takes them yet, three say."""

    def known(chosen: onnx.ModelProto, names: list[str]) -> Feed:
        try:
            return constant(chosen, names, (alone[0], together))
        except ExportError:
            return constant(chosen, names, alone[:2])

    return choose_branches(model, known)


def _free_reshapes(
    model: onnx.ModelProto, places: Sequence[Place], alone: Sequence[Feed], together: Feed
) -> onnx.ModelProto:
    """Reshapes to constant sizes that hold a batch of 1 take any batch: which size it is shows in what three streams give."""
    for node, shape in list(_reshapes(model)):
        source, target = node.input[0], node.output[0]
        single = [run(sized(model, places, 1), [source, target], feed) for feed in alone]
        x, wanted = run(model, [source], together)[source], [s[target] for s in single]
        if x.shape == single[0][source].shape:
            continue  # no batch axis in it
        fixed = list(wanted[0].shape)
        axis = next((i for i, size in enumerate(fixed) if _splits(x, fixed, i, wanted)), None)
        if axis is None:
            raise _Fixed(f"node '{node.name or target}' (Reshape to {shape.tolist()}) mixes the batch with other axes")
        model = _reshaped(model, node, [-1 if i == axis else size for i, size in enumerate(fixed)])
    return model


def _reshapes(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, np.ndarray]]:
    constants = {t.name: t for t in model.graph.initializer}
    constants |= {
        n.output[0]: a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    for node in model.graph.node:
        if node.op_type == "Reshape" and node.input[1] in constants:
            yield node, numpy_helper.to_array(constants[node.input[1]])


def _splits(x: np.ndarray, shape: list[int], axis: int, wanted: Sequence[np.ndarray]) -> bool:
    sizes = [-1 if i == axis else size for i, size in enumerate(shape)]
    if x.size % max(1, -int(np.prod(sizes))):
        return False
    given = x.reshape(sizes)
    expected = np.concatenate(wanted, axis=axis)
    return given.shape == expected.shape and _same(given, expected)


def _same(given: np.ndarray, expected: np.ndarray) -> bool:
    if given.dtype.kind != "f":
        return bool((given == expected).all())
    scale = float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0))
    return bool(np.allclose(given, expected, rtol=0, atol=CLOSE * max(scale, 1e-3), equal_nan=True))


def _reshaped(model: onnx.ModelProto, node: onnx.NodeProto, sizes: list[int]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    changed = next(n for n in result.graph.node if n.output[:1] == node.output[:1])
    name = f"{node.output[0]}.sizes"
    changed.input[1] = name
    result.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    return result


def _batch_axis(name: str, alone: Sequence[np.ndarray], many: np.ndarray) -> int:
    """Where the batch of three is the three alone. Raises _Fixed where it is nowhere."""
    for axis in range(many.ndim):
        if alone[0].shape[axis : axis + 1] == (1,) and many.shape[axis] == STREAMS:
            expected = np.concatenate(alone, axis=axis)
            if expected.shape == many.shape and _same(many, expected):
                return axis
    raise _Fixed(
        f"output '{name}' of three streams as one batch, {many.shape}, is not that of the three alone, {alone[0].shape}"
    )
