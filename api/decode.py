"""Decoders, for `Engine(model, decode=...)`, and the events that they make of a stream's outputs: `undertow.decode.Labels(...)`."""

from .engine.decoders import Anomaly, Ctc, Events, Generate, Labels, Mean, Quantiles, Raw, Threshold

__all__ = ["Anomaly", "Ctc", "Events", "Generate", "Labels", "Mean", "Quantiles", "Raw", "Threshold"]
