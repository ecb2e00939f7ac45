"""Which backends a certificate is about, in tests that make artifacts."""

import pytest


@pytest.fixture(autouse=True)
def without_compiling(request, monkeypatch):
    """Certifies ONNX Runtime alone, for a compiled backend takes seconds a model; tests that ask for `compiled` have both."""
    if "compiled" not in request.fixturenames:
        monkeypatch.setattr("undertow.exporters.certifying.BACKENDS", ("ort",))
        monkeypatch.setattr("undertow.exporters.step_certificate.BACKENDS", ("engine:ort",))
        monkeypatch.setattr("undertow.exporters.seq2seq_certificate.BACKENDS", ("engine:ort",))


@pytest.fixture
def compiled():
    """Asks for the whole certificate."""
