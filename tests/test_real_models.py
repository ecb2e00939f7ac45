"""Published models, as they are downloaded: adopted or exported, their streams give what their own code gives.

The speech is CMU Sphinx's "go forward ten meters" (tests/audio, BSD licence). Skipped only where the models cannot be fetched.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile

import undertow as ut

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]
SPEECH = ROOT / "tests" / "audio" / "goforward.flac"
BLOCK, SHIFT = 512, 128


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def models():
    try:
        return module(ROOT / "examples" / "models" / "fetch.py").fetch()
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def streams():
    """Speech, the same quieter and later, silence: of different lengths, none a whole number of blocks."""
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    assert rate == 16_000
    later = np.concatenate([np.zeros(5000, np.float32), 0.3 * speech])
    return {"speech": speech, "later": later, "silence": np.zeros(20_100, np.float32)}


def pushed(path, backend, streams, size=777):
    """What an engine gives for the streams side by side, in chunks that have nothing to do with blocks."""
    engine = ut.Engine(path, backend=backend, max_streams=4)
    parts = {key: [] for key in streams}
    for at in range(0, max(map(len, streams.values())), size):
        chunks = {key: x[at : at + size] for key, x in streams.items() if len(x) > at}
        for key, out in engine.push_many(chunks).items():
            parts[key].append(out)
    return {key: np.concatenate([*parts[key], engine.close(key)]) for key in streams}


def test_silero_vad(models, streams, tmp_path):
    """Raw samples in, a probability of speech every 512: equal to the package's own wrapper, near 1 in speech, near 0 in silence.

    The published graph chooses by its input `sr` between two models, has its batch at axis 1 of the state and reads 64 samples again:
    what is adopted has no choice left and runs on both backends.
    """
    path = tmp_path / "vad.onnx"
    report = ut.adopt(
        models["silero_vad.onnx"],
        path,
        constants={"sr": 16_000},
        overlap={"input": 64},
        frames_per_step=BLOCK,
        sample_rate_hz=16_000,
    )
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    assert "If" not in {n.op_type for n in onnx.load(path).graph.node}
    wrapper = module(models["utils_vad.py"]).OnnxWrapper(str(models["silero_vad.onnx"]), force_onnx_cpu=True)
    own = {}
    for key, samples in streams.items():
        wrapper.reset_states()
        blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
        own[key] = np.array([wrapper(torch.from_numpy(b), 16_000).item() for b in blocks])
    for backend in ("numba", "ort"):
        found = pushed(path, backend, streams)
        for key, probabilities in own.items():
            np.testing.assert_allclose(found[key][:, 0], probabilities, atol=1e-5)
    assert found["speech"].max() > 0.95
    assert np.mean(found["speech"] > 0.5) > 0.5
    assert found["silence"].max() < 0.1


def plain_dtln(models, samples):
    """The loop that the packages have around the two graphs: NumPy's FFT, one stream, overlapping blocks."""
    sessions = [
        onnxruntime.InferenceSession(models[f"model_{i}.onnx"], providers=["CPUExecutionProvider"]) for i in (1, 2)
    ]
    states = [np.zeros((1, 2, 128, 2), np.float32) for _ in sessions]
    block, sums, clean = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), []
    for at in range(0, len(samples) // SHIFT * SHIFT, SHIFT):
        block = np.concatenate([block[SHIFT:], samples[at : at + SHIFT]])
        spectrum = np.fft.rfft(block)
        magnitude = np.abs(spectrum).reshape(1, 1, -1).astype(np.float32)
        mask, states[0] = sessions[0].run(None, {"input_2": magnitude, "input_3": states[0]})
        enhanced = np.fft.irfft(mask.reshape(-1) * spectrum).astype(np.float32).reshape(1, 1, -1)
        refined, states[1] = sessions[1].run(None, {"input_4": enhanced, "input_5": states[1]})
        sums = np.concatenate([sums[SHIFT:], np.zeros(SHIFT, np.float32)]) + refined.reshape(-1)
        clean.append(sums[:SHIFT])
    return np.concatenate(clean)


def test_dtln(models, streams, tmp_path, monkeypatch):
    """Its two graphs, with a batch fixed at 1, and the Fourier code between them are one artifact from samples to samples.

    Three streams side by side give what the packages' loop gives for each; noise goes, speech stays.
    """
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "models"))
    report = module(ROOT / "examples" / "models" / "dtln.py").dtln(tmp_path, tmp_path / "dtln.onnx")
    sys.modules.pop("fetch", None)
    assert [p.backend for p in report.parity] == ["ort", "numba"]
    assert report.spec.batchable
    noise = np.random.default_rng(0).normal(0, 0.02, len(streams["speech"])).astype(np.float32)
    given = {"noisy": streams["speech"] + noise, "noise": noise[:30_000], "speech": streams["speech"][:20_000]}
    own = {key: plain_dtln(models, samples) for key, samples in given.items()}
    for backend in ("numba", "ort"):
        found = pushed(report.path, backend, given)
        for key, clean in own.items():
            np.testing.assert_allclose(found[key], clean, atol=2e-5)
    assert np.std(found["noise"][8000:]) < 0.1 * np.std(noise)
    assert np.std(found["speech"]) > 0.5 * np.std(given["speech"])


class VoiceEncoder(torch.nn.Module):
    """Resemblyzer's encoder, an embedding at every frame."""

    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = torch.nn.Linear(256, 256)

    def forward(self, mels):
        return torch.relu(self.linear(self.lstm(mels)[0]))


def test_resemblyzer(models, tmp_path, monkeypatch):
    """Step by step = whole: after each frame the embedding is what the encoder gives for the utterance so far."""
    monkeypatch.setattr(
        "undertow.exporters.certifying.BACKENDS", ("ort",)
    )  # the test compares more than the certificate does
    monkeypatch.setattr("undertow.exporters.parity.LENGTHS", (1, 2, 3, 5))
    weights = torch.load(models["pretrained.pt"], weights_only=True, map_location="cpu")["model_state"]
    encoder = VoiceEncoder().eval()
    encoder.load_state_dict({k: v for k, v in weights.items() if not k.startswith("similarity")})
    ut.export(encoder, torch.zeros(1, 20, 40), tmp_path / "voice.onnx")
    mels = torch.rand(2, 160, 40, generator=torch.Generator().manual_seed(0)) * 0.1
    found = pushed(tmp_path / "voice.onnx", "ort", {0: mels[0].numpy(), 1: mels[1, :90].numpy()}, size=7)
    for key, length in ((0, 160), (1, 90)):
        with torch.no_grad():
            _, (hidden, _) = encoder.lstm(mels[key : key + 1, :length])
            raw = torch.relu(encoder.linear(hidden[-1]))[0]
        own = (raw / raw.norm()).numpy()
        np.testing.assert_allclose(found[key][-1] / np.linalg.norm(found[key][-1]), own, atol=1e-5)
        assert len(found[key]) == length
