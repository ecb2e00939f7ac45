"""Streamable torch layers: plain modules to train with, exact under export.

Each maps (B, T, features) to (B, T', features); docs/layers.md has a table of them.
"""

from .attention import WindowedAttention as WindowedAttention
from .bidirectional import LatencyControlled as LatencyControlled
from .bidirectional import latency_controlled as latency_controlled
from .cells import OverTime as OverTime
from .convolution import CausalConv1d as CausalConv1d
from .decoding import EncoderDecoderAttention as EncoderDecoderAttention
from .features import MFCC as MFCC
from .features import LogMel as LogMel
from .norms import RunningNorm as RunningNorm
from .recurrent import LRU as LRU
from .recurrent import MinGRU as MinGRU
from .scan import linear_scan as linear_scan
from .ssm import SelectiveSSM as SelectiveSSM

__all__ = [
    "LRU",
    "MFCC",
    "CausalConv1d",
    "EncoderDecoderAttention",
    "LatencyControlled",
    "LogMel",
    "MinGRU",
    "OverTime",
    "RunningNorm",
    "SelectiveSSM",
    "WindowedAttention",
    "latency_controlled",
    "linear_scan",
]
