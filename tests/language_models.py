"""Small models that can feed themselves, with random weights."""

from undertow.engine.artifact import Artifact

from .step_graph import StepGraph


def language_model(
    kind: str = "LSTM", size: int = 24, hidden: int = 20, seed: int = 0, dtype: str = "int64", sharp: float = 3.0,
    beside: bool = False,
) -> Artifact:  # fmt: skip
    """A token x () -> logits (size,): an embedding and one recurrent layer. sharp: how far logits lie apart. beside: with more outputs behind the logits."""
    g = StepGraph(seed)
    x = g.input("x", (), dtype)
    states = [g.state(f"{letter}0", (hidden,)) for letter in ("hc" if kind == "LSTM" else "h")]
    embedded = g.op("Gather", g.noise(size, 12), x)
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    after = g.recurrent(kind, embedded, 12, hidden, states, **more)
    for state, value in zip(states, after, strict=True):
        g.next(state, value)
    weights = g.noise(size, hidden, scale=sharp)
    g.output("logits", g.op("Gemm", after[0], weights, g.noise(size, scale=0.1), transB=1), (size,))
    if beside:
        g.output("hidden", after[0], (hidden,))
        g.output("seen", g.op("Greater", after[0], g.weight([0.0])), (hidden,), "bool")
    return g.artifact()


def choir(sizes: tuple[int, ...] = (9, 17, 12), hidden: int = 16, seed: int = 3) -> Artifact:
    """Several voices 'bass', 'alto', 'treble', whose outputs come in another order: 'treble_logits' first."""
    g, names = StepGraph(seed), ("bass", "alto", "treble")[: len(sizes)]
    inputs = [g.input(name, (), "int32" if name == "alto" else "int64") for name in names]
    states = [g.state("h0", (hidden,))]
    rows = [g.op("Gather", g.noise(size, 6), x) for x, size in zip(inputs, sizes, strict=True)]
    after = g.recurrent("GRU", g.op("Concat", *rows, axis=1), 6 * len(sizes), hidden, states, linear_before_reset=1)
    g.next("h0", after[0])
    for name, size in reversed(list(zip(names, sizes, strict=True))):
        weights = g.noise(size, hidden, scale=2.0)
        g.output(f"{name}_logits", g.op("Gemm", after[0], weights, g.noise(size), transB=1), (size,))
    return g.artifact()


def unsteady(size: int = 8) -> Artifact:
    """Counts steps; once a stream has seen the token 7 twice its logits are not finite."""
    g = StepGraph(1)
    x = g.input("x", (), "int64")
    seen = g.state("seen", (1,))
    is_seven = g.op("Gather", g.weight([[0.0]] * 7 + [[1.0]]), x)
    total = g.op("Add", seen, is_seven)
    g.next("seen", total)
    broken = g.op("Div", total, g.op("Relu", g.op("Sub", g.weight([2.0]), total)))
    g.output("logits", g.op("Add", g.op("Gather", g.noise(size, size), x), g.op("Sub", broken, broken)), (size,))
    return g.artifact()
