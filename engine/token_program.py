"""The text of the compiled loop that generates: steps a block of streams, samples, and feeds the tokens back, without Python.

A block's lanes are refilled: when a stream ends, the next one takes its lane, so blocks stay full whatever the streams' lengths
are. A row does not depend on the rows beside it, so neither do the tokens.
"""

from .assembly import Source
from .layout import FRAMES, LAST_ACTIVE
from .voices import Voices

ARGUMENTS = "memory, arena, stride, part, now, begin, end, slots, feed, first, length, lanes, bases, strides, weights, sizes, settings, stops, ends, tokens, scores, made, status"


def loop_text(source: Source, voices: Voices) -> str:
    """The program's head and `generate`."""
    at = {name: f"memory + {i * source.block * 8}" for i, name in enumerate(source.tables)}
    ones = f"memory + {len(source.tables) * source.block * 8} + 8 * r"
    package = __name__.rpartition(".")[0]
    lines = [
        source.head,
        f"from {package}.token_rows import admit, settle_lanes, token_address",
        "",
        "",
        "@njit(nogil=True, cache=True, error_model='numpy')",
        f"def generate({ARGUMENTS}):",
        '    """Tokens of streams begin..end, each from its prompt until it ends; arguments as in `settle`."""',
        "    start, voices = feed.ctypes.data, len(sizes)",
        "    n, following = np.int64(0), begin",
        "    while True:",
        f"        n, following = admit(lanes, n, np.int64({source.block}), following, end)",
        "        if n == 0:",
        "            return",
        "        for r in range(n):",
        "            i = lanes[r, 0]",
        "            row = arena + slots[i] * stride",
        "            at = token_address(row + part, start, first[i], length[i], lanes[r, 1], voices)",
        f"            set_int64(row + {FRAMES}, get_int64(row + {FRAMES}) + 1)",
        f"            set_int64(row + {LAST_ACTIVE}, now)",
        f"            set_int64({at['rows']} + 8 * r, row)",
        f"            set_int64({at['valid']} + 8 * r, {ones})",
        f"            set_int64({ones}, 1)",
    ]
    lines += [f"            set_int64({at[f'x{x}']} + 8 * r, at + {8 * v})" for v, (x, _) in enumerate(voices.pairs)]
    outputs = [y for _, y in voices.pairs] + [y for y, _ in voices.beside]
    lines += [
        f"            set_int64({at[f'y{y}']} + 8 * r, bases[{i}] + r * strides[{i}])" for i, y in enumerate(outputs)
    ]
    lines += [
        "        block(n, memory)",
        "        n = settle_lanes(",
        "            lanes, n, arena, stride, part, slots, length, bases, strides, weights, sizes, settings, stops, ends,",
        "            tokens, scores, made, status,",
        "        )",
    ]
    return "\n".join(lines) + "\n"
