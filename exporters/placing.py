"""Where a step graph's tensors have their batch and time axes, and of what size the others are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..engine.errors import ExportError
from .joining import Port


@dataclass(frozen=True, slots=True)
class Place:
    """A frame input, state or output as the graph has it: `sizes` with 1 at the batch axis, and where batch and time are, if anywhere."""

    name: str
    dtype: str
    sizes: tuple[int, ...]
    batch: int | None
    time: int | None = None

    def shape(self, batch: int) -> tuple[int, ...]:
        """In a batch of so many."""
        return tuple(batch if i == self.batch else size for i, size in enumerate(self.sizes))

    @property
    def frame(self) -> tuple[int, ...]:
        """One stream's frame or state: what is neither batch nor time."""
        return tuple(size for i, size in enumerate(self.sizes) if i not in (self.batch, self.time))


@dataclass(frozen=True, slots=True)
class Axes:
    """What the caller said about axes and sizes. overlap: samples of earlier steps that the graph reads again, by input."""

    batch: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    overlap: Mapping[str, int]
    frames_per_step: int
    outputs_per_step: int
    time: int | None

    def time_of(self, rank: int) -> int | None:
        """Where a tensor of frames has time; None where a step is one frame and no axis was named."""
        if self.time is not None:
            return self.time
        return rank - 1 if self.frames_per_step > 1 else None


def frame_place(port: Port, axes: Axes) -> Place:
    """Of a frame input, in whole as the graph reads it, overlap included."""
    rank = len(port.dims)
    batch = axes.batch.get(port.name)
    if batch is None and rank and (isinstance(port.dims[0], str) or port.dims[0] == 1):
        batch = 0
    time = axes.time_of(rank)
    for what, axis in (("batch_axes", batch), ("time_axis", time)):
        if axis is not None and not 0 <= axis < rank:
            raise ExportError(f"{what}: input {port.text} has no axis {axis}")
    if time is not None and time == batch:
        raise ExportError(
            f"input {port.text}: axis {time} cannot be batch and time at once; say which is which, as in time_axis=1, batch_axes={{'{port.name}': 0}}"
        )
    sizes = _sizes(port, batch, time, axes)
    return Place(port.name, port.dtype, sizes, batch, time)


def _sizes(port: Port, batch: int | None, time: int | None, axes: Axes) -> tuple[int, ...]:
    extra, given = axes.overlap.get(port.name, 0), axes.shapes.get(port.name)
    features = [i for i in range(len(port.dims)) if i not in (batch, time)]
    if given is not None and len(given) != len(features):
        raise ExportError(
            f"shapes: a frame of {port.text} has {len(features)} axes beside batch and time, {given} has {len(given)}"
        )
    wanted = dict(zip(features, given, strict=True)) if given is not None else {}
    if time is not None:
        wanted[time] = axes.frames_per_step
    along = overlap_axis(len(port.dims), time)
    if extra and along in wanted:
        wanted[along] += extra
    found = []
    for i, dim in enumerate(port.dims):
        size = 1 if i == batch else wanted.get(i, dim)
        if isinstance(size, str):
            raise ExportError(
                f"input {port.text}: axis {i} has no fixed size; say one frame's shape, as in shapes={{'{port.name}': (..)}}, "
                "or frames_per_step= where that axis is time"
            )
        if i != batch and isinstance(dim, int) and dim != size:
            more = f" ({size - extra} and {extra} of overlap)" if extra and i == along else ""
            raise ExportError(f"input {port.text}: axis {i} has {dim} elements, and a step would give it {size}{more}")
        found.append(size)
    if extra and not 0 < extra < found[along]:
        raise ExportError(
            f"overlap: {extra} of input {port.text} leaves nothing new of the {found[along]} elements that a step reads"
        )
    return tuple(found)


def overlap_axis(rank: int, time: int | None) -> int:
    return rank - 1 if time is None else time


def state_places(port: Port, frames: list[Port], axes: Axes, initial: np.ndarray | None) -> list[Place]:
    """Of a state: every place of the batch axis that its shape allows, the likeliest first."""
    rank = len(port.dims)
    if port.name in axes.batch:
        if not 0 <= axes.batch[port.name] < rank:
            raise ExportError(f"batch_axes: state {port.text} has no axis {axes.batch[port.name]}")
        return [_state_place(port, axes.batch[port.name], axes, initial)]
    free = [i for i, dim in enumerate(port.dims) if isinstance(dim, str)]
    named = {f.dims[0] for f in frames if f.dims and isinstance(f.dims[0], str) and f.dims[0]}
    same = [i for i in free if port.dims[i] in named]
    candidates = same or free
    if len(candidates) > 1 and port.name not in axes.shapes and initial is None:
        raise ExportError(
            f"state {port.text}: several axes have no fixed size; say which is the batch: batch_axes={{'{port.name}': 0}}"
        )
    candidates = candidates or [i for i, dim in enumerate(port.dims) if dim == 1]
    return [_state_place(port, i, axes, initial) for i in candidates] or [_state_place(port, None, axes, initial)]


def _state_place(port: Port, batch: int | None, axes: Axes, initial: np.ndarray | None) -> Place:
    shape = axes.shapes.get(port.name)
    is_open = any(isinstance(dim, str) for i, dim in enumerate(port.dims) if i != batch)
    if shape is None and initial is not None and is_open and initial.ndim == len(port.dims) - (batch is not None):
        shape = initial.shape
    rest = [i for i in range(len(port.dims)) if i != batch]
    if shape is not None and len(shape) != len(rest):
        raise ExportError(f"shapes: state {port.text} has {len(rest)} axes beside batch, {shape} has {len(shape)}")
    wanted = dict(zip(rest, shape, strict=True)) if shape is not None else {}
    sizes = []
    for i, dim in enumerate(port.dims):
        size = 1 if i == batch else wanted.get(i, dim)
        if isinstance(size, str):
            raise ExportError(
                f"state {port.text}: axis {i} has no fixed size; say the shape of one stream's, as in shapes={{'{port.name}': (..)}}"
            )
        if i != batch and isinstance(dim, int) and dim != size:
            raise ExportError(f"state {port.text}: axis {i} has {dim} elements, {size} were given")
        sizes.append(size)
    return Place(port.name, port.dtype, tuple(sizes), batch)


def whole(place: Place) -> Place:
    """The place in a graph that takes one stream at a time: without a batch axis, unless it is in front and of size 1."""
    if place.batch == 0:
        return place
    return replace(place, batch=None)
