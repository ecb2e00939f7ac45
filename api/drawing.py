"""`undertow inspect --graph`: the drawing of a step graph as SVG, in itself: no script, no font, no file besides."""

from html import escape

from .engine.artifact import Artifact
from .layered import Line, Placed, Point, layered
from .picture import Arrow, Box, Picture, picture_of, shape_text

_MARGIN, _HEAD, _FOOT = 28.0, 36.0, 44.0
_TITLE, _SMALL = 13.0, 11.0  # font sizes
_LEADING, _PADDING = 15.0, 10.0
_FLOW_PULL = 20.0  # what the frames go through stands in a straight line, states beside it
_LONGEST = 30  # characters of a name; the whole of it is in the tooltip
_STYLE = """
svg { background: #ffffff; font-family: "Helvetica Neue", Arial, "Liberation Sans", "DejaVu Sans", sans-serif; }
.title { font-size: 13px; font-weight: 600; fill: #17202a; }
.name { font-size: 11px; fill: #566573; }
.small { font-size: 11px; fill: #566573; }
.shape { font-size: 11px; font-weight: 600; fill: #17202a; }
.head { font-size: 17px; font-weight: 600; fill: #17202a; }
.box { stroke-width: 1.2; }
.node .box { fill: #f7f9fa; stroke: #aab4be; }
.input .box { fill: #e3f0fb; stroke: #4a90d9; }
.output .box { fill: #e2f5e9; stroke: #3fa66b; }
.state .box { fill: #fff3dc; stroke: #dd9a2a; }
.clock .box { fill: #f0ebfa; stroke: #8e7cc3; }
.arrow { fill: none; stroke: #85929e; stroke-width: 1.3; }
.back { fill: none; stroke: #dd9a2a; stroke-width: 1.5; stroke-dasharray: 5 4; }
""".strip()


def drawing(artifact: Artifact) -> str:
    """The step graph as an SVG document: inputs on top, outputs at the bottom, states with what they become dashed."""
    picture = picture_of(artifact)
    sizes = [_size(box) for box in picture.boxes]
    placed = _placed(picture, sizes)
    head = _head(artifact)
    width = (
        max(
            placed.width,
            *(_text_width("title", text) * 1.3 for text in head[:1]),
            *(_text_width("small", text) for text in head[1:]),
            _legend_width(),
        )
        + 2 * _MARGIN
    )
    left, top = (width - placed.width) / 2, _MARGIN + _HEAD + 16 * (len(head) - 1)
    height = top + placed.height + _FOOT + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'role="img" aria-label="{escape(head[0], quote=True)}">',
        f"<style>{_STYLE}</style>",
        _MARKERS,
        f'<text class="head" x="{_MARGIN}" y="{_MARGIN + 12}">{escape(head[0])}</text>',
        *(
            f'<text class="small" x="{_MARGIN}" y="{_MARGIN + 32 + 16 * i}">{escape(text)}</text>'
            for i, text in enumerate(head[1:])
        ),
        f'<g transform="translate({left:.1f} {top:.1f})">',
        *(_arrow(arrow, path) for arrow, path in zip(picture.arrows, placed.paths, strict=True)),
        *(_box(b, s, c) for b, s, c in zip(picture.boxes, sizes, placed.corners, strict=True)),
        "</g>",
        _legend(_MARGIN, height - _MARGIN),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _placed(picture: Picture, sizes: list[tuple[float, float]]) -> Placed:
    flow = [b.kind not in ("state", "clock") for b in picture.boxes]
    lines = [
        Line(a.source, a.target, a.back, _FLOW_PULL if flow[a.source] and flow[a.target] else 1.0)
        for a in picture.arrows
    ]
    kinds = {kind: [i for i, b in enumerate(picture.boxes) if b.kind == kind] for kind in ("input", "output")}
    return layered(sizes, lines, kinds["input"], kinds["output"])


def _head(artifact: Artifact) -> list[str]:
    from .exporters.report import approximated, timing

    return [artifact.name, timing(artifact.spec), *(approximated(a) for a in artifact.spec.approximations)]


# ---------------------------------------------------------------------------------------------------- boxes


def _texts(box: Box) -> list[tuple[str, str]]:
    """Class and text of each line."""
    shape = [] if box.shape is None else [("shape", shape_text(box.shape))]
    if box.kind in ("input", "output", "clock"):
        return [("title", _short(box.title)), *shape, *(("small", line) for line in box.lines)]
    name = [("name", _short(box.name))] if box.name else []
    if box.kind == "state":
        return [("title", _short(box.name)), *shape, *(("small", line) for line in [*box.lines])]
    return [("title", box.title), *name, *(("small", line) for line in box.lines), *shape]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST // 2 - 1]}…{name[-_LONGEST // 2 :]}"


def _text_width(kind: str, text: str) -> float:
    """About what it takes in any of the fonts; wider rather than narrower."""
    size = _TITLE if kind == "title" else _SMALL
    narrow = sum(c in "iljtf.,:;|!()[] '" for c in text)
    wide = sum(c in "mwMWGOQ@%…" for c in text)
    return size * (0.36 * narrow + 0.9 * wide + 0.6 * (len(text) - narrow - wide)) * (1.05 if kind != "small" else 1.0)


def _size(box: Box) -> tuple[float, float]:
    texts = _texts(box)
    width = max(_text_width(kind, text) for kind, text in texts)
    return max(76.0, width + 2 * _PADDING), len(texts) * _LEADING + 2 * _PADDING - 5


def _box(box: Box, size: tuple[float, float], corner: Point) -> str:
    (width, height), (x, y) = size, corner
    radius = min(height / 2, 22.0) if box.kind == "state" else 16.0 if box.kind in ("input", "output") else 4.0
    lines = [
        f'<text class="{kind}" x="{x + width / 2:.1f}" y="{y + _PADDING + 9 + i * _LEADING:.1f}" text-anchor="middle">{escape(text)}</text>'
        for i, (kind, text) in enumerate(_texts(box))
    ]
    tip = " ".join([box.title, box.name, *box.lines])
    rect = f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:.1f}"/>'
    return f'<g class="{box.kind}"><title>{escape(tip)}</title>{rect}{"".join(lines)}</g>'


# ---------------------------------------------------------------------------------------------------- arrows

_MARKERS = (
    "<defs>"
    + "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0.6 L8 4 L0 7.4 z" fill="{colour}"/></marker>'
        for name, colour in (("head", "#85929e"), ("back-head", "#dd9a2a"))
    )
    + "</defs>"
)


def _arrow(arrow: Arrow, path: list[Point]) -> str:
    kind, head = ("back", "back-head") if arrow.back else ("arrow", "head")
    return f'<path class="{kind}" d="{_curve(path)}" marker-end="url(#{head})"/>'


def _curve(path: list[Point]) -> str:
    """Straight through the layers, a curve across each gap between them."""
    x, y = path[0]
    parts = [f"M{x:.1f} {y:.1f}"]
    for place, (to_x, to_y) in enumerate(path[1:]):
        middle = (y + to_y) / 2
        if place % 2 == 0 or abs(to_x - x) < 0.5:
            parts.append(f"L{to_x:.1f} {to_y:.1f}" if (to_x, to_y) != (x, y) else "")
        else:
            parts.append(f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    return " ".join(part for part in parts if part)


_LEGEND = (("arrow", "head", "this step"), ("back", "back-head", "what a state is in the next step"))


def _legend(x: float, y: float) -> str:
    parts = []
    for kind, head, text in _LEGEND:
        parts.append(
            f'<path class="{kind}" d="M{x:.0f} {y - 4:.0f} L{x + 34:.0f} {y - 4:.0f}" marker-end="url(#{head})"/>'
        )
        parts.append(f'<text class="small" x="{x + 42:.0f}" y="{y:.0f}">{text}</text>')
        x += 42 + _text_width("small", text) + 28
    return "".join(parts)


def _legend_width() -> float:
    return sum(70 + _text_width("small", text) for _, _, text in _LEGEND)
