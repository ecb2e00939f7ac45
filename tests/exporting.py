"""What the tests of the exporter share: quick exports, and a check of their own that an artifact is the module."""

import functools
import importlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import undertow as ut  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_operator_library():
    """torch's exporter parses the source of all of its 500 operators anew for every model, half of an export's time."""
    apis = getattr(importlib.import_module("torch.onnx._internal._lazy_import"), "onnxscript_apis", None)
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(apis, "get_torchlib_ops"):
            patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield


@pytest.fixture(autouse=True)
def without_compiling(request, monkeypatch):
    """Certifies `ort` alone, for a compiled backend takes seconds a model; tests that ask for `compiled` have both."""
    if "compiled" not in request.fixturenames:
        monkeypatch.setattr("undertow.exporters.torch_export.BACKENDS", ("ort",))


@pytest.fixture
def compiled():
    """Asks for the whole certificate."""


class Body(torch.nn.Module):
    """A function of (module, x), and the parts that it uses."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def streamed(path, sequences, seed=0, backend="ort"):
    """What an engine gives for the sequences as concurrent streams, in chunks of random lengths, tails included."""
    engine, rng = ut.Engine(path, backend=backend, max_streams=len(sequences)), np.random.default_rng(seed)
    done, given = [0] * len(sequences), [[] for _ in sequences]
    while any(at < len(s) for at, s in zip(done, sequences, strict=True)):
        sizes = [min(int(rng.integers(0, 11)), len(s) - at) for at, s in zip(done, sequences, strict=True)]
        chunks = {i: sequences[i][at : at + n] for i, (at, n) in enumerate(zip(done, sizes, strict=True)) if n}
        done = [at + n for at, n in zip(done, sizes, strict=True)]
        for i, out in engine.push_many(chunks).items():
            given[i].append(out)
    for i in range(len(sequences)):
        given[i].append(engine.close(i))
    return [np.concatenate(parts) for parts in given]


def check_streamed(module, report, lengths, **options):
    """An engine's outputs for random sequences are the module's, first and last frames included."""
    shape, rng = report.spec.inputs[0].shape, np.random.default_rng(1)
    sequences = [rng.normal(size=(n, *shape)).astype(np.float32) for n in lengths]
    given = streamed(report.path, sequences, **options)
    for x, out in zip(sequences, given, strict=True):
        with torch.no_grad():
            expected = module.eval()(torch.from_numpy(x)[None])[0].numpy()
        assert out.shape == expected.shape, (len(x), out.shape, expected.shape)
        np.testing.assert_allclose(out, expected, atol=2e-5, rtol=1e-4)
