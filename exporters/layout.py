"""Reshape, squeeze, unsqueeze, flatten: one rule, by what becomes of each group of axes."""

from .step_graph import StepGraph
from .tracked import BATCH, BATCH_TIME, FEATURE, TIME, TIME_BATCH, Frames, Labels, Node, Shapes, step_shape
from .worlds import SIZES

_MERGED: dict[Labels, str] = {(BATCH, TIME): BATCH_TIME, (TIME, BATCH): TIME_BATCH}
_PARTED = {merged: parts for parts, merged in _MERGED.items()}


def rearranged(node: Node, step: StepGraph, x: Frames) -> Frames:
    """`x` in the shape of the node's first output. Refused where it would put frames or streams into a common axis."""
    shapes = node.shapes[0]
    labels: list[str] = []
    for before, after in _groups(_columns(x.shapes), _columns(shapes)):
        labels += _relabelled(
            node,
            [x.labels[i] for i in before],
            [_columns(x.shapes)[i] for i in before],
            [_columns(shapes)[i] for i in after],
        )
    made = Frames(x.name, tuple(labels), shapes)
    return Frames(_emit(node, step, x, made), made.labels, shapes)


def _columns(shapes: Shapes) -> list[tuple[int, ...]]:
    """For each axis its size in each world."""
    return list(zip(*shapes, strict=True))


def _groups(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> list[tuple[list[int], list[int]]]:
    """The finest way to cut both lists of axes so that the parts hold equally many elements, in every world."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        before, after, left, right = [i], [j], a[i], b[j]
        i, j = i + 1, j + 1
        while left != right:
            if (left < right or j == len(b)) and i < len(a):
                before, left, i = [*before, i], _times(left, a[i]), i + 1
            elif j < len(b):
                after, right, j = [*after, j], _times(right, b[j]), j + 1
            else:
                break
        found.append((before, after))
    if found:
        found[-1][0].extend(range(i, len(a)))
        found[-1][1].extend(range(j, len(b)))
    return found


def _times(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _relabelled(
    node: Node, labels: list[str], before: list[tuple[int, ...]], after: list[tuple[int, ...]]
) -> list[str]:
    """The labels of the axes `after` that the axes `before` became."""
    solid = [(label, sizes) for label, sizes in zip(labels, before, strict=True) if set(sizes) != {1}]
    places = [i for i, sizes in enumerate(after) if set(sizes) != {1}]
    new = [FEATURE] * len(after)
    kinds: Labels = tuple(label for label, _ in solid)
    if set(kinds) <= {FEATURE}:
        return new
    if len(solid) == len(places) and all(sizes == after[i] for (_, sizes), i in zip(solid, places, strict=True)):
        became: Labels = kinds
    elif len(places) == 1 and kinds in _MERGED:
        became = (_MERGED[kinds],)
    elif len(kinds) == 1 and kinds[0] in _PARTED and len(places) == 2 and _parts_match(before, after, places, kinds[0]):
        became = _PARTED[kinds[0]]
    else:
        raise node.refuse(
            "its reshape puts values of different frames or streams into one axis of features",
            "keep the batch and time axes apart from the features (frames that are stacked or skipped are not exported by this version)",
        )
    for place, label in zip(places, became, strict=True):
        new[place] = label
    return new


def _parts_match(before: list[tuple[int, ...]], after: list[tuple[int, ...]], places: list[int], merged: str) -> bool:
    """Whether a merged axis parts into batch and time in the order in which it was merged."""
    sizes = {BATCH: tuple(b for b, _ in SIZES), TIME: tuple(t for _, t in SIZES)}
    return all(after[place] == sizes[label] for place, label in zip(places, _PARTED[merged], strict=True))


def _emit(node: Node, step: StepGraph, x: Frames, made: Frames) -> str:
    """The plainest node that does it: none, Squeeze, Unsqueeze or Reshape."""
    old, new = step_shape(x), step_shape(made)
    if old == new:
        return x.name
    dropped, added = _extra_ones(old, new), _extra_ones(new, old)
    if dropped is not None:
        return step.emit("Squeeze", [x.name, step.ints(*dropped)], node.hint)[0]
    if added is not None:
        return step.emit("Unsqueeze", [x.name, step.ints(*added)], node.hint)[0]
    return step.emit("Reshape", [x.name, step.ints(*new)], node.hint)[0]


def _extra_ones(longer: list[int], shorter: list[int]) -> list[int] | None:
    """Places of the ones in `longer` without which it is `shorter`, the first that fit; None where there are none."""
    places, rest = [], list(shorter)
    for i, size in enumerate(longer):
        if rest and rest[0] == size:
            rest.pop(0)
        elif size == 1:
            places.append(i)
        else:
            return None
    return places if places and not rest else None
