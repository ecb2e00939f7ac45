"""Which frames an attention attends to: read off the masks that the whole-sequence graph puts on its scores."""

from dataclasses import dataclass

import numpy as np
import onnx

from .worlds import NeedsLonger, Worlds

EXCLUDED = -1e4  # a score that is lowered by so much has a weight of 0 in float32
MAX_PERIOD = 64
LONG, LONGEST = (
    500,
    1800,
)  # a mask that is as wide as so many frames is one of the whole sequence; a band of half of so many is none


@dataclass(frozen=True, slots=True)
class Band:
    """Frame i attends to frames i - left[i % period] .. i + right[i % period], at most."""

    left: tuple[int, ...]
    right: tuple[int, ...]

    @property
    def period(self) -> int:
        return len(self.left)


class Whole:
    """The whole-sequence graph around a node: what reads a tensor, and what is known in each world."""

    def __init__(self, model: onnx.ModelProto, worlds: Worlds):
        self.worlds = worlds
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._producers = {name: node for node in model.graph.node for name in node.output if name}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that computes it; None of an input or a weight."""
        return self._producers.get(name)

    def band(self, scores: str) -> Band | None:
        """Of the attention whose scores (.., T, T) these are; None where it grows with the sequence. Raises NeedsLonger to find out."""
        attended = self._attended(scores)
        short, long = attended[0], attended[2]
        if short is None or long is None:
            return None
        band = _band_of(long)
        if band is None:
            if len(long) < LONG:
                raise NeedsLonger
            return None
        if max(band.left + band.right) + band.period > len(short) // 2:
            if len(long) >= LONGEST:
                return None
            raise NeedsLonger
        return band

    def _attended(self, scores: str) -> list[np.ndarray | None]:
        """In each world bool (T, T), where some head attends; None where no mask is put on the scores."""
        found: list[np.ndarray | None] = [None] * len(self.worlds.sizes)
        name: str | None = scores
        while name is not None:
            readers = self._readers.get(name, [])
            node = readers[0] if len(readers) == 1 else None
            if node is None or node.op_type in ("Softmax", "MatMul"):
                break
            for w, shapes in enumerate(self.worlds.shapes[name]):
                kept = self._kept(node, name, w, shapes[-2:])
                if kept is not None:
                    found[w] = kept if found[w] is None else found[w] & kept
            name = next((o for o in node.output if o), None)
        return found

    def _kept(self, node: onnx.NodeProto, name: str, w: int, square: tuple[int, ...]) -> np.ndarray | None:
        """What the node leaves of the scores; None where it masks nothing."""
        values = [self.worlds.known[i][w] if i in self.worlds.known else None for i in node.input]
        kept: np.ndarray | None = None
        if node.op_type in ("Add", "Sum", "Min"):
            known = [v for v in values if v is not None]
            kept = known[0] > EXCLUDED if known else None
        elif node.op_type == "Where" and values[0] is not None:
            other = values[2] if name == node.input[1] else values[1]
            if other is not None and (other <= EXCLUDED).all():
                kept = values[0] if name == node.input[1] else ~values[0]
        if kept is None or kept.ndim < 2 or kept.shape[-2:] != square:
            return None
        return np.asarray(kept.reshape(-1, *square).any(axis=0))


def _band_of(attended: np.ndarray) -> Band | None:
    """The shortest period with which a band describes the mask; None where it is as long as the sequence."""
    length = len(attended)
    i, j = np.nonzero(attended)
    if not len(i) or max((i - j).max(), (j - i).max()) > length // 2:
        return None
    for period in range(1, min(MAX_PERIOD, length // 4) + 1):
        if np.array_equal(attended[period:, period:], attended[:-period, :-period]):
            left, right = (
                [int(d[i % period == p].max(initial=-length)) for p in range(period)] for d in (i - j, j - i)
            )
            return Band(tuple(left), tuple(right))
    return None
