"""Named recurrent networks, small, as people write them: (batch, time, features) in, something for every frame out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Over(nn.Module):
    """A recurrent layer's output of every frame, and a head."""

    def __init__(self, layer: nn.RNNBase, outputs: int = 5):
        super().__init__()
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.layer, self.head = layer, nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


class FrameMLP(nn.Sequential):
    """A classifier of single frames."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(8, 32), nn.GELU(), nn.LayerNorm(32), nn.Dropout(0.1), nn.Linear(32, 5), nn.Softmax(-1)
        )


class Experts(nn.Module):
    """A softmax mixture of four experts for every frame, by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.Parameter(torch.randn(4, 8, 6) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("btfo,btf->bto", torch.einsum("bte,efo->btfo", self.gate(x).softmax(-1), self.experts), x)


class GatedFeedForward(nn.Module):
    """SwiGLU with a residual, as in LLaMA's layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.both, self.out = nn.RMSNorm(8), nn.Linear(8, 48), nn.Linear(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.both(self.norm(x)).chunk(2, -1)
        return x + self.out(F.silu(gate) * value)


class CharacterModel(nn.Module):
    """A character language model: embedding, two LSTM layers, the embedding's matrix as the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(40, 24), nn.LSTM(24, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 40, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0]).log_softmax(-1)


class Seq2SeqEncoder(nn.Module):
    """An encoder that gives its output of every frame and the state for a decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(30, 16), nn.GRU(16, 24, batch_first=True)
        self.bridge = nn.Linear(24, 12)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        outputs, hidden = self.rnn(self.embedding(tokens))
        return torch.tanh(self.bridge(outputs)), hidden


class LearnedStart(nn.Module):
    """An LSTM whose first state is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.h, self.c = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 1, 16))
        self.rnn = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        start = [s.expand(-1, x.shape[0], -1).contiguous() for s in (self.h, self.c)]
        return self.rnn(x, (start[0], start[1]))[0]


class TransducerEncoder(nn.Module):
    """RNN-T's encoder in small: LSTM layers with projections, norms and residuals, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(8, 12)
        self.layers = nn.ModuleList(nn.LSTM(12, 20, proj_size=12) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(x + layer(x)[0])
        return x


class RNNoise(nn.Module):
    """The GRU denoiser (Valin 2018): three GRUs that see each other's outputs, gains for bands and a voice probability."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.voice = nn.Linear(10, 12), nn.GRU(12, 12, batch_first=True)
        self.noise, self.denoise = nn.GRU(34, 16, batch_first=True), nn.GRU(38, 20, batch_first=True)
        self.activity, self.gains = nn.Linear(12, 1), nn.Linear(20, 8)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        dense = torch.tanh(self.inp(x))
        voice, _ = self.voice(dense)
        noise, _ = self.noise(torch.cat([dense, voice, x], -1))
        clean, _ = self.denoise(torch.cat([voice, noise, x], -1))
        return {"gains": torch.sigmoid(self.gains(clean)), "voice": torch.sigmoid(self.activity(voice))}


class AudioVisual(nn.Module):
    """Two inputs of the same frame rate, each with a recurrent layer, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.ears, self.eyes = nn.GRU(8, 12, batch_first=True), nn.GRU(6, 12, batch_first=True)
        self.head = nn.Linear(24, 4)

    def forward(self, audio: Tensor, video: Tensor) -> Tensor:
        return self.head(torch.cat([self.ears(audio)[0], self.eyes(video)[0]], -1))


class Autoencoder(nn.Module):
    """An LSTM that says how badly each frame is explained: the anomaly score of sensors."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(8, 6, batch_first=True), nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.decoder(self.encoder(x)[0])[0] - x).square().mean(-1, keepdim=True)


class CellLoop(nn.Module):
    """nn.LSTMCell or nn.GRUCell called frame by frame in Python."""

    def __init__(self, cell: nn.RNNCellBase):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(cell.hidden_size, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        outputs = []
        for t in range(x.shape[1]):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(x[:, t], (h, c))
            else:
                h = self.cell(x[:, t], h)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class SRU(nn.Module):
    """The simple recurrent unit (Lei et al. 2018): matrices before the loop, a light recurrence in it."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(12, 36)
        self.forget, self.reset = nn.Parameter(torch.randn(12) * 0.3), nn.Parameter(torch.randn(12) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        value, forget, reset = self.all(x).chunk(3, -1)
        c = x.new_zeros(x.shape[0], 12)
        outputs = []
        for t in range(x.shape[1]):
            f = torch.sigmoid(forget[:, t] + self.forget * c)
            r = torch.sigmoid(reset[:, t] + self.reset * c)
            c = f * c + (1 - f) * value[:, t]
            outputs.append(r * c + (1 - r) * x[:, t])
        return torch.stack(outputs, 1)


class IndRNN(nn.Module):
    """The independently recurrent network (Li et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.weight = nn.Linear(8, 12), nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 12), []
        for t in range(x.shape[1]):
            h = torch.relu(self.inp(x[:, t]) + self.weight * h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class EchoState(nn.Module):
    """A leaky reservoir with fixed weights and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inp", torch.randn(8, 30) * 0.4)
        self.register_buffer("recurrent", torch.randn(30, 30) * 0.15)
        self.out = nn.Linear(30, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], 30), []
        for t in range(x.shape[1]):
            h = 0.7 * h + 0.3 * torch.tanh(x[:, t] @ self.inp + h @ self.recurrent)
            outputs.append(h)
        return self.out(torch.stack(outputs, 1))


class SLSTM(nn.Module):
    """xLSTM's scalar memory (Beck et al. 2024): exponential gates, kept in range by a running maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.recurrent = nn.Linear(8, 48), nn.Linear(12, 48, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = c = n = x.new_zeros(x.shape[0], 12)
        m = x.new_full((x.shape[0], 12), -10.0)
        outputs = []
        for t in range(x.shape[1]):
            z, i, f, o = (self.inp(x[:, t]) + self.recurrent(h)).chunk(4, -1)
            f = F.logsigmoid(f)
            largest = torch.maximum(f + m, i)
            c = torch.exp(f + m - largest) * c + torch.exp(i - largest) * torch.tanh(z)
            n = torch.exp(f + m - largest) * n + torch.exp(i - largest)
            m, h = largest, torch.sigmoid(o) * c / n
            outputs.append(h)
        return torch.stack(outputs, 1)


class KalmanTracker(nn.Module):
    """A steady-state Kalman filter: predicts, and corrects by what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("move", torch.eye(4) + 0.1 * torch.diag(torch.ones(2), 2))
        self.register_buffer("see", torch.eye(2, 4))
        self.register_buffer("gain", torch.rand(4, 2) * 0.4)

    def forward(self, seen: Tensor) -> Tensor:
        state, outputs = seen.new_zeros(seen.shape[0], 4), []
        for t in range(seen.shape[1]):
            state = state @ self.move.T
            state = state + (seen[:, t] - state @ self.see.T) @ self.gain.T
            outputs.append(state)
        return torch.stack(outputs, 1)


class ConvCell(nn.Module):
    """ConvLSTM (Shi et al. 2015) or ConvGRU (Ballas et al. 2016) over small images."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, gates = kind, {"lstm": 16, "gru": 8}[kind]
        self.gates, self.new = nn.Conv2d(2 + 4, gates, 3, padding=1), nn.Conv2d(2 + 4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 4, x.shape[3], x.shape[4])
        outputs = []
        for t in range(x.shape[1]):
            gates = self.gates(torch.cat([x[:, t], h], 1))
            if self.kind == "lstm":
                i, f, o, g = gates.chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            else:
                reset, update = torch.sigmoid(gates).chunk(2, 1)
                new = torch.tanh(self.new(torch.cat([x[:, t], reset * h], 1)))
                h = (1 - update) * h + update * new
            outputs.append(h)
        return torch.stack(outputs, 1)


class TorchScan(nn.Module):
    """A gated cell over time by torch's own scan."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.recurrent = nn.Linear(8, 24), nn.Linear(12, 24)

    def forward(self, x: Tensor) -> Tensor:
        from torch._higher_order_ops.scan import scan

        def step(h: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
            update, new = (gates + self.recurrent(h)).chunk(2, -1)
            h = torch.lerp(h, torch.tanh(new), torch.sigmoid(update))
            return h, h.clone()

        _, outputs = scan(step, x.new_zeros(x.shape[0], 12), self.inp(x).transpose(0, 1), dim=0)
        return outputs.transpose(0, 1)
