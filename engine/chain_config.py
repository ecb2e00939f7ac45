"""How several models stand one behind the other: `Engine([Stage(...), Stage(...)])` and `[[model.stages]]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Annotated, Any

import msgspec

from .artifact import Artifact

Count = Annotated[int, msgspec.Meta(ge=1)]


class Gate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a stage is stepped: only while a value of an earlier stage, which sees every frame, is high.

    by: the name of that stage. output: which of its outputs, where it has several. value: of an output with several values the index of this
    one, or its label. The gate opens where the value is at `on` or above `min_on` times one after the other, and closes where it is
    then below `off` (`on`, where not given) `min_off` times. before: so many frames before the first of those `min_on` pass as well.
    With each opening the stage begins anew; when the gate closes, it and what decodes it end, as with the end of a stream.
    """

    by: Annotated[str, msgspec.Meta(min_length=1)]
    on: float
    off: float | None = None
    output: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    value: int | str | None = None
    min_on: Count = 1
    min_off: Count = 1
    before: Annotated[int, msgspec.Meta(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Stage:
    """One model of a chain.

    model: path of a step artifact, or an `Artifact`. name: what others call it, the file's name without its suffix if not given.
    input: "frames", those of the stream; or the name of an earlier stage, whose outputs it takes; where either has several, a dict
    from each input to "stage.output" of one stage. gate: of a stage that takes frames, as a `Gate` or its keys.
    """

    model: str | PathLike[str] | Artifact
    name: str | None = None
    input: str | Mapping[str, str] = "frames"
    gate: Gate | Mapping[str, Any] | None = None
