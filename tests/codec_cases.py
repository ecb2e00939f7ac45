"""What tests of codecs share: codecs by name, and what each makes of the same frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from undertow.connectors.codec_config import CodecConfig
from undertow.connectors.codecs import make_codec
from undertow.connectors.payloads import Codec, Use
from undertow.connectors.secret import as_secret
from undertow.engine.artifact import StepSpec, TensorSpec
from undertow.engine.errors import CodecError

NAMES = ("json", "msgpack", "avro", "raw", "pcm16", "numpy", "arrow")
TYPES = {"f": "double", "i": "long", "u": "long", "b": "boolean"}


def config_of(name: str, **keys: Any) -> Any:
    """The table of a pipeline file, validated."""
    return msgspec.convert({"type": name, **keys}, CodecConfig, dec_hook=as_secret)


def codec_of(name: str, spec: StepSpec, writes: bool = False, folder: Path = Path(), **keys: Any) -> Codec:
    """A source's codec; of avro, if nothing else is said, for chunks of the model's inputs. writes: a sink's."""
    if name == "avro" and not writes and not keys.keys() & {"schema", "registry"}:
        keys["schema"] = msgspec.json.encode(chunks_schema(spec.inputs)).decode()
    return make_codec(config_of(name, **keys), spec, Use(folder, None, writes))


def chunks_schema(tensors: Sequence[TensorSpec]) -> Any:
    """A record with a field for each tensor, a frame or a chunk of it."""
    fields = [{"name": t.name, "type": [nested(t, 0), nested(t, 1)]} for t in tensors]
    return {"type": "record", "name": "Inputs", "fields": fields}


def nested(tensor: TensorSpec, more: int) -> Any:
    kind: Any = TYPES[np.dtype(tensor.dtype).kind]
    for _ in range(len(tensor.shape) + more):
        kind = {"type": "array", "items": kind}
    return kind


def check_many(codec: Codec, spec: StepSpec, payloads: Sequence[bytes | None]) -> None:
    """`decode_many` gives what `decode` gives of each, end to end, and the same errors."""
    many = codec.decode_many(payloads)
    arrays: list[list[np.ndarray]] = [[np.empty((0, *t.shape), t.dtype)] for t in spec.inputs]
    counts, single, errors = [], [], {}
    for place, payload in enumerate(payloads):
        try:
            one = None if payload is None else codec.decode(payload)
        except CodecError as error:
            one, errors[place] = None, str(error)
        counts.append(0 if one is None else len(one))
        single.append(one is not None and one.single)
        for t, column in zip(spec.inputs, arrays, strict=True):
            column += [] if one is None else [one.arrays[t.name]]
    assert {place: str(error) for place, error in many.errors.items()} == errors
    assert many.counts.dtype == np.int64
    assert many.counts.tolist() == counts
    assert many.single.dtype == bool
    assert many.single.tolist() == single
    for t, found, column in zip(spec.inputs, many.frames, arrays, strict=True):
        assert found.dtype == t.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert found.shape == (sum(counts), *t.shape)
        assert found.tobytes() == np.concatenate(column).tobytes()
