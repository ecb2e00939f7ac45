"""Decoders: what stands at the end of a stream. `Engine(decode=...)` and `[decode]` take one of these configurations, or a dict of its keys."""

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import ConfigError
from .anomaly import Anomaly
from .ctc import Ctc
from .decoder import About, Decoder, Events, Outputs
from .labels import Labels
from .mean import Mean
from .quantiles import Quantiles
from .threshold import Threshold


class Raw(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="raw"):
    """The outputs by name, as they are."""


DecodeConfig = Raw | Labels | Threshold | Mean | Anomaly | Quantiles | Ctc

__all__ = [
    "About", "Anomaly", "Ctc", "DecodeConfig", "Decoder", "Events", "Labels", "Mean", "Outputs", "Quantiles", "Raw", "Threshold", "decoder_of",
]  # fmt: skip


def decoder_of(given: DecodeConfig | Mapping[str, Any] | None, about: About) -> Decoder | None:
    """The decoder that is asked for, None for none. Raises ConfigError where the keys or the model are not right."""
    if given is None:
        return None
    try:
        config = msgspec.convert(
            dict(given) if isinstance(given, Mapping) else msgspec.to_builtins(given), DecodeConfig
        )
    except (msgspec.ValidationError, TypeError) as error:
        raise ConfigError(f"[decode] {error}") from error
    return None if isinstance(config, Raw) else config.decoder(about)
