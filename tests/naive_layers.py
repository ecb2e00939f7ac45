"""The layers of `undertow.exporters.nn` in slow, obvious NumPy: one sequence (T, features) at a time, from their formulas.

`w` are the module's weights by their names, in float64.
"""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def causal_conv(x, w, *, stride=1, dilation=1, groups=1, lookahead=0):
    weight, length = w["weight"], len(x)
    channels, width, kernel = weight.shape
    outputs = []
    for i in range(-(-length // stride)):
        y = np.array(w["bias"], np.float64) if "bias" in w else np.zeros(channels)
        for c in range(channels):
            group = c // (channels // groups)
            for k in range(kernel):
                t = i * stride + lookahead - (kernel - 1 - k) * dilation
                if 0 <= t < length:
                    y[c] += weight[c, :, k] @ x[t, group * width : (group + 1) * width]
        outputs.append(y)
    return np.array(outputs)


def linear_scan(a, b, h):
    """a, b (B, T, ...), h (B, ...)."""
    outputs = []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        outputs.append(h)
    return np.stack(outputs, 1)


def min_gru(x, w):
    h, outputs = np.zeros(len(w["gate.weight"])), []
    for frame in x:
        z = sigmoid(linear(w, "gate", frame))
        h = (1 - z) * h + z * linear(w, "candidate", frame)
        outputs.append(h)
    return np.array(outputs)


def lru(x, w):
    decay = np.exp(-np.exp(w["nu"]) + 1j * np.exp(w["theta"]))
    b, c = w["b_re"] + 1j * w["b_im"], w["c_re"] + 1j * w["c_im"]
    h, outputs = np.zeros(len(decay), complex), []
    for frame in x:
        h = decay * h + np.exp(w["gamma"]) * (b @ frame)
        outputs.append((c @ h).real + w["d"] * frame)
    return np.array(outputs)


def selective_ssm(x, w):
    inner, states = w["log_a"].shape
    rank, kernel = w["dt.weight"].shape[1], w["convolution.weight"].shape[2]
    a, h = -np.exp(w["log_a"]), np.zeros((inner, states))
    past, outputs = [np.zeros(inner)] * kernel, []
    for frame in x:
        entered = linear(w, "enter", frame)
        past = [*past[1:], entered[:inner]]
        u = silu(w["convolution.bias"] + sum(w["convolution.weight"][:, 0, k] * past[k] for k in range(kernel)))
        selected = linear(w, "select", u)
        dt = np.log1p(np.exp(linear(w, "dt", selected[:rank])))
        b, c = selected[rank : rank + states], selected[rank + states :]
        for d in range(inner):
            for n in range(states):
                h[d, n] = np.exp(dt[d] * a[d, n]) * h[d, n] + dt[d] * b[n] * u[d]
        outputs.append(linear(w, "leave", (h @ c + w["d"] * u) * silu(entered[inner:])))
    return np.array(outputs)


def running_norm(x, w, *, decay, eps):
    """By the weighted mean and variance of all frames so far, not by their recursion."""
    outputs = []
    for t in range(len(x)):
        weights = decay ** np.arange(t, -1, -1.0)[:, None]
        mean = (weights * x[: t + 1]).sum(0) / weights.sum()
        var = (weights * (x[: t + 1] - mean) ** 2).sum(0) / weights.sum()
        outputs.append((x[t] - mean) / np.sqrt(var + eps))
    return np.array(outputs) * w.get("weight", 1) + w.get("bias", 0)


def turned(x, t, base):
    """Pairs of features as complex numbers, turned by the angle of frame t."""
    half = len(x) // 2
    pairs = (x[:half] + 1j * x[half:]) * np.exp(1j * t * base ** (-2 * np.arange(half) / len(x)))
    return np.concatenate([pairs.real, pairs.imag])


def windowed_attention(x, w, *, heads, left, right, rotary_base=None):
    length, features = x.shape
    size = features // heads
    q, k, v = np.split(linear(w, "enter", x), 3, axis=1)
    outputs = []
    for t in range(length):
        window, parts = range(max(0, t - left), min(length, t + right + 1)), []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            place = (lambda y, s: turned(y, s, rotary_base)) if rotary_base else (lambda y, s: y)
            scores = [place(q[t, part], t) @ place(k[s, part], s) / math.sqrt(size) for s in window]
            if "relative" in w:
                scores = [score + w["relative"][h, s - t + left] for score, s in zip(scores, window, strict=True)]
            parts.append(softmax(np.array(scores)) @ np.array([v[s, part] for s in window]))
        outputs.append(linear(w, "leave", np.concatenate(parts)))
    return np.array(outputs)


def cell(kind, x, state, w_ih, w_hh, b_ih, b_hh):
    """torch's formulas of one step; state (h, c), c is unused but in an LSTM."""
    h, c = state
    i, r = w_ih @ x + b_ih, w_hh @ h + b_hh
    if kind == "lstm":
        enter, forget, new, out = np.split(i + r, 4)
        c = sigmoid(forget) * c + sigmoid(enter) * np.tanh(new)
        return sigmoid(out) * np.tanh(c), c
    if kind == "gru":
        (ri, zi, ni), (rr, zr, nr) = np.split(i, 3), np.split(r, 3)
        z = sigmoid(zi + zr)
        return (1 - z) * np.tanh(ni + sigmoid(ri + rr) * nr) + z * h, c
    return (np.maximum(i + r, 0) if kind == "rnn_relu" else np.tanh(i + r)), c


def latency_controlled(x, w, *, kind, layers, lookahead):
    for k in range(layers):
        x = np.concatenate([_direction(x, w, kind, k, "", None), _direction(x, w, kind, k, "_reverse", lookahead)], 1)
    return x


def _direction(x, w, kind, k, suffix, lookahead):
    hidden = w[f"layer.weight_hh_l{k}{suffix}"].shape[1]
    weights = [w.get(f"layer.{n}_l{k}{suffix}", 0.0) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    outputs = []
    for t in range(len(x)):
        ahead = range(min(t + lookahead, len(x) - 1), t - 1, -1) if lookahead is not None else range(t + 1)
        state = (np.zeros(hidden), np.zeros(hidden))
        for s in ahead:
            state = cell(kind, x[s], state, *weights)
        outputs.append(state[0])
    return np.array(outputs)


def mel_of(hz, scale):
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    return 3 * hz / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def hz_of(mel, scale):
    """By bisection of `mel_of`, which grows."""
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mel_of(middle, scale) < mel else (low, middle)
    return low


def log_mel(
    samples, *, rate, window_length, hop_length, n_fft, n_mels, low, high, scale, area, power, floor, causal, window
):
    before = np.zeros(window_length - hop_length if causal else 0)
    samples = np.concatenate([before, samples])
    edges = np.linspace(mel_of(low, scale), mel_of(high, scale), n_mels + 2)
    points = [hz_of(m, scale) for m in edges]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    outputs = []
    for begin in range(0, len(samples) - window_length + 1, hop_length):
        spectrum = np.abs(np.fft.rfft(samples[begin : begin + window_length] * window, n_fft)) ** power
        row = []
        for m in range(n_mels):
            triangle = np.interp(bins, points[m : m + 3], [0, 1, 0])
            row.append((triangle @ spectrum) * (2 / (points[m + 2] - points[m]) if area else 1))
        outputs.append(np.log(np.maximum(row, floor)))
    return np.array(outputs)


def dct(row, count):
    """The orthonormal DCT-II of one frame."""
    size, made = len(row), []
    for k in range(count):
        total = sum(row[m] * math.cos(math.pi * k * (m + 0.5) / size) for m in range(size))
        made.append(total * math.sqrt((1 if k == 0 else 2) / size))
    return np.array(made)


def decoder_attention(x, w, *, kind):
    """Every frame in turn, from the zero state."""
    memory, hidden = w["memory"], w["cell.weight_hh"].shape[1]
    weights = [w[f"cell.{n}"] for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    h, outputs = np.zeros(hidden), []
    for frame in x:
        query = linear(w, "query", h)
        if kind == "dot":
            scores = [query @ entry for entry in memory]
        else:
            scores = [linear(w, "score", np.tanh(query + linear(w, "keys", entry)))[0] for entry in memory]
        context = softmax(np.array(scores)) @ memory
        h, _ = cell("gru", np.concatenate([frame, context]), (h, None), *weights)
        outputs.append(np.concatenate([h, context]))
    return np.array(outputs)
