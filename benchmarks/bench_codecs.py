"""Microseconds a payload of each codec: many at once, and one by one, which is what the many must beat.

4,096 payloads of one frame (80 float32 values, 320 bytes raw; of pcm16 160 samples, 320 bytes), and the answers to them (128 values).
`bare` is what the codec's library needs alone for the same payloads, one after the other, with no check of shape and no array of all.
"""

import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import fastavro
import msgspec
import numpy as np
import pyarrow as pa
from pairing import heading, in_turn, microseconds, spread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.codec_cases import NAMES, codec_of
from tests.file_cases import answer, spec_of
from undertow.connectors.npy import npy_bytes
from undertow.connectors.payloads import Codec

COUNT, FRAME, SAMPLES, OUTPUTS, ROUNDS = 4096, 80, 160, 128, 5
AVRO = {"type": "record", "name": "Frame", "fields": [{"name": "x", "type": {"type": "array", "items": "float"}}]}
PARSED = fastavro.parse_schema(AVRO)


def avro_bytes(frame: np.ndarray) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, PARSED, {"x": frame.tolist()})
    return out.getvalue()


def arrow_bytes(frame: np.ndarray) -> bytes:
    column = pa.FixedSizeListArray.from_arrays(pa.array(frame), len(frame))
    batch, out = pa.record_batch([column], names=["x"]), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema) as stream:
        stream.write_batch(batch)
    return out.getvalue().to_pybytes()


WRITE: dict[str, Callable[[np.ndarray], bytes]] = {
    "json": lambda frame: msgspec.json.encode(frame.tolist()),
    "msgpack": lambda frame: msgspec.msgpack.encode(frame.tolist()),
    "avro": avro_bytes,
    "raw": lambda frame: frame.tobytes(),
    "pcm16": lambda frame: (frame * 1000).astype("<i2").tobytes(),
    "numpy": npy_bytes,
    "arrow": arrow_bytes,
}
BARE: dict[str, Callable[[bytes], object]] = {
    "json": msgspec.json.Decoder(list[float]).decode,
    "msgpack": msgspec.msgpack.Decoder(list[float]).decode,
    "avro": lambda payload: fastavro.schemaless_reader(BytesIO(payload), PARSED, None),
    "raw": partial(np.frombuffer, dtype="<f4"),
    "pcm16": partial(np.frombuffer, dtype="<i2"),
    "numpy": lambda payload: np.load(BytesIO(payload)),
    "arrow": lambda payload: pa.ipc.open_stream(payload).read_all(),
}


def codecs(name: str) -> tuple[Codec, Codec]:
    """To read and to write."""
    keys = {"schema": json.dumps(AVRO)} if name == "avro" else {}
    spec = spec_of(SAMPLES if name == "pcm16" else FRAME)
    return codec_of(name, spec, **keys), codec_of(name, spec, writes=True)


def measured(name: str) -> None:
    """One line: decoding and encoding, in turn."""
    rng, (reads, writes) = np.random.default_rng(0), codecs(name)
    frames = rng.standard_normal((COUNT, SAMPLES if name == "pcm16" else FRAME)).astype(np.float32)
    payloads = [WRITE[name](frame) for frame in frames]
    outputs, counts = rng.uniform(-1, 1, (COUNT, OUTPUTS)).astype(np.float32), np.ones(COUNT, np.int64)
    answers = [answer("s", i, y=outputs[i : i + 1]) for i in range(COUNT)]
    sides: dict[str, Callable[[], object]] = {
        "decode bare": lambda: [BARE[name](p) for p in payloads],
        "decode one": lambda: [reads.decode(p) for p in payloads],
        "decode many": lambda: reads.decode_many(payloads),
        "encode one": lambda: [writes.encode(a) for a in answers],
        "encode many": lambda: writes.encode_many({"y": outputs}, counts),
    }
    assert not reads.decode_many(payloads).errors
    calls = {side: 1 if "many" not in side else 5 for side in sides}
    taken = in_turn({side: partial(microseconds, call, calls[side]) for side, call in sides.items()}, ROUNDS)
    cells = [f"{side} {spread([t / COUNT for t in times], 'us', width=7)}" for side, times in taken.items()]
    size = statistics.mean(map(len, payloads))
    print(f"{name:8} {size:6.0f} bytes   {'   '.join(cells)}", flush=True)


def main() -> None:
    print(heading("msgspec", "fastavro", "pyarrow", "numpy"))
    for name in NAMES:
        measured(name)


if __name__ == "__main__":
    main()
