"""How a module is called: the example's tensors by name, and the module as a function of those tensors alone."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..engine.errors import ExportError


class Call(nn.Module):
    """`module` as a function from the example's tensors, in order, to a tuple of its output tensors, in order.

    input_names, output_names: of those tensors; a name is the parameter's, the key's, or the path to a nested tensor.
    output_names is known after the first call. batch_axis, time_axis: of every input.
    """

    def __init__(self, module: nn.Module, example: Any, time_axis: int):
        super().__init__()
        self.module = module
        self.time_axis, self.batch_axis = time_axis, 0 if time_axis else 1
        self._arguments = _arguments(module, example)
        leaves, self._tree = pytree.tree_flatten_with_path(self._arguments)
        self.input_names = _input_names(module, example, [path for path, _ in leaves])
        self.example = [leaf for _, leaf in leaves]
        self.output_names: list[str] = []
        self._check_example()

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output tensors, in the order of `output_names`."""
        args, kwargs = self.arguments(tensors)
        found = [
            (path, leaf)
            for path, leaf in pytree.tree_flatten_with_path(self.module(*args, **kwargs))[0]
            if leaf is not None
        ]
        names = [output_name(path) for path, _ in found]
        for name, (_, leaf) in zip(names, found, strict=True):
            if not isinstance(leaf, Tensor):
                raise ExportError(f"output '{name}' is a {type(leaf).__name__}, expected a tensor; return tensors only")
        self.output_names = [f"{name}_out" if name in self.input_names else name for name in names]
        return tuple(leaf for _, leaf in found)

    def arguments(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) of the call with these tensors in the place of the example's."""
        return pytree.tree_unflatten(list(tensors), self._tree)

    def sized(self, batch: int, length: int) -> list[Tensor]:
        """The example, cut or repeated to `batch` streams of `length` frames: values that the module surely takes."""
        return [self._cycled(self._cycled(t, self.batch_axis, batch), self.time_axis, length) for t in self.example]

    @staticmethod
    def _cycled(tensor: Tensor, axis: int, size: int) -> Tensor:
        index = torch.arange(size, device=tensor.device) % tensor.shape[axis]
        return tensor.index_select(axis, index)

    def _check_example(self) -> None:
        if not self.example:
            raise ExportError(
                "the example holds no tensor; give a tensor, or a tuple or dict of tensors, as the module is called"
            )
        for name, tensor in zip(self.input_names, self.example, strict=True):
            if not isinstance(tensor, Tensor):
                raise ExportError(f"input '{name}': the example has a {type(tensor).__name__}, expected a tensor")
            if tensor.dim() < 2 or tensor.dim() <= self.time_axis or 0 in tensor.shape:
                raise ExportError(
                    f"input '{name}': the example has shape {tuple(tensor.shape)}, expected a batch axis ({self.batch_axis}) and a time axis "
                    f"({self.time_axis}), none of them empty; see `time_axis`"
                )
        sizes = {
            n: (t.shape[self.batch_axis], t.shape[self.time_axis])
            for n, t in zip(self.input_names, self.example, strict=True)
        }
        if len(set(sizes.values())) > 1:
            raise ExportError(
                f"the inputs' (batch, time) sizes differ: {sizes}; every input of a stream has one value a frame. "
                "Leave out initial states (the engine keeps them), and repeat what is constant for each frame"
            )


def _arguments(module: nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(args, kwargs) of the call that `example` stands for."""
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, dict):
        try:
            inspect.signature(module.forward).bind(**example)
        except TypeError:
            return (example,), {}
        return (), example
    return (example,), {}


def _input_names(module: nn.Module, example: Any, paths: list[tuple[Any, ...]]) -> list[str]:
    """A parameter's name for a positional argument, the key for an entry of a dict, dotted paths inside of those."""
    signature = inspect.signature(module.forward).parameters.values()
    parameters = [p.name for p in signature if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = []
    for path in paths:
        first, *rest = keys(path)[1:]
        if isinstance(example, dict) and first.isdigit():
            names.append(".".join(rest))  # one positional dict: its keys say more than the parameter's name
        elif first.isdigit():
            position = int(first)
            names.append(".".join([parameters[position] if position < len(parameters) else f"input_{position}", *rest]))
        else:
            names.append(".".join([first, *rest]))
    return names


def keys(path: tuple[Any, ...]) -> list[str]:
    """The path to a leaf in words."""
    return [str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path]


def output_name(path: tuple[Any, ...]) -> str:
    names = keys(path)
    if not names:
        return "output"
    return ".".join([f"output_{names[0]}" if names[0].isdigit() else names[0], *names[1:]])
