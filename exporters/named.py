"""What the command line names: a torch module by where its factory is, weights by their file, an example by its shape."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..engine.errors import ExportError


def named_module(place: str, name: str, folder: Path) -> nn.Module:
    """The module that `name` in the Python module `place` makes or is; `folder` is searched too, as by `python -m`."""
    sys.path.insert(0, str(folder))
    try:
        found = import_module(place)
    except ModuleNotFoundError as error:
        raise ExportError(f"{place}:{name}: no module named '{error.name}' is found here or on the path") from error
    finally:
        sys.path.remove(str(folder))
    if not hasattr(found, name):
        raise ExportError(f"{place}:{name}: the module '{place}' has no '{name}'")
    thing: Any = getattr(found, name)
    made = thing() if callable(thing) and not isinstance(thing, nn.Module) else thing
    if not isinstance(made, nn.Module):
        raise ExportError(f"{place}:{name}: gives a {type(made).__name__}, expected a torch.nn.Module")
    return made


def load_weights(module: nn.Module, checkpoint: Path) -> None:
    """Puts the checkpoint's weights (torch.save's, or *.safetensors) into the module, all of them and no other. No code in the file is run."""
    weights = _safetensors(checkpoint) if checkpoint.suffix == ".safetensors" else _plain(checkpoint)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ExportError(f"{checkpoint}: does not fit the module: {error}") from error


def _safetensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ExportError(f"{checkpoint}: safetensors is not installed; pip install safetensors") from error
    try:
        return load_file(checkpoint)
    except Exception as error:  # safetensors raises its own and OS errors
        raise ExportError(f"{checkpoint}: cannot be read as safetensors: {error}; was it written whole?") from error


def _plain(checkpoint: Path) -> dict[str, torch.Tensor]:
    """What torch.save wrote, where it is tensors by name."""
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises pickle, zip, OS and runtime errors
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ExportError(
            f"{checkpoint}: cannot be loaded as plain weights ({first}); save it with torch.save(module.state_dict(), path)"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(v, torch.Tensor) for v in weights.values()):
        raise ExportError(
            f"{checkpoint}: is not a state_dict of tensors; save it with torch.save(module.state_dict(), path)"
        )
    return weights


def zeros(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """A tensor of zeros, as an example of how a module is called. dtype: torch's name of it."""
    return torch.zeros(shape, dtype=getattr(torch, dtype))
