"""What the compiled backend makes of each ONNX operator: a table, one short lowering each, in a file for each kind.

A lowering takes the program, the node, its input values (None where left out) and its attributes, says the lines and
returns the output values. Inputs that are all constant never come here: they are folded.
"""

from .convolutions import CONVOLUTIONS
from .elementwise import ELEMENTWISE
from .indexing import INDEXING
from .masks import MASKS
from .norms import NORMS
from .products import PRODUCTS
from .program import Lowering
from .recurrent import gru, lstm, rnn
from .reductions import REDUCTIONS
from .resizing import RESIZING
from .scans import SCANS
from .shapes import SHAPES
from .windows import WINDOWS

RECURRENT: dict[str, Lowering] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}
IN_PIECES = ("Slice", "Conv")  # read values that lie in pieces, see `joins`
TABLE = (
    ELEMENTWISE
    | PRODUCTS
    | WINDOWS
    | CONVOLUTIONS
    | RESIZING
    | MASKS
    | REDUCTIONS
    | NORMS
    | SHAPES
    | INDEXING
    | SCANS
    | RECURRENT
)
