"""A `StepModule` as a function of tensors, held to its protocol before anything is traced."""

import inspect
from collections.abc import Sequence as Several
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..engine.errors import ExportError
from .calling import keys, output_name
from .step_module import StepModule
from .torch_graph import first_line

PROBES = (5, 3)  # batches; the first is traced


class StepCall(nn.Module):
    """A StepModule as a function of its frames' and states' tensors to those of its outputs and next states, all in order.

    frames, states, outputs: their names. example: of the frames. initial: of the states, one stream each. first: what a frame that has
    no name is called, forward's first parameter where None; root: what the states' names begin with.
    """

    def __init__(self, module: StepModule, example: Any, first: str | None = None, root: tuple[str, ...] = ("state",)):
        super().__init__()
        self.module, self._root = module, root
        first = first or next(iter(inspect.signature(module.forward).parameters))
        found, self._frame = pytree.tree_flatten_with_path(example)
        self.example = [leaf for _, leaf in found]
        named = isinstance(example, dict)
        self.frames = [".".join(keys(p) if named else [first, *keys(p)]) for p, _ in found]
        for name, leaf in zip(self.frames, self.example, strict=True):
            if not isinstance(leaf, Tensor) or leaf.dim() < 1 or not leaf.shape[0]:
                got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                raise ExportError(
                    f"input '{name}': the example has {got}, expected one frame of a batch, a tensor (B, *frame)"
                )
        if not found or len({leaf.shape[0] for leaf in self.example}) > 1:
            sizes = {n: t.shape[0] for n, t in zip(self.frames, self.example, strict=True)}
            raise ExportError(
                f"the frames have batches of {sizes}, expected at least one tensor, all of the same batch"
            )
        state, self._state = self._initial(1)
        self.states = [name for name, _ in state]
        self.initial = [tensor for _, tensor in state]
        self._check_initial()
        self.outputs = self._check_step()

    def _initial(self, batch: int) -> tuple[list[tuple[str, Tensor]], Any]:
        """The states by name, and how they nest."""
        leaves, structure = pytree.tree_flatten_with_path(self.module.init_state(batch))
        named = [(".".join([*self._root, *keys(p)]), leaf) for p, leaf in leaves]
        for name, leaf in named:
            if not isinstance(leaf, Tensor) or leaf.dim() < 1 or leaf.shape[0] != batch:
                got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                raise ExportError(
                    f"'{name}': init_state({batch}) gives {got}, expected a tensor of shape ({batch}, ...): a row for each stream"
                )
        return named, structure

    def _check_initial(self) -> None:
        for batch in PROBES:
            state, structure = self._initial(batch)
            if structure != self._state:
                raise ExportError(f"init_state(1) and init_state({batch}) nest differently: {self._state}, {structure}")
            for (name, tensor), first in zip(state, self.initial, strict=True):
                same = tensor.dtype == first.dtype and tensor.shape[1:] == first.shape[1:]
                if not same or not torch.equal(tensor, first.expand_as(tensor)):
                    raise ExportError(
                        f"'{name}': init_state({batch}) gives other values, dtype or shape than init_state(1), or not the same for each stream; "
                        "a new stream must begin the same in any batch"
                    )

    def sized(self, batch: int) -> list[Tensor]:
        """Frames and states of a batch."""
        frames = [t[torch.arange(batch, device=t.device) % t.shape[0]] for t in self.example]
        return [*frames, *(t.expand(batch, *t.shape[1:]).clone() for t in self.initial)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found, after = self.step(tensors)
        return (*(leaf for _, leaf in found), *after)

    def step(self, tensors: Several[Tensor]) -> tuple[list[tuple[str, Tensor]], list[Tensor]]:
        """The outputs by name, and the next states."""
        frame = self.frame_of(tensors[: len(self.frames)])
        state = pytree.tree_unflatten(list(tensors[len(self.frames) :]), self._state)
        given = self.module(frame, state)
        if not isinstance(given, tuple) or len(given) != 2:
            raise ExportError(
                f"forward gives a {type(given).__name__}, expected the two of (out, state): what the frame gives and the next state"
            )
        after, structure = pytree.tree_flatten(given[1])
        if structure != self._state:
            raise ExportError(f"forward nests the state as {structure}, init_state as {self._state}; keep it the same")
        found = [(output_name(p), leaf) for p, leaf in pytree.tree_flatten_with_path(given[0])[0] if leaf is not None]
        taken = {*self.frames, *self.states}
        return [(f"{name}_out" if name in taken else name, leaf) for name, leaf in found], after

    def frame_of(self, tensors: Several[Tensor]) -> Any:
        """The frame of these tensors, nested as the example is."""
        return pytree.tree_unflatten(list(tensors), self._frame)

    def _check_step(self) -> list[str]:
        """The outputs' names, where a step keeps to the protocol."""
        outputs: list[str] = []
        for batch in PROBES:
            tensors = self.sized(batch)
            try:
                found, after = self.step(tensors)
            except ExportError:
                raise
            except Exception as error:  # the module's own
                shapes = {n: tuple(t.shape) for n, t in zip([*self.frames, *self.states], tensors, strict=True)}
                raise ExportError(
                    f"the module fails on frames and states of shapes {shapes} ({type(error).__name__}: {first_line(error)}); "
                    "the example must be one frame of a batch, and any batch size must do"
                ) from error
            for name, old, new in zip(self.states, tensors[len(self.frames) :], after, strict=True):
                if not isinstance(new, Tensor) or (new.shape, new.dtype) != (old.shape, old.dtype):
                    got = f"{new.dtype} {tuple(new.shape)}" if isinstance(new, Tensor) else f"a {type(new).__name__}"
                    raise ExportError(
                        f"'{name}' is {old.dtype} {tuple(old.shape)} before a step and {got} after it; a state keeps its shape and dtype "
                        "(a buffer that grows must become one of fixed size)"
                    )
            if not found:
                raise ExportError("forward gives no output; return (out, state)")
            outputs = [name for name, _ in found]
            for name, leaf in found:
                if not isinstance(leaf, Tensor) or leaf.dim() < 1 or leaf.shape[0] != batch:
                    got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                    raise ExportError(
                        f"output '{name}': is {got} for a batch of {batch}, expected a tensor ({batch}, ...)"
                    )
        return outputs
