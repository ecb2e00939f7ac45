"""From a whole sequence to a step: one short rule for each ONNX operator, in the table `RULES`.

A rule is given a node of the whole-sequence graph (`Node`: what it reads, each axis labelled, and when it is computed) and writes into the step
graph what one frame of each stream needs of it. It returns one tensor for each of the node's outputs, and refuses what
cannot be done frame by frame. A node that reads no frames never gets here: its value is known.
"""

from .recurrent_rule import recurrent
from .rule_parts import Rule
from .rules_attention import beside_scores, largest_over_source, softmax_over_source, weighted
from .rules_features import along_axis, arg_reduce, batch_norm, global_pooling, instance_norm, layer_norm, reduce
from .rules_layout import concat, expand, gather, pad, reshape, slices, split, transpose
from .rules_pointwise import cast_like, dropout, pointwise, same
from .rules_products import einsum, gemm, matmul
from .rules_time import cumulative
from .rules_windows import convolution, pooling, resize, transposed_convolution
from .tracked import Node

# fmt: off
_POINTWISE = [
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp",
    "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign",
    "Sqrt", "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Where", "Xor",
]
_REDUCTIONS = [
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
]
# fmt: on

RULES: dict[str, Rule] = {
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "LpNormalization"), along_axis(-1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), layer_norm),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), reshape),
    **dict.fromkeys(_REDUCTIONS, reduce),
    **dict.fromkeys(("AveragePool", "MaxPool"), pooling),
    "BatchNormalization": batch_norm,
    "CastLike": cast_like,
    "Concat": concat,
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "CumSum": cumulative,
    "Dropout": dropout,
    "Einsum": einsum,
    "Expand": expand,
    "Gather": gather,
    "Gemm": gemm,
    "GlobalAveragePool": global_pooling,
    "GlobalMaxPool": global_pooling,
    "GroupNormalization": instance_norm,
    "Identity": same,
    "InstanceNormalization": instance_norm,
    "MatMul": matmul,
    "Pad": pad,
    "Resize": resize,
    "Slice": slices,
    "Split": split,
    "Transpose": transpose,
}


def attention_rule(node: Node) -> Rule:
    """The rule for a node that reads scores or weights of an attention."""
    if node.op in ("Softmax", "LogSoftmax"):
        return softmax_over_source
    if node.op == "MatMul":
        return weighted
    if node.op == "ReduceMax":
        return largest_over_source
    if node.op in ("CastLike", "Identity", "Dropout"):
        return RULES[node.op]
    if node.op in _POINTWISE:
        return beside_scores
    if node.op in ("Reshape", "Squeeze", "Unsqueeze"):
        return reshape
    raise node.refuse(
        "it reads the scores of every frame beside every frame", "use them for a softmax and a weighted sum alone"
    )


# Rules that take care of paddings and delays themselves; the others are given frames of one time, see `step_pass`.
TIMED = {"AveragePool", "Conv", "ConvTranspose", "Identity", "MaxPool", "Pad", "Resize", "Slice", "Transpose"}
