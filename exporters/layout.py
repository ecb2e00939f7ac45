"""Reshape, squeeze, unsqueeze, flatten: one rule, by what becomes of each group of axes."""

from dataclasses import replace

from .clocks import Clock, divided
from .step_graph import StepGraph
from .timing import delayed
from .tracked import (
    BATCH,
    BATCH_FEATURE,
    BATCH_TIME,
    FEATURE,
    TIME,
    TIME_BATCH,
    Frames,
    Labels,
    Node,
    columns,
    step_shape,
)

_MERGED: dict[Labels, str] = {(BATCH, TIME): BATCH_TIME, (TIME, BATCH): TIME_BATCH}
_PARTED = {merged: parts for parts, merged in _MERGED.items()}
Sizes = tuple[int, ...]  # of one axis, in each world


def rearranged(node: Node, step: StepGraph, x: Frames) -> Frames:
    """`x` in the shape of the node's first output. Refused where it would mix frames or streams with features in another order."""
    shapes, labels, clock = node.shapes[0], [], x.clock
    kinds, axes = _apart(node, x)
    for before, after in _groups(axes, columns(shapes)):
        old = [kinds[i] for i in before]
        sizes, new = [axes[i] for i in before], [columns(shapes)[i] for i in after]
        stacked = _stacked(old, sizes, new)
        if stacked is not None:
            found, multiply, divide = stacked
            if divide > 1:  # blocks must hold whole stacks
                n = divided(clock.per_step, divide)
                x = delayed(step, x, x.clock.delay + -x.clock.delay % divide)
                clock = Clock(n, x.clock.delay // divide, x.clock.then(1, 0, divide))
            else:
                clock = Clock(clock.per_step * multiply, clock.delay * multiply, clock.then(multiply, 0, 1))
            labels += found
        else:
            labels += _relabelled(node, old, sizes, new)
    made = replace(x, labels=tuple(labels), shapes=shapes, clock=clock, warm=x.warm if clock == x.clock else None)
    return replace(made, name=_emit(node, step, x, made))


def _apart(node: Node, x: Frames) -> tuple[list[str], list[Sizes]]:
    """The labels and sizes of the axes, those of batch and features in one as two."""
    kinds: list[str] = []
    axes: list[Sizes] = []
    for label, sizes in zip(x.labels, columns(x.shapes), strict=True):
        if label == BATCH_FEATURE:
            kinds += [BATCH, FEATURE]
            axes += [node.batches, tuple(s // b for s, b in zip(sizes, node.batches, strict=True))]
        else:
            kinds.append(label)
            axes.append(sizes)
    return kinds, axes


def _groups(a: list[Sizes], b: list[Sizes]) -> list[tuple[list[int], list[int]]]:
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


def _times(a: Sizes, b: Sizes) -> Sizes:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _solid(sizes: list[Sizes]) -> list[int]:
    """The axes that are not of size 1 everywhere."""
    return [i for i, s in enumerate(sizes) if set(s) != {1}]


def _stacked(labels: list[str], before: list[Sizes], after: list[Sizes]) -> tuple[list[str], int, int] | None:
    """Time that becomes time and features (stacked frames), or the other way: the new labels, and what the number of elements is multiplied and divided by."""
    old, new = _solid(before), _solid(after)
    kinds = [labels[i] for i in old]
    if (
        kinds == [TIME]
        and len(new) > 1
        and all(len(set(after[i])) == 1 for i in new[1:])
        and len(set(after[new[0]])) > 1
    ):
        factor = before[old[0]][0] // after[new[0]][0]
        return [TIME if i == new[0] else FEATURE for i in range(len(after))], 1, factor
    if len(kinds) > 1 and kinds[0] == TIME and set(kinds[1:]) == {FEATURE} and len(new) == 1:
        factor = after[new[0]][0] // before[old[0]][0]
        return [TIME if i == new[0] else FEATURE for i in range(len(after))], factor, 1
    if len(kinds) > 1 and kinds[0] == TIME and set(kinds[1:]) == {FEATURE} and len(new) > 1:
        return _restacked(before, after, old, new)
    return None


def _restacked(
    before: list[Sizes], after: list[Sizes], old: list[int], new: list[int]
) -> tuple[list[str], int, int] | None:
    """(T, F) as (T / k, k * F) or (T * k, F / k)."""
    t, u = before[old[0]], after[new[0]]
    if t == u or len(set(u)) == 1 or any(len(set(after[i])) > 1 for i in new[1:]):
        return None
    labels = [TIME if i == new[0] else FEATURE for i in range(len(after))]
    if all(a % b == 0 for a, b in zip(t, u, strict=True)) and len({a // b for a, b in zip(t, u, strict=True)}) == 1:
        return labels, 1, t[0] // u[0]
    if all(b % a == 0 for a, b in zip(t, u, strict=True)) and len({b // a for a, b in zip(t, u, strict=True)}) == 1:
        return labels, u[0] // t[0], 1
    return None


def _relabelled(node: Node, labels: list[str], before: list[Sizes], after: list[Sizes]) -> list[str]:
    """The labels of the axes `after` that the axes `before` became."""
    solid = [(labels[i], before[i]) for i in _solid(before)]
    places = _solid(after)
    new = [FEATURE] * len(after)
    kinds: Labels = tuple(label for label, _ in solid)
    if set(kinds) <= {FEATURE}:
        return new
    heads = _with_batch(node, list(kinds), after, places)
    if heads is not None:
        return heads
    if len(solid) == len(places) and all(sizes == after[i] for (_, sizes), i in zip(solid, places, strict=True)):
        became: Labels = kinds
    elif len(places) == 1 and kinds in _MERGED:
        became = (_MERGED[kinds],)
    elif len(kinds) == 1 and kinds[0] in _PARTED and len(places) == 2 and _parts_match(node, after, places, kinds[0]):
        became = _PARTED[kinds[0]]
    else:
        raise node.refuse(
            "its reshape puts values of different frames or streams into one axis of features",
            "keep the batch and time axes apart from the features, and time in front of features that it is joined with",
        )
    for place, label in zip(places, became, strict=True):
        new[place] = label
    return new


def _with_batch(node: Node, kinds: list[str], after: list[Sizes], places: list[int]) -> list[str] | None:
    """Features that the batch axis takes in, as heads are, or gives back; None where that is not what the reshape does."""
    if not places or kinds[0] not in (BATCH, BATCH_FEATURE) or set(kinds[1:]) - {FEATURE}:
        return None
    first, *rest = places
    ratios = {size / batch for size, batch in zip(after[first], node.batches, strict=True)}
    if len(ratios) > 1 or not next(iter(ratios)).is_integer() or any(len(set(after[i])) > 1 for i in rest):
        return None
    lead = BATCH if ratios == {1.0} else BATCH_FEATURE
    return [lead if i == first else FEATURE for i in range(len(after))]


def _parts_match(node: Node, after: list[Sizes], places: list[int], merged: str) -> bool:
    """Whether a merged axis parts into batch and time in the order in which it was merged."""
    return after[places[_PARTED[merged].index(BATCH)]] == node.batches


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
