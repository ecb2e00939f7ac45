"""`StepModule`: a torch module that carries its own state, one frame after the other."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree


class StepModule(nn.Module):
    """A module of one step: `init_state(batch)` gives the state of new streams, `forward(frame, state)` gives (out, next state).

    frame, out: a tensor (B, ...), or tuples and dicts of such. state: tensors (B, ...) in any nesting of tuples, lists and dicts, of
    the same structure, shapes and dtypes in every step; the initial one must be the same for each stream, and may be learned.
    """

    def init_state(self, batch: int) -> Any:
        """The state of `batch` streams that have seen nothing."""
        raise NotImplementedError(f"{type(self).__name__} must define init_state(batch)")

    def forward(self, frame: Any, state: Any) -> tuple[Any, Any]:
        """What a frame gives, and the state after it."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(frame, state) -> (out, state)")

    def over(self, frames: Any, state: Any = None) -> tuple[Any, Any]:
        """(outs, last state) of whole sequences (B, T, ...), frame by frame from `state`, or as new streams: for training."""
        leaves, structure = pytree.tree_flatten(frames)
        batch, length = leaves[0].shape[:2]
        state = self.init_state(batch) if state is None else state
        outs = []
        for t in range(length):
            out, state = self(pytree.tree_unflatten([x[:, t] for x in leaves], structure), state)
            outs.append(out)
        return stacked(outs), state


def stacked(outs: list[Any]) -> Any:
    """The outputs of each step as those of the whole, time at axis 1."""
    each = [pytree.tree_flatten(out)[0] for out in outs]
    joined: list[Tensor] = [torch.stack(column, 1) for column in zip(*each, strict=True)]
    return pytree.tree_unflatten(joined, pytree.tree_flatten(outs[0])[1])
