"""Encoder and decoder as the two functions of tensors that an artifact holds: what a source begins with, and one step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..engine.errors import ExportError
from .calling import Call, keys
from .decoder_module import DecoderModule, all_real
from .step_module import StepModule
from .torch_graph import first_line

LENGTH = "memory.length"
_PROBES = ((13, 48), (240, 1008))  # lengths of sources that say what grows with them
_BATCH = 3


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor that decoding begins with: its name, its shape and dtype for one stream and one position, whether it has positions."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    positions: bool

    @property
    def constant(self) -> bool:
        """It is memory, which no step changes."""
        return self.name.partition(".")[0] == "memory"


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begin` gives: its leaves, memory first, and how memory and state nest."""

    leaves: tuple[Leaf, ...]
    memory: Any
    state: Any

    def nested(self, tensors: dict[str, Tensor]) -> tuple[Any, Any]:
        """(memory, state) of tensors by name."""
        parts = [[tensors[leaf.name] for leaf in self.leaves if leaf.constant is kept] for kept in (True, False)]
        return pytree.tree_unflatten(parts[0], self.memory), pytree.tree_unflatten(parts[1], self.state)


class Beginning(nn.Module):
    """A source to all that decoding it begins with, by name, each `(B, positions, ...)`: what has one row a stream is repeated."""

    def __init__(self, encoder: nn.Module, decoder: DecoderModule):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.begun: Begun | None = None

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        assert self.begun is not None
        _, _, found = self.begin(args, kwargs)
        rows = [found[leaf.name].shape[1] for leaf in self.begun.leaves if leaf.positions]
        count = rows[0] if rows else pytree.tree_flatten((args, kwargs))[0][0].shape[1]
        return {
            leaf.name: found[leaf.name] if leaf.positions else _each(found[leaf.name], count)
            for leaf in self.begun.leaves
        }

    def begin(self, args: Any, kwargs: Any) -> tuple[Any, Any, dict[str, Tensor]]:
        """How memory and state nest, and their tensors by name. Raises ExportError."""
        given = self.decoder.begin(self.encoder(*args, **kwargs))
        if not isinstance(given, tuple) or len(given) != 2:
            raise ExportError(
                f"begin gives a {type(given).__name__}, expected the two of (memory, state): what no step changes and what a step changes"
            )
        found: dict[str, Tensor] = {}
        for root, tree in zip(("memory", "state"), given, strict=True):
            for path, leaf in pytree.tree_flatten_with_path(tree)[0]:
                name = ".".join([root, *keys(path)])
                if not isinstance(leaf, Tensor) or leaf.dim() < 1:
                    got = f"shape {tuple(leaf.shape)}" if isinstance(leaf, Tensor) else f"a {type(leaf).__name__}"
                    raise ExportError(f"'{name}': begin gives {got}, expected a tensor (B, ...): a row for each stream")
                if name == LENGTH or name in found:
                    raise ExportError(f"'{name}': is taken; give that entry of {root} another name")
                found[name] = leaf
        return pytree.tree_flatten(given[0])[1], pytree.tree_flatten(given[1])[1], found


def _each(tensor: Tensor, count: Any) -> Tensor:
    return tensor.unsqueeze(1).expand(-1, count, *tensor.shape[1:])


def begun_by(call: Call, beginning: Beginning) -> Begun:
    """What `begin` gives for two lengths of source; what grows with them has positions. Raises ExportError."""
    failed: Exception | None = None
    for lengths in _PROBES:
        try:
            runs = [_begin(call, beginning, n) for n in lengths]
        except ExportError:
            raise
        except Exception as error:  # the module's own; perhaps a source that is too short for it
            failed = failed or error
            continue
        (memory, state, short), (_, _, long) = runs
        leaves = tuple(_leaf(name, short[name], long[name]) for name in short)
        rows = {short[leaf.name].shape[1] for leaf in leaves if leaf.positions}
        if len(rows) > 1:
            shapes = {leaf.name: tuple(short[leaf.name].shape) for leaf in leaves if leaf.positions}
            raise ExportError(f"memory has different numbers of positions: {shapes}; every tensor of it needs as many")
        if not leaves:
            raise ExportError("begin gives no tensor; a decoder begins with memory, a state or both")
        return Begun(leaves, memory, state)
    assert failed is not None
    raise ExportError(
        f"encoder and begin fail on {_BATCH} sources of {_PROBES[0][0]} frames ({type(failed).__name__}: {first_line(failed)}); "
        "they must take any number of sources of any length, or of any that is long enough"
    ) from failed


def _begin(call: Call, beginning: Beginning, length: int) -> tuple[Any, Any, dict[str, Tensor]]:
    args, kwargs = call.arguments(call.sized(_BATCH, length))
    return beginning.begin(args, kwargs)


def _leaf(name: str, short: Tensor, long: Tensor) -> Leaf:
    grows = [i for i, (a, b) in enumerate(zip(short.shape, long.shape, strict=False)) if a != b]
    if short.dim() != long.dim() or short.shape[0] != _BATCH or grows not in ([], [1]):
        raise ExportError(
            f"'{name}': has shapes {tuple(short.shape)} and {tuple(long.shape)} for {_BATCH} sources of two lengths; expected (B, positions, ...), "
            "or (B, ...) where it is the same size for any source"
        )
    return Leaf(name, tuple(short.shape[2 if grows else 1 :]), short.dtype, bool(grows))


class DecoderStep(StepModule):
    """A decoder as a module of one step, with room for so many positions: the memory and its length are states that stay as they are."""

    def __init__(self, decoder: DecoderModule, begun: Begun, max_memory: int):
        super().__init__()
        self.decoder, self.begun, self.max_memory = decoder, begun, max_memory

    def init_state(self, batch: int) -> Any:
        """Zeros: an encoder fills them."""
        shapes = {leaf.name: ((self.max_memory,) if leaf.positions else ()) + leaf.shape for leaf in self.begun.leaves}
        device = next((p.device for p in self.decoder.parameters()), torch.device("cpu"))
        tensors = {
            leaf.name: torch.zeros(batch, *shapes[leaf.name], dtype=leaf.dtype, device=device)
            for leaf in self.begun.leaves
        }
        memory, state = self.begun.nested(tensors)
        return {"memory": memory, LENGTH: torch.zeros(batch, dtype=torch.int64, device=device), "state": state}

    def forward(self, frame: Any, state: Any) -> tuple[Any, Any]:
        mask = torch.arange(self.max_memory, device=state[LENGTH].device) < state[LENGTH][:, None]
        out, after = stepped(self.decoder, frame, state["state"], state["memory"], mask)
        return out, {**state, "state": after}


def stepped(decoder: DecoderModule, token: Any, state: Any, memory: Any, mask: Tensor) -> tuple[Any, Any]:
    """(out, next state) of one step. Raises ExportError where forward does not keep to the protocol."""
    given = decoder(token, state, memory, mask)
    if not isinstance(given, tuple) or len(given) != 2:
        raise ExportError(
            f"forward gives a {type(given).__name__}, expected the two of (out, state): what the token gives and the next state"
        )
    before, after = (pytree.tree_flatten(tree)[1] for tree in (state, given[1]))
    if before != after:
        raise ExportError(f"forward nests the state as {after}, begin as {before}; keep it the same")
    return given


def mask_of(memory: Any, source: Tensor) -> Tensor:
    """All positions of a whole source's memory; of its frames where there is no memory."""
    return all_real(memory, source, source.shape[1])
