"""The text of the compiled loop that generates: steps a block of streams, samples, and feeds the tokens back, without Python.

A block's lanes are refilled: when a stream ends, the next one takes its lane, so blocks stay full whatever the streams' lengths
are. A row does not depend on the rows beside it, so neither do the tokens.
"""

from .assembly import Source
from .layout import FRAMES, LAST_ACTIVE
from .token_rows import BASES, STRIDES
from .voices import Voices


def loop_text(source: Source, voices: Voices) -> str:
    """The program's head and `generate`."""
    at = {name: f"memory + {i * source.block * 8}" for i, name in enumerate(source.tables)}
    ones = f"memory + {len(source.tables) * source.block * 8} + 8 * r"
    package = __name__.rpartition(".")[0]
    lines = [
        source.head,
        f"from {package}.token_rows import admit, row_address, settle_lanes, token_address",
        "",
        "",
        "@njit(nogil=True, cache=True, error_model='numpy')",
        "def generate(memory, call, now, begin, end):",
        '    """Tokens of streams begin..end, each from its prompt until it ends; call: a `Work.context`."""',
        f"    bases, strides = get_int64(call + {BASES}), get_int64(call + {STRIDES})",
        "    n, following = np.int64(0), begin",
        "    while True:",
        f"        n, following = admit(call, n, np.int64({source.block}), following, end)",
        "        if n == 0:",
        "            return",
        "        for r in range(n):",
        "            row = row_address(call, r)",
        "            at = token_address(call, r, row)",
        f"            set_int64(row + {FRAMES}, get_int64(row + {FRAMES}) + 1)",
        f"            set_int64(row + {LAST_ACTIVE}, now)",
        f"            set_int64({at['rows']} + 8 * r, row)",
        f"            set_int64({at['valid']} + 8 * r, {ones})",
        f"            set_int64({ones}, 1)",
    ]
    lines += [f"            set_int64({at[f'x{x}']} + 8 * r, at + {8 * v})" for v, (x, _) in enumerate(voices.pairs)]
    outputs = [y for _, y in voices.pairs] + [y for y, _ in voices.beside]
    lines += [
        f"            set_int64({at[f'y{y}']} + 8 * r, get_int64(bases + {8 * i}) + r * get_int64(strides + {8 * i}))"
        for i, y in enumerate(outputs)
    ]
    lines += [
        "        block(n, memory)",
        "        n = settle_lanes(call, n)",
    ]
    return "\n".join(lines) + "\n"
