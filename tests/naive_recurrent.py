"""ONNX's LSTM, GRU and RNN in plain NumPy: the formulas of the operator specification, one time step after another."""

import numpy as np

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "leakyrelu": lambda x, alpha: np.where(x >= 0, x, alpha * x),
    "thresholdedrelu": lambda x, alpha: np.where(x >= alpha, x, 0.0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "elu": lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "softplus": lambda x: np.logaddexp(0, x),
}
# alpha and beta where the attributes give none: "default values are the same as of corresponding ONNX operators"
ALPHA = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "hardsigmoid": 0.2, "elu": 1.0, "affine": 1.0, "scaledtanh": 1.0}
BETA = {"hardsigmoid": 0.5, "affine": 0.0, "scaledtanh": 1.0}


def activations(names, alphas, betas, limit, per_direction):
    """The functions of a layer in order. Those that have an alpha or a beta consume the next of the lists.

    clip bounds what goes into the gates' activations. The specification's "input of activations" would allow it for the
    last function of an LSTM too, that of the cell; ONNX Runtime does not, and so neither does Undertow.
    """
    alphas, betas = list(alphas or ()), list(betas or ())
    functions = []
    for name in (n.lower() for n in names):
        more = []
        for defaults, given in ((ALPHA, alphas), (BETA, betas)):
            if name in defaults:
                more.append(given.pop(0) if given else defaults[name])
        edge = None if len(functions) % per_direction == 2 else limit
        functions.append(lambda x, name=name, more=more, edge=edge: ACTIVATIONS[name](bound(x, edge), *more))
    return functions


def bound(x, limit):
    return x if limit is None else np.clip(x, -limit, limit)


def lstm_step(x, h, c, w, r, b, p, functions, input_forget):
    """i, o, f, c is the order of the gates in w, r and b; i, o, f that of the peepholes."""
    f, g, last = functions
    n = h.shape[-1]
    wb, rb = b[: 4 * n], b[4 * n :]
    i, o, forget, cell = np.split(x @ w.T + h @ r.T + wb + rb, 4, axis=-1)
    pi, po, pf = np.split(p, 3)
    i = f(i + pi * c)
    forget = 1 - i if input_forget else f(forget + pf * c)
    c = forget * c + i * g(cell)
    return f(o + po * c) * last(c), c


def gru_step(x, h, w, r, b, functions, linear_before_reset):
    """z, r, h is the order of the gates."""
    f, g = functions
    n = h.shape[-1]
    wz, wr, wh = np.split(w, 3)
    rz, rr, rh = np.split(r, 3)
    wbz, wbr, wbh, rbz, rbr, rbh = np.split(b, 6)
    assert len(wbz) == n
    z = f(x @ wz.T + h @ rz.T + wbz + rbz)
    reset = f(x @ wr.T + h @ rr.T + wbr + rbr)
    if linear_before_reset:
        hidden = g(x @ wh.T + reset * (h @ rh.T + rbh) + wbh)
    else:
        hidden = g(x @ wh.T + (reset * h) @ rh.T + rbh + wbh)
    return (1 - z) * hidden + z * h


def rnn_step(x, h, w, r, b, functions):
    n = h.shape[-1]
    return functions[0](x @ w.T + h @ r.T + b[:n] + b[n:])


def layer(kind, gates, defaults):
    """The operator `kind`: Y (time, direction, batch, hidden), Y_h and Y_c (direction, batch, hidden)."""

    def run(
        x,
        w,
        r,
        b=None,
        sequence_lens=None,
        initial_h=None,
        initial_c=None,
        p=None,
        *,
        hidden_size=None,
        direction="forward",
        activations_=None,
        activation_alpha=None,
        activation_beta=None,
        clip=None,
        layout=0,
        input_forget=0,
        linear_before_reset=0,
    ):
        assert sequence_lens is None, "a step has no sequence_lens"
        if layout:
            x = x.swapaxes(0, 1)
            initial_h, initial_c = (s if s is None else s.swapaxes(0, 1) for s in (initial_h, initial_c))
        directions, n = len(w), r.shape[-1]
        steps, batch, _ = x.shape
        h = np.zeros((directions, batch, n)) if initial_h is None else initial_h.copy()
        c = np.zeros((directions, batch, n)) if initial_c is None else initial_c.copy()
        b = np.zeros((directions, 2 * gates * n)) if b is None else b
        p = np.zeros((directions, 3 * n)) if p is None else p
        functions = activations(
            activations_ or defaults * directions, activation_alpha, activation_beta, clip, len(defaults)
        )
        y = np.zeros((steps, directions, batch, n))
        for d in range(directions):
            own = functions[d * len(defaults) : (d + 1) * len(defaults)]
            order = range(steps)
            for t in reversed(order) if direction == "reverse" or d == 1 else order:
                if kind == "LSTM":
                    h[d], c[d] = lstm_step(x[t], h[d], c[d], w[d], r[d], b[d], p[d], own, input_forget)
                elif kind == "GRU":
                    h[d] = gru_step(x[t], h[d], w[d], r[d], b[d], own, linear_before_reset)
                else:
                    h[d] = rnn_step(x[t], h[d], w[d], r[d], b[d], own)
                y[t, d] = h[d]
        if layout:
            y, h, c = y.transpose(2, 0, 1, 3), h.swapaxes(0, 1), c.swapaxes(0, 1)
        return [y, h, c] if kind == "LSTM" else [y, h]

    return run


RECURRENT = {
    "LSTM": layer("LSTM", 4, ["Sigmoid", "Tanh", "Tanh"]),
    "GRU": layer("GRU", 3, ["Sigmoid", "Tanh"]),
    "RNN": layer("RNN", 1, ["Tanh"]),
}
