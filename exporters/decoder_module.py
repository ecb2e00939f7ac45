"""`DecoderModule`: the torch module of a decoder that begins with what an encoder made of a whole source."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .step_module import stacked


class DecoderModule(nn.Module):
    """A decoder: `begin(encoded)` gives (memory, state) of a source, `forward(token, state, memory, mask)` gives (out, next state).

    encoded: what the encoder's forward gives for a batch of sources. memory: tensors (B, positions, ...) that no step changes, in any
    nesting of tuples, lists and dicts, such as the encoder's outputs and the keys that an attention makes of them, once; () where
    there is none. state: likewise; tensors (B, ...), or (B, positions, ...) where a value is kept for each position, as coverage is.
    mask: bool (B, positions), True where a position is real. Behind those memory holds zeros, and what is there must not count: give
    them a score of -inf before a softmax, a weight of 0 in a sum.
    out: scores (B, tokens), or a tuple or dict with others beside them, such as the attention (B, positions).
    """

    def begin(self, encoded: Any) -> tuple[Any, Any]:
        """The memory and the state that decoding a source begins with; here, what the encoder gives is that pair already."""
        return encoded

    def forward(self, token: Any, state: Any, memory: Any, mask: Tensor) -> tuple[Any, Any]:
        """What a token gives, and the state after it."""
        raise NotImplementedError(
            f"{type(self).__name__} must define forward(token, state, memory, mask) -> (out, state)"
        )

    def over(self, tokens: Any, encoded: Any, mask: Tensor | None = None) -> tuple[Any, Any]:
        """(outs, last state) of whole targets (B, T, ...), token by token, with the right tokens given: for training.

        mask: which positions of the memory are real, bool (B, positions); all where None.
        """
        memory, state = self.begin(encoded)
        leaves, structure = pytree.tree_flatten(tokens)
        if mask is None:
            mask = all_real(memory, leaves[0])
        outs = []
        for t in range(leaves[0].shape[1]):
            token = pytree.tree_unflatten([x[:, t] for x in leaves], structure)
            out, state = self(token, state, memory, mask)
            outs.append(out)
        return stacked(outs), state


def all_real(memory: Any, like: Tensor, positions: int = 1) -> Tensor:
    """A mask (B, positions) that says that all of the memory is real; where there is none, of so many positions, on the device of `like`."""
    found = [leaf for leaf in pytree.tree_flatten(memory)[0] if isinstance(leaf, Tensor) and leaf.dim() > 1]
    shape = found[0].shape[:2] if found else (like.shape[0], positions)
    return torch.ones(shape, dtype=torch.bool, device=like.device)
