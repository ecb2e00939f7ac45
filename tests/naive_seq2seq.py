"""Encoder-decoder models the slow way: one source at a time, NumPy in float64; greedy and beam search as the textbook says.

`Additive` computes from the weights of `nets_seq2seq.AdditiveEncoder` and `AdditiveDecoder` alone. The searches take any
`step(token, state) -> (scores, state)`, so that torch goes through them as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[int, Any], tuple[np.ndarray, Any]]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru_cell(x, h, w_ih, w_hh, b_ih, b_hh):
    """torch's GRU: the gates are reset, update, new."""
    xr, xz, xn = np.split(w_ih @ x + b_ih, 3)
    hr, hz, hn = np.split(w_hh @ h + b_hh, 3)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    return (1 - z) * np.tanh(xn + r * hn) + z * h


class Additive:
    """A bidirectional GRU, additive attention (Bahdanau et al. 2015), a GRU. weights: state_dicts as arrays."""

    def __init__(self, encoder: dict[str, np.ndarray], decoder: dict[str, np.ndarray]):
        self.e = {name: w.astype(np.float64) for name, w in encoder.items()}
        self.d = {name: w.astype(np.float64) for name, w in decoder.items()}

    def begin(self, source: np.ndarray) -> dict[str, np.ndarray]:
        """What decoding the source begins with: values, their keys, h."""
        e, x = self.e, self.e["embedding.weight"][source]
        ways, last = [], []
        for end in ("", "_reverse"):
            h, outs = np.zeros(e["gru.weight_hh_l0"].shape[1]), [np.zeros(0)] * len(x)
            for t in reversed(range(len(x))) if end else range(len(x)):
                h = outs[t] = gru_cell(
                    x[t], h, *(e[f"gru.{kind}_l0{end}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                )
            ways.append(np.stack(outs))
            last.append(h)
        values = np.concatenate(ways, 1)
        h = np.tanh(e["bridge.weight"] @ np.concatenate(last) + e["bridge.bias"])
        return {"values": values, "keys": values @ self.d["key.weight"].T + self.d["key.bias"], "h": h}

    def step(self, token: int, state: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The scores of every token, and the state after this one."""
        d, h = self.d, state["h"]
        hidden = np.tanh(state["keys"] + d["query.weight"] @ h + d["query.bias"])
        scores = (hidden @ d["score.weight"].T + d["score.bias"])[:, 0]
        weights = np.exp(scores - scores.max())
        context = (weights / weights.sum()) @ state["values"]
        x = np.concatenate([d["embedding.weight"][token], context])
        h = gru_cell(x, h, *(d[f"cell.{kind}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")))
        return d["out.weight"] @ np.concatenate([h, context]) + d["out.bias"], {**state, "h": h}


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores.astype(np.float64) - scores.max()
    return shifted - np.log(np.exp(shifted).sum())


def greedy(step: Step, state: Any, start: int, stop: int, most: int) -> list[int]:
    """The most likely token, again and again, until stop (which is not among them) or so many."""
    said, token = [], start
    while len(said) < most:
        scores, state = step(token, state)
        token = int(scores.argmax())
        if token == stop:
            break
        said.append(token)
    return said


def beam(step: Step, state: Any, start: int, stop: int, most: int, width: int) -> tuple[list[int], float]:
    """The best of `width` hypotheses by the sum of log-probabilities, and that sum. Those that said stop, or `most` tokens, are kept aside."""
    live, done = [(0.0, [], start, state)], []
    for _ in range(most):
        following = []
        for total, said, token, before in live:
            scores, after = step(token, before)
            for t, p in enumerate(log_softmax(scores)):
                following.append((total + p, said, t, after))
        following.sort(key=lambda one: -one[0])
        live = []
        for total, said, token, after in following[:width]:
            if token == stop:
                done.append((total, said))
            else:
                live.append((total, [*said, token], token, after))
        if not live:
            break
    done += [(total, said) for total, said, _, _ in live]
    total, said = max(done, key=lambda one: one[0])
    return said, total
