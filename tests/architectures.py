"""Named architectures: what each is, how it is called and exported. benchmarks/architectures.py makes docs/architectures.md of them.

Weights are random and the same every time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import nets_attention as attention
from . import nets_convolution as convolution
from . import nets_recurrent as recurrent
from . import nets_scans as scans


@dataclass(frozen=True)
class Architecture:
    """frame: the shape of one frame of each input; tokens: how many there are, where frames are tokens.

    multiple: of which number every length must be. options: of `undertow.export`.
    output_axis: the time axis of its outputs. outputs: which of a tuple's have one value for every frame.
    """

    name: str
    make: Callable[[], nn.Module]
    frame: dict[str, tuple[int, ...]]
    shows: str
    time_axis: int = 1
    tokens: int = 0
    multiple: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] | None = None
    other_axis: int | None = None

    @property
    def output_axis(self) -> int:
        return self.time_axis if self.other_axis is None else self.other_axis

    @property
    def reach(self) -> tuple[int | None, int | None]:
        """How many frames before and after its own an output sees, where the options bound it."""
        if "window" in self.options:
            return self.options["window"]
        return None, self.options["lookahead"] if isinstance(self.options.get("lookahead"), int) else None

    def module(self) -> nn.Module:
        """The module in evaluation mode, batch norms with statistics that are not those of nothing."""
        torch.manual_seed(sum(map(ord, self.name)))
        module = self.make()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        return module.eval()

    def inputs(self, batch: int, length: int, seed: int = 0) -> dict[str, Tensor]:
        """Random input tensors by parameter."""
        generator = torch.Generator().manual_seed(seed)
        found = {}
        for name, frame in self.frame.items():
            before = (batch, *frame[: self.time_axis - 1]) if self.time_axis else ()
            after = frame[self.time_axis - 1 :] if self.time_axis else (batch, *frame)
            shape = (*before, length, *after)
            found[name] = (
                torch.randint(self.tokens, shape, generator=generator)
                if self.tokens
                else torch.randn(shape, generator=generator)
            )
        return found

    def frames(self, length: int) -> dict[str, np.ndarray]:
        """One stream's frames, (T, *frame) for each input: those of `inputs(1, length, length)`."""
        batch = 0 if self.time_axis else 1
        found = self.inputs(1, length, seed=length)
        return {n: np.moveaxis(t.numpy(), (batch, self.time_axis), (0, 1))[0] for n, t in found.items()}

    def frame_outputs(self, made: Any) -> dict[str, Tensor]:
        """The outputs that have one value for every frame, by the names that an artifact has for them."""
        if isinstance(made, Tensor):
            return {"output": made}
        if isinstance(made, dict):
            return made
        kept = range(len(made)) if self.outputs is None else self.outputs
        return {f"output_{i}" if len(kept) > 1 else "output": made[i] for i in kept}

    def frame_output_names(self, names: list[str]) -> list[str]:
        """Those of the names that are of such outputs."""
        return [n for i, n in enumerate(names) if self.outputs is None or i in self.outputs]

    def example(self) -> Any:
        """As `undertow.export` takes it."""
        inputs = self.inputs(2, 48)
        return inputs if len(inputs) > 1 else next(iter(inputs.values()))


def _one(
    name: str, make: Callable[[], nn.Module], shows: str, frame: tuple[int, ...] = (8,), **rest: Any
) -> Architecture:
    return Architecture(name, make, {"x": frame}, shows, **rest)


def _turned(*layers: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: convolution.Turned(*(layer() for layer in layers))


_FRAMES = [
    _one("frame classifier", recurrent.FrameMLP, "linear layers, norm and softmax of one frame"),
    _one("mixture of experts", recurrent.Experts, "softmax gate, einsum"),
    _one("SwiGLU feed-forward", recurrent.GatedFeedForward, "RMS norm, split, residual"),
]

_RECURRENT = [
    _one("Elman RNN", lambda: recurrent.Over(nn.RNN(8, 16, batch_first=True)), "nn.RNN"),
    _one("LSTM", lambda: recurrent.Over(nn.LSTM(8, 24, num_layers=2, batch_first=True)), "two layers"),
    _one("GRU", lambda: recurrent.Over(nn.GRU(8, 24, num_layers=2, batch_first=True)), "two layers"),
    _one("LSTM with projection", lambda: recurrent.Over(nn.LSTM(8, 24, proj_size=10, batch_first=True)), "proj_size (LSTMP)"),
    _one("LSTM, learned start", recurrent.LearnedStart, "initial states that are parameters"),
    _one("RNN-T encoder", recurrent.TransducerEncoder, "projected LSTMs, norms, residuals, time first", time_axis=0),
    Architecture("character model", recurrent.CharacterModel, {"tokens": ()}, "embedding, LSTM, tied head", tokens=40),
    Architecture("seq2seq encoder", recurrent.Seq2SeqEncoder, {"tokens": ()}, "embedding, GRU; its last state is no output", tokens=30, outputs=(0,)),
    _one("LSTM autoencoder", recurrent.Autoencoder, "a score of every frame"),
    _one("RNNoise", recurrent.RNNoise, "three GRUs, skips, two outputs", (10,)),
    Architecture("audio-visual GRU", recurrent.AudioVisual, {"audio": (8,), "video": (6,)}, "two inputs"),
    _one("LSTMCell in a loop", lambda: recurrent.CellLoop(nn.LSTMCell(8, 16)), "a Python loop over time"),
    _one("GRUCell in a loop", lambda: recurrent.CellLoop(nn.GRUCell(8, 16)), "a Python loop over time"),
    _one("SRU", recurrent.SRU, "layers before a loop", (12,)),
    _one("IndRNN", recurrent.IndRNN, "a loop with a layer in it"),
    _one("echo state network", recurrent.EchoState, "a loop, and a layer after it"),
    _one("sLSTM (xLSTM)", recurrent.SLSTM, "four carried tensors, a running maximum"),
    _one("Kalman filter", recurrent.KalmanTracker, "a linear state space in a loop", (2,)),
    _one("ConvLSTM", lambda: recurrent.ConvCell("lstm"), "a convolution in the cell", (2, 6, 6)),
    _one("ConvGRU", lambda: recurrent.ConvCell("gru"), "a convolution in the cell", (2, 6, 6)),
    _one("torch.scan", recurrent.TorchScan, "torch's own loop over time"),
    _one(
        "bidirectional LSTM, lookahead 6",
        lambda: recurrent.Over(nn.LSTM(8, 12, bidirectional=True, batch_first=True)),
        "the reverse layer over 6 frames of the future, by request",
        options={"lookahead": 6},
    ),
    _one(
        "bidirectional GRU, whole stream",
        lambda: recurrent.Over(nn.GRU(8, 12, bidirectional=True, batch_first=True)),
        "runs when the stream ends",
        options={"lookahead": "all"},
    ),
]  # fmt: skip

_CONVOLUTION = [
    _one("causal convolutions", _turned(lambda: convolution.CausalConv(8, 12, 5), nn.ReLU, lambda: convolution.CausalConv(12, 6, 3)), "left padding"),
    _one("centred convolutions", _turned(lambda: nn.Conv1d(8, 12, 5, padding=2), nn.ReLU, lambda: nn.Conv1d(12, 6, 3, padding=1)), "right padding is a delay"),
    _one("TCN", _turned(*(lambda i=i, d=d: convolution.TCNBlock(i, 12, d) for i, d in ((8, 1), (12, 2), (12, 4), (12, 8)))), "padded and cut, dilated, residual"),
    _one("WaveNet", convolution.WaveNet, "gates, skips of every layer, (batch, channels, time)", (1,), time_axis=2),
    _one("QuartzNet block", _turned(lambda: nn.Conv1d(8, 16, 5, stride=2, padding=2), convolution.QuartzBlock, convolution.QuartzBlock), "separable, stride 2, delays meet"),
    _one("x-vector TDNN", _turned(*(lambda i=i, k=k, d=d: nn.Sequential(nn.Conv1d(i, 16, k, dilation=d), nn.ReLU(), nn.BatchNorm1d(16)) for i, k, d in ((8, 5, 1), (16, 3, 2), (16, 3, 3), (16, 1, 1)))), "no padding: fewer frames out"),
    _one("Wav2Letter", _turned(lambda: nn.Conv1d(8, 16, 7, stride=2, padding=3), nn.ReLU, lambda: nn.Conv1d(16, 16, 5, padding=2), nn.ReLU, lambda: nn.Conv1d(16, 10, 1)), "half as many frames"),
    _one("ResNet-1D", _turned(lambda: convolution.ResidualDown(8, 12, 2), lambda: convolution.ResidualDown(12, 16, 2)), "stride and pooling side by side", multiple=4),
    _one("InceptionTime", _turned(convolution.Inception), "kernels of several lengths, max pooling"),
    _one("blur pooling", _turned(lambda: nn.Conv1d(8, 12, 3, padding=1), nn.ReLU, lambda: nn.AvgPool1d(4, stride=2, padding=1)), "average pooling with padding"),
    _one("DS-CNN", convolution.DSCNN, "2-D convolutions over time and bands, an even kernel", (10,)),
    _one("CRNN", convolution.CRNN, "2-D convolutions, pooled bands, GRU", (16,)),
    _one("CRNN, pooled time", lambda: convolution.CRNN(5), "five frames to one", (16,)),
    _one("Deep Speech 2", convolution.DeepSpeech, "strided 2-D convolutions, GRUs, lookahead convolution", (16,)),
    _one("CRN", convolution.CRN, "encoder and decoder over bands, skips, LSTM", (15,)),
    _one("U-Net in time", convolution.TimeUNet, "down and up twice by transposed convolutions", (4,), time_axis=2, multiple=4),
    _one("U-Net in time, resized", lambda: convolution.TimeUNet("nearest"), "down and up twice by repetition", (4,), time_axis=2, multiple=4),
    _one("Demucs, causal", convolution.Demucs, "16 samples a step, LSTM, skips", (1,), time_axis=2, multiple=16),
    _one("Conv-TasNet", convolution.ConvTasNet, "overlapping filterbank, overlap-add", (1,), time_axis=2),
    _one("HiFi-GAN", convolution.HiFiGAN, "16 samples for a frame", time_axis=2),
    _one("LPCNet frame network", convolution.LPCNetFrames, "repeated frames into a GRU"),
    _one("log-mel front end", convolution.LogMel, "raw samples to frames", ()),
    _one("LEAF front end", convolution.LEAF, "learned filters on samples, pooled", (1,)),
    _one("delta features", convolution.Delta, "slices, zeros in front"),
    _one("temporal shift", convolution.TemporalShift, "channels from the frame before and after"),
    _one("causal 3-D convolutions", convolution.CausalC3D, "video, (batch, channels, time, height, width)", (2, 6, 6), time_axis=2, other_axis=1),
    _one("R(2+1)D", convolution.FactorisedVideo, "video, centred in time", (2, 6, 6), time_axis=2),
]  # fmt: skip

_SCANS = [
    _one("minGRU", scans.MinGRU, "gates from the frame alone"),
    _one("LRU", scans.LRU, "complex diagonal recurrence"),
    _one("RWKV-4", scans.RWKV, "token shift, running weighted mean", (12,)),
    _one("Mamba", scans.Mamba, "causal convolution, selective scan"),
    _one("RetNet", scans.RetNet, "a matrix for a state"),
    _one("linear attention", scans.LinearAttention, "running sums over the sequence"),
    _one("DeltaNet", scans.DeltaNet, "einsum in the loop"),
    _one("QRNN", scans.QRNN, "convolution before a loop"),
    _one("cumulative mean", scans.RunningMean, "running sum divided by positions"),
    _one("cumulative layer norm", scans.CumulativeLayerNorm, "running mean and variance"),
    _one("PCEN", scans.PCEN, "an average that starts with the first frame"),
    _one("biquad filter", scans.Biquad, "two samples of memory", ()),
]

_ATTENTION = [
    _one("sliding-window attention", lambda: attention.SlidingWindow(8), "the last 8 frames", (16,)),
    _one("attention with lookahead", lambda: attention.SlidingWindow(8, 3), "3 frames of the future (Emformer-like)", (16,)),
    _one("nn.MultiheadAttention, windowed", lambda: attention.Multihead(8), "torch's own layer with a band mask", (16,)),
    _one("rotary attention", lambda: attention.Block(attention.Rotary(8)), "RoPE, a transformer block", (16,)),
    _one("ALiBi", lambda: attention.ALiBi(), "biases by distance", (16,)),
    _one("Conformer block, causal", lambda: attention.Conformer(), "attention and convolution", (16,)),
    _one("Conformer block, centred", lambda: attention.Conformer(causal=False), "attention and convolution with delays", (16,)),
    _one("speech encoder", attention.SpeechEncoder, "strided stem, two windowed blocks"),
    _one("causal transformer, last 16 frames", lambda: attention.Block(attention.Multihead()), "unbounded attention cut to 16 frames, by request", (16,), options={"window": (15, 0)}),
    _one("causal transformer", lambda: attention.Block(attention.Multihead()), "attention to all frames so far: its state has no bound", (16,)),
    _one("ECAPA-TDNN gate", attention.Pooled, "the mean over the whole recording is known only at its end"),
]  # fmt: skip

ARCHITECTURES = (*_FRAMES, *_RECURRENT, *_CONVOLUTION, *_SCANS, *_ATTENTION)
