"""Where a torch model came from."""

import hashlib
from importlib.metadata import version

import onnxruntime
import torch
from torch import nn

from ..engine.artifact import Origin


def origin_of(module: nn.Module) -> Origin:
    """torch, the versions that took part, and a hash of all weights and buffers by name."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    versions = {name: version(name) for name in ("torch", "onnx", "onnxscript", "undertow")}
    versions["onnxruntime"] = onnxruntime.__version__
    return Origin("torch", versions, digest.hexdigest())
