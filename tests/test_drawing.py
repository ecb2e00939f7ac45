"""The drawing of a step graph: what is drawn, and that nothing lies on anything else."""

import random
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from undertow.cli_inspect import inspect_command
from undertow.drawing import drawing
from undertow.engine.artifact import write_artifact
from undertow.layered import BELOW, Line, layered
from undertow.picture import picture_of

from .graphs import random_graph
from .step_graph import StepGraph, gru_step, lookahead_step, lstm_step

SVG = "{http://www.w3.org/2000/svg}"


def overlaps(corners, sizes):
    """Pairs of boxes that share a point."""
    spans = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, sizes, strict=True)]
    return [
        (i, j)
        for i, (a, b, c, d) in enumerate(spans)
        for j, (e, f, g, h) in enumerate(spans[:i])
        if a < g and e < c and b < h and f < d
    ]


def crossed(placed, sizes, lines):
    """Lines whose points, between their ends, lie inside a box."""
    found = []
    for line, path in zip(lines, placed.paths, strict=True):
        for x, y in path[1:-1]:
            for box, ((left, top), (w, h)) in enumerate(zip(placed.corners, sizes, strict=True)):
                inside = left < x < left + w and top < y < top + h
                if inside and box not in (line.source, line.target):
                    found.append((line, box))
    return found


def random_lines(chooser, count):
    """Lines between later and earlier boxes, some of them loose and backwards."""
    lines = [Line(chooser.randrange(max(0, b - 12), b), b) for b in range(1, count)]
    lines += [Line(a, b) for a, b in (sorted(chooser.sample(range(count), 2)) for _ in range(count // 4))]
    return lines + [Line(*chooser.sample(range(count), 2), loose=True) for _ in range(count // 5)]


@pytest.mark.parametrize("count", [2, 5, 30, 200])
@pytest.mark.parametrize("seed", range(4))
def test_nothing_overlaps(count, seed):
    """No two boxes touch, no line runs through a box, everything is within the drawing, and lines that are not loose go down."""
    chooser = random.Random(seed)
    sizes = [(chooser.uniform(40, 260), chooser.uniform(30, 90)) for _ in range(count)]
    lines = random_lines(chooser, count)
    placed = layered(sizes, lines, [0], [count - 1] if not any(line.source == count - 1 for line in lines) else [])
    assert not overlaps(placed.corners, sizes)
    assert not crossed(placed, sizes, lines)
    for (x, y), (w, h) in zip(placed.corners, sizes, strict=True):
        assert -1e-6 <= x <= placed.width - w + 1e-6
        assert -1e-6 <= y <= placed.height - h + 1e-6
    for line, path in zip(lines, placed.paths, strict=True):
        (x, y), (w, h) = placed.corners[line.source], sizes[line.source]
        assert x <= path[0][0] <= x + w
        assert path[0][1] in (pytest.approx(y), pytest.approx(y + h))
        if not line.loose:
            assert path[-1][1] - path[0][1] >= BELOW - 1e-6


def test_a_chain_is_straight():
    """Boxes in a chain stand under each other, whatever stands beside them."""
    lines = [Line(i, i + 1, pull=20) for i in range(5)] + [Line(6, 3), Line(3, 6, loose=True)]
    placed = layered([(100, 50)] * 7, lines, [0], [5])
    middles = [x + 50 for x, _ in placed.corners[:6]]
    assert max(middles) - min(middles) < 30
    assert [y for _, y in placed.corners[:6]] == sorted(y for _, y in placed.corners[:6])


def names(picture, kind):
    return [b.name for b in picture.boxes if b.kind == kind]


def arrows(picture, back):
    """Arrows by the names of their boxes, or by the operators of those that are nodes."""
    called = [b.title if b.kind == "node" else b.name for b in picture.boxes]
    return [(called[a.source], called[a.target]) for a in picture.arrows if a.back == back]


def test_layers_with_states():
    """A recurrent layer is one box with its weights' shapes, its states beside it with arrows in and back; views are no boxes."""
    picture = picture_of(lstm_step(5, 7, outputs=3))
    assert [b.title for b in picture.boxes if b.kind == "node"] == ["LSTM", "Gemm"]
    states = names(picture, "state")
    assert len(states) == 2
    assert set(arrows(picture, back=True)) == {("LSTM", s) for s in states}
    assert {(s, "LSTM") for s in states} | {("x", "LSTM"), ("LSTM", "Gemm"), ("Gemm", "y")} == set(
        arrows(picture, False)
    )
    layer = next(b for b in picture.boxes if b.title == "LSTM")
    assert layer.lines == ["weights (1, 28, 5) (1, 28, 7) (1, 56)"]
    assert layer.shape == (7,)
    state = next(b for b in picture.boxes if b.kind == "state")
    assert (state.shape, state.lines) == ((7,), ["float32, 28 bytes", "starts at 0"])


def buffered(taps=3):
    """A convolution over frames whose past is a state, and a delay line of the frames beside it."""
    g = StepGraph(seed=1)
    x = g.input("x", (4,))
    past, late = g.state("past", (4, taps - 1), initial=0.5), g.state("late", (4, 2))
    column = g.op("Unsqueeze", x, g.ints(2))
    joined = g.op("Concat", past, column, axis=2)
    g.next("past", g.op("Slice", joined, g.ints(1), g.ints(taps), g.ints(2)))
    y = g.op("Squeeze", g.op("Conv", joined, g.noise(6, 4, taps)), g.ints(2))
    delayed = g.op("Concat", late, column, axis=2)
    g.next("late", g.op("Slice", delayed, g.ints(-2), g.ints(99), g.ints(2)))
    old = g.op("Squeeze", g.op("Slice", delayed, g.ints(0), g.ints(1), g.ints(2)), g.ints(2))
    g.output("y", g.op("Concat", y, old, axis=1), (10,))
    return g.artifact()


def test_buffers():
    """Concat and Slice around a buffer are the state itself: what is new goes in dashed, and a delay line is read alone."""
    picture = picture_of(buffered())
    assert [b.title for b in picture.boxes if b.kind == "node"] == ["Conv", "Concat"]
    assert set(arrows(picture, back=True)) == {("x", "past"), ("x", "late")}
    assert set(arrows(picture, back=False)) == {
        ("past", "Conv"), ("x", "Conv"), ("Conv", "Concat"), ("late", "Concat"), ("Concat", "y"),
    }  # fmt: skip
    assert "starts at 0.5" in next(b for b in picture.boxes if b.name == "past").lines


def test_clock_and_held_states():
    """What counts steps is one box; who asks it says so; a state that waits for its first frame is held, with no box between."""
    g = StepGraph(seed=1)
    x, h, steps = g.input("x", (4,)), g.state("h", (4,)), g.state("steps", (), "int64")
    valid = g.valid()
    g.next("steps", g.op("Add", steps, valid))
    started = g.op("Unsqueeze", g.op("GreaterOrEqual", steps, g.weight(2, "int64")), g.ints(1))
    real = g.op("Where", started, x, g.weight(0.0))
    new = g.op("Tanh", g.op("Add", real, h))
    g.next("h", g.op("Where", started, new, h))
    g.output("y", new, (4,))
    picture = picture_of(g.artifact())
    assert [b.title for b in picture.boxes if b.kind == "node"] == ["Where", "Add", "Tanh"]
    assert ("Tanh", "h") in arrows(picture, back=True)
    assert "held by the clock" in next(b for b in picture.boxes if b.name == "h").lines
    assert next(b for b in picture.boxes if b.title == "Where").lines == ["with 0", "by the clock"]
    clock = next(i for i, b in enumerate(picture.boxes) if b.kind == "clock")
    assert {picture.boxes[a.source].name for a in picture.arrows if a.target == clock} == {"steps", "valid"}
    assert [picture.boxes[a.target].name for a in picture.arrows if a.source == clock] == ["steps"]


def test_states_that_swap_and_one_that_stays():
    """A state may become another state, and one that nothing changes says so."""
    g = StepGraph()
    x = g.input("x", (3,))
    a, b, c = g.state("a", (3,)), g.state("b", (3,)), g.state("c", (3,), initial=np.array([1, 2, 3.0]))
    g.next("a", g.op("Identity", b))
    g.next("b", g.op("Add", x, c))
    g.next("c", g.op("Identity", c))
    g.output("y", g.op("Mul", a, c), (3,))
    picture = picture_of(g.artifact())
    assert set(arrows(picture, back=True)) == {("b", "a"), ("Add", "b")}
    assert next(b for b in picture.boxes if b.name == "c").lines == [
        "float32, 12 bytes",
        "starts at 1 .. 3",
        "never changes",
    ]


def texts(svg):
    return [e.text for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_svg():
    """The document is well-formed and stands alone; delay and rate are in the caption, at the inputs and at the outputs."""
    svg = drawing(lookahead_step(3, frames_per_step=2))
    found = texts(svg)
    assert any(t.startswith("delay 3 frames; 2 frames in") for t in found)
    assert "float32, 2 frames a step" in found
    assert "how many frames are real" in found
    assert any(t.startswith("float32, ") and t.endswith("a step, delay 3 frames") for t in found)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|<script|@import", svg)


def test_svg_escapes_names():
    """Names with characters that mean something in XML are shown as they are; long ones are cut, and whole in the tooltip."""
    g, long = StepGraph(), "a<b>&'\"" + "x" * 60
    g.output("y", g.op("Tanh", g.input("in", (3,)), name=long), (3,))
    artifact = g.artifact()
    for node in artifact.model.graph.node:
        node.name = node.output[0]
    root = ElementTree.fromstring(drawing(artifact))
    assert any(long in (e.text or "") for e in root.iter(f"{SVG}title"))
    shown = next(t for t in texts(drawing(artifact)) if t.startswith("a<b>&'\""))
    assert len(shown) <= 30
    assert "…" in shown


def attention(blocks):
    """Blocks of windowed attention and a feed-forward layer, 21 nodes each."""
    g = StepGraph(seed=0)
    x = g.input("x", (8,))
    for b in range(blocks):
        normed = g.op("LayerNormalization", x, g.noise(8), g.noise(8))
        keys = g.state(f"keys.{b}", (7, 8))
        joined = g.op("Concat", keys, g.op("Unsqueeze", normed, g.ints(1)), axis=1)
        g.next(f"keys.{b}", g.op("Slice", joined, g.ints(1), g.ints(99), g.ints(1)))
        query, key, value = (g.op("MatMul", t, g.noise(8, 8)) for t in (normed, joined, joined))
        scores = g.op("MatMul", g.op("Unsqueeze", query, g.ints(1)), g.op("Transpose", key, perm=[0, 2, 1]))
        mixed = g.op("Squeeze", g.op("MatMul", g.op("Softmax", scores), value), g.ints(1))
        x = g.op("Add", x, g.linear(mixed, 8, 8))
        up = g.linear(g.op("LayerNormalization", x, g.noise(8), g.noise(8)), 8, 16)
        x = g.op("Add", x, g.linear(g.op("Mul", up, g.op("Sigmoid", up)), 16, 8))
    g.output("y", x, (8,))
    return g.artifact()


def test_two_hundred_nodes():
    """A deep model is a narrow column: 200 nodes take no more width than one block, and no box lies on another."""
    artifact = attention(10)
    assert len(artifact.model.graph.node) > 200
    root = ElementTree.fromstring(drawing(artifact))
    rects = [{k: float(r.get(k, 0)) for k in ("x", "y", "width", "height")} for r in root.iter(f"{SVG}rect")]
    assert len(rects) == len(picture_of(artifact).boxes)
    assert not overlaps([(r["x"], r["y"]) for r in rects], [(r["width"], r["height"]) for r in rects])
    one = float(ElementTree.fromstring(drawing(attention(1))).get("width", 0))
    assert float(root.get("width", 0)) < 1.5 * one < 1200


@pytest.mark.parametrize("seed", range(20))
def test_any_step_graph_can_be_drawn(seed):
    """Random step graphs: every input, output and state is a box once, and no two boxes overlap."""
    artifact = random_graph(seed)
    spec, picture = artifact.spec, picture_of(artifact)
    assert names(picture, "state") == [s.name for s in spec.states]
    assert names(picture, "output") == [o.name for o in spec.outputs]
    assert names(picture, "input") == [i.name for i in spec.inputs] + ([spec.valid_input] if spec.valid_input else [])
    root = ElementTree.fromstring(drawing(artifact))
    rects = [{k: float(r.get(k, 0)) for k in ("x", "y", "width", "height")} for r in root.iter(f"{SVG}rect")]
    assert len(rects) == len(picture.boxes)
    assert not overlaps([(r["x"], r["y"]) for r in rects], [(r["width"], r["height"]) for r in rects])


def test_inspect_command(tmp_path):
    """`undertow inspect --graph` writes the drawing beside what it prints; a place that cannot be written is wrong usage."""
    write_artifact(tmp_path / "m.onnx", gru_step(3, 4).model, gru_step(3, 4).spec)
    done = CliRunner().invoke(inspect_command, [str(tmp_path / "m.onnx"), "--graph", str(tmp_path / "m.svg")])
    assert done.exit_code == 0, done.output
    assert "step artifact m.onnx" in done.stdout
    assert "GRU" in texts((tmp_path / "m.svg").read_text(encoding="utf-8"))
    failed = CliRunner().invoke(inspect_command, [str(tmp_path / "m.onnx"), "--graph", str(tmp_path / "no" / "m.svg")])
    assert failed.exit_code == 2
    assert "cannot be written" in failed.output
