"""What tests that export torch modules share: exports without what only costs time, and a stepper of the test's own."""

import functools
import importlib

import numpy as np
import pytest
import torch

import undertow as ut

from .certificates import compiled, without_compiling  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def one_operator_library():
    """torch's exporter parses the source of all of its 500 operators anew for every model, half of an export's time."""
    apis = getattr(importlib.import_module("torch.onnx._internal._lazy_import"), "onnxscript_apis", None)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(apis, "get_torchlib_ops"):
            patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield


class Body(torch.nn.Module):
    """A function of (module, x), and the parts that it uses."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def streamed(path, sequences, backend="ort"):
    """What an engine gives for {key: (T, *frame)}, all streams at once, in chunks of random lengths, tails included."""
    engine, rng = ut.Engine(path, backend=backend, max_streams=len(sequences)), np.random.default_rng(0)
    done, parts = dict.fromkeys(sequences, 0), {key: [] for key in sequences}
    while any(at < len(sequences[key]) for key, at in done.items()):
        sizes = {key: min(int(rng.integers(0, 11)), len(sequences[key]) - at) for key, at in done.items()}
        chunks = {key: sequences[key][done[key] : done[key] + n] for key, n in sizes.items() if n}
        done = {key: at + sizes[key] for key, at in done.items()}
        for key, y in engine.push_many(chunks).items():
            parts[key].append(y)
    for key in sequences:
        parts[key].append(engine.close(key))
    return {key: np.concatenate(found) for key, found in parts.items()}


def check_whole(module, path, frame, lengths=(1, 2, 11), backend="ort"):
    """The artifact at `path` gives for streams what the module, (B, T, *frame) to (B, T, *out), gives for whole sequences."""
    torch.manual_seed(1)
    sequences = {f"s{n}": torch.randn(n, *frame) for n in lengths}
    given = streamed(path, {key: x.numpy() for key, x in sequences.items()}, backend)
    module.eval()
    for key, x in sequences.items():
        with torch.no_grad():
            expected = module(x[None])
        expected = (expected[0] if isinstance(expected, tuple) else expected)[0].numpy()
        assert given[key].shape == expected.shape, (key, given[key].shape, expected.shape)
        np.testing.assert_allclose(given[key], expected, atol=2e-5, rtol=1e-4)
