"""Decoders: what stands at the end of a stream. `Engine(decode=...)` and `[decode]` take one of these configurations, or a dict of its keys."""

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import ConfigError
from .anomaly import Anomaly
from .ctc import Ctc
from .decoder import About, Decoder, Events, Outputs
from .generate import Generate
from .labels import Labels
from .mean import Mean
from .quantiles import Quantiles
from .threshold import Threshold


class Raw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="raw"):
    """The outputs by name, as they are."""


DecodeConfig = Raw | Labels | Threshold | Mean | Anomaly | Quantiles | Ctc | Generate

__all__ = [
    "About", "Anomaly", "Ctc", "DecodeConfig", "Decoder", "Events", "Generate", "Labels", "Mean", "Outputs", "Quantiles", "Raw", "Threshold", "decode_config", "decoder_of",
]  # fmt: skip


def decode_config(given: DecodeConfig | Mapping[str, Any] | None) -> DecodeConfig | None:
    """The configuration that is asked for, None for the outputs as they are. Raises ConfigError where the keys are not right."""
    if given is None:
        return None
    try:
        config = msgspec.convert(
            dict(given) if isinstance(given, Mapping) else msgspec.to_builtins(given), DecodeConfig
        )
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"[decode] {error}") from error
    return None if isinstance(config, Raw) else config


def decoder_of(config: DecodeConfig | None, about: About) -> Decoder | None:
    """What decodes outputs so, None for nothing. Raises ConfigError where the model has not what it needs."""
    return None if config is None or isinstance(config, Raw | Generate) else config.decoder(about)
