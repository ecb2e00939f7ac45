"""The step artifact: an ONNX file whose metadata says what its state is. Read, validated and written here alone.

The graph computes one step of a batch: inputs `(B, *frame)` and states `(B, *shape)` in, outputs `(B, *out)` and next
states out. States are paired by the metadata, never by order. Two metadata entries: `undertow`, the `StepSpec` as
JSON, and `undertow.sha256`, the digest of that JSON and of everything in the graph that decides a result.
"""

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from .encoder_entry import ENCODER_KEY, check_encoder, packed, unpacked
from .errors import ArtifactError

FORMAT = 1
SPEC_KEY, DIGEST_KEY = "undertow", "undertow.sha256"
MAX_FILE_BYTES = 2**31 - 1  # what a protobuf can hold
MAX_SPEC_BYTES = 64 * 2**20
MAX_TENSOR_BYTES = 256 * 2**20  # one frame, output or state of one stream

T = TypeVar("T")

DType = Literal["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Dim = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Shape = Annotated[tuple[Dim, ...], msgspec.Meta(max_length=16)]
Count = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
Stage = tuple[
    Count, Annotated[int, msgspec.Meta(ge=-(2**40), le=2**40)], Count, Annotated[int, msgspec.Meta(ge=0, le=1)]
]  # multiply, add, divide, least


def length_of(stages: tuple[Stage, ...], frames: int) -> int:
    """What the stages make of so many frames: L becomes max(0, (multiply * L + add) // divide), one stage after the other.

    least is 1 of a stage that is a window over frames: without a frame before it, or after it, the model gives nothing at all.
    """
    length = frames
    for multiply, add, divide, least in stages:
        before, length = length, max(0, (multiply * length + add) // divide)
        if min(before, length) < least:
            return 0
    return length


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A validated value from a file."""


class TensorSpec(Struct, frozen=True):
    """One input or output of the step graph, without the batch axis (and without the frames-per-step axis)."""

    name: Name
    shape: Shape
    dtype: DType


class StateSpec(Struct, frozen=True):
    """One tensor that is carried from a step to the next: graph input `name`, graph output `next`.

    initial: a number that fills the tensor, or its bytes (C order, little-endian; base64 in the JSON).
    """

    name: Name
    next: Name
    shape: Shape
    dtype: DType
    initial: float | bytes = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def initial_value(self) -> np.ndarray:
        """The state of a stream that has seen nothing, of `shape` and `dtype`."""
        if isinstance(self.initial, bytes):
            little = np.dtype(self.dtype).newbyteorder("<")
            return np.frombuffer(self.initial, little).astype(self.dtype).reshape(self.shape)
        return np.full(self.shape, self.initial, self.dtype)


class Parity(Struct, frozen=True):
    """One line of the certificate: how far a backend was from the reference over random sequences.

    By output: max_abs_error; max_rel_error, the same over the output's largest magnitude in the reference; tolerance, the
    absolute error that rounding explains in this model. The last two are empty in artifacts of earlier versions.
    greedy: of a decoder with an encoder, how many of its most likely tokens, each given back to it, were the reference's, and of how many.
    """

    backend: Name
    reference: Name
    sequences: Annotated[int, msgspec.Meta(ge=1)]
    lengths: tuple[int, ...]
    max_abs_error: dict[str, float]
    max_rel_error: dict[str, float] = {}
    tolerance: dict[str, float] = {}
    greedy: tuple[int, int] | None = None


class Approximation(Struct, frozen=True):
    """What was asked for that makes the model another one, and how far it is from the exact model over random sequences.

    kind and parameter: the option and its value, such as "quantize" and "int8", "lookahead" and "16", "window" and "100".
    max_abs_error and max_rel_error: by output, as in `Parity`; nothing bounds them.
    exact_bytes: what the exact model's graph takes in a file, where the approximation is about size.
    """

    kind: Name
    parameter: Name
    reference: Name
    sequences: Annotated[int, msgspec.Meta(ge=1)]
    lengths: tuple[int, ...]
    max_abs_error: dict[str, float]
    max_rel_error: dict[str, float]
    exact_bytes: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Origin(Struct, frozen=True):
    """Where the artifact came from."""

    framework: str
    versions: dict[str, str] = {}
    weights_sha256: str = ""


class EncoderSpec(Struct, frozen=True):
    """What a stream's source, a whole sequence, makes of its states before the first step; see `encoder_entry`.

    max_memory: positions, rows of what the encoder gives, that a stream has room for.
    memory: outputs of the encoder `(T', *out)` and the states `(max_memory, *out)` that they fill from row 0; zeros behind.
    initial: outputs of the encoder and the states `(*out)` that begin with their last row.
    length: the state, int64 `()`, that says how many rows are filled. No step changes it.
    start, stop: the tokens that a decoder begins with, and that end what it says, where known.
    """

    max_memory: Count
    memory: tuple[tuple[Name, Name], ...]
    initial: tuple[tuple[Name, Name], ...]
    length: Name
    start: Annotated[int, msgspec.Meta(ge=0)] | None = None
    stop: Annotated[int, msgspec.Meta(ge=0)] | None = None


class StepSpec(Struct, frozen=True):
    """What a step graph means.

    delay: frames that an output trails its input by.
    frames_per_step: K; where K > 1 graph inputs are `(B, K, *frame)`.
    outputs_per_step: M; where M > 1 graph outputs are `(B, M, *out)`.
    lengths: how many outputs a stream of T frames has in all, see `length_of`. Empty: floor(T * M / K).
    valid_input: a graph input, int64 `(B,)`: how many of the step's K frames are real; the rest of a stream's steps,
        after its end, push out the tail. Needed where delay > 0 and a stream has as many outputs as frames.
    batchable: false where the graph takes one stream at a time: its batch axes have the size 1.
    sequence: the graph maps whole sequences, `(B, T, *frame)` to `(B, T', *out)`, and has no states: a stream's frames are
        collected until it ends. `lengths` says T'.
    lengths_input: a graph input, int64 `(B,)`: how long each sequence is; what is padded changes nothing. None where all
        sequences of a batch must be equally long.
    encoder: the graph is a decoder's, and an encoder rides in the same file that fills some of its states.
    certificate: the parity certificate, a line for each backend.
    approximations: what the artifact is not exact in, by request; where there are some, the certificate is about the
        model as approximated.
    """

    inputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1, max_length=256)]
    outputs: Annotated[tuple[TensorSpec, ...], msgspec.Meta(min_length=1, max_length=256)]
    states: Annotated[tuple[StateSpec, ...], msgspec.Meta(max_length=4096)]
    format: int = FORMAT
    delay: Annotated[int, msgspec.Meta(ge=0, le=2**20)] = 0
    frames_per_step: Count = 1
    outputs_per_step: Count = 1
    lengths: tuple[Stage, ...] = ()
    valid_input: Name | None = None
    batchable: bool = True
    sequence: bool = False
    lengths_input: Name | None = None
    encoder: EncoderSpec | None = None
    sample_rate_hz: Annotated[float, msgspec.Meta(gt=0)] | None = None
    labels: tuple[str, ...] | None = None
    origin: Origin | None = None
    certificate: tuple[Parity, ...] = ()
    approximations: tuple[Approximation, ...] = ()

    def outputs_of(self, frames: int) -> int:
        """How many outputs a stream of so many frames has in all."""
        if self.lengths:
            return length_of(self.lengths, frames)
        return frames * self.outputs_per_step // self.frames_per_step

    @property
    def at_once(self) -> bool:
        """Each frame is answered by one output as soon as it is there."""
        return not self.sequence and (self.delay, self.frames_per_step, self.outputs_per_step) == (0, 1, 1)

    @property
    def state_bytes(self) -> int:
        """Bytes of one stream's states alone."""
        return sum(state.nbytes for state in self.states)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A step graph with its meaning. fingerprint (16 bytes) binds snapshots to graph, weights and state layout.

    encoder: what fills states from a stream's source, where the metadata says so.
    """

    spec: StepSpec
    model: onnx.ModelProto
    fingerprint: bytes
    path: Path | None = None
    encoder: "Artifact | None" = None

    @property
    def name(self) -> str:
        return self.path.name if self.path else "<model in memory>"


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """The artifact at `path`, wholly validated. Raises ArtifactError, with the offending field's path."""
    path = Path(path)
    return _opened(str(path), load_model(path), path)


def _opened(path: str, model: onnx.ModelProto, file: Path) -> Artifact:
    """The artifact that a model with metadata is; path: what it is called in errors."""
    found = {p.key: p.value for p in model.metadata_props}
    if SPEC_KEY not in found:
        raise ArtifactError(
            f"{path}: has no 'undertow' metadata, so it is not a step artifact; "
            "make one with `undertow export` (torch), `undertow convert` (whole-sequence ONNX) or `undertow adopt` (an ONNX step graph)"
        )
    text = found[SPEC_KEY]
    text = text.encode() if isinstance(text, str) else text  # protobuf gives bytes where the text is not UTF-8
    if len(text) > MAX_SPEC_BYTES:
        raise ArtifactError(f"{path}: metadata has {len(text)} bytes, at most {MAX_SPEC_BYTES} are allowed")
    version = _decode(path, text, _FormatOnly).format
    if version != FORMAT:
        raise ArtifactError(
            f"{path}: artifact format {version}, this version of undertow reads {FORMAT}; export the model again"
        )
    if found.get(DIGEST_KEY) != _digest(text, model, found.get(ENCODER_KEY)):
        raise ArtifactError(
            f"{path}: the checksum does not match; the file is damaged or was edited, export the model again"
        )
    spec, encoder = _decode(path, text, StepSpec), None
    if spec.encoder is not None or ENCODER_KEY in found:
        inner = f"{path}: its encoder"
        whole = unpacked(path, found.get(ENCODER_KEY))
        check_weights(inner, whole)
        encoder = _opened(inner, whole, file)
    _check(path, spec, model.graph)
    check_encoder(path, spec, encoder.spec if encoder else None)
    return Artifact(spec, model, _fingerprint(spec, model, encoder), file, encoder)


def make_artifact(
    model: onnx.ModelProto, spec: StepSpec, path: Path | None = None, encoder: Artifact | None = None
) -> Artifact:
    """An artifact in memory. Raises ArtifactError where spec, graph and encoder disagree."""
    where = str(path or "<model in memory>")
    _check(where, spec, model.graph)
    check_encoder(where, spec, encoder.spec if encoder else None)
    return Artifact(spec, model, _fingerprint(spec, model, encoder), path, encoder)


def write_artifact(
    path: str | os.PathLike[str], model: onnx.ModelProto, spec: StepSpec, encoder: Artifact | None = None
) -> Artifact:
    """Writes the step artifact in one move (a reader sees the old file or the new one) and returns it."""
    path = Path(path)
    artifact = make_artifact(model, spec, path, encoder)
    out = _sealed(model, spec, encoder)
    data = out.SerializeToString()
    if len(data) > MAX_FILE_BYTES:
        raise ArtifactError(f"{path}: the model has {len(data)} bytes, an ONNX file holds at most {MAX_FILE_BYTES}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)
    return Artifact(artifact.spec, out, artifact.fingerprint, path, encoder)


def _sealed(model: onnx.ModelProto, spec: StepSpec, encoder: Artifact | None) -> onnx.ModelProto:
    """The model with its metadata, that of an encoder within its own, and the checksum."""
    text = msgspec.json.encode(spec)
    entry = None if encoder is None else packed(_sealed(encoder.model, encoder.spec, None))
    out = onnx.ModelProto()
    out.CopyFrom(model)
    entries = {p.key: p.value for p in out.metadata_props if p.key not in (SPEC_KEY, DIGEST_KEY, ENCODER_KEY)}
    entries |= {SPEC_KEY: text.decode()} | ({} if entry is None else {ENCODER_KEY: entry})
    entries[DIGEST_KEY] = _digest(text, out, entry)
    del out.metadata_props[:]
    for key, value in entries.items():
        out.metadata_props.add(key=key, value=value)
    return out


def load_model(path: Path) -> onnx.ModelProto:
    """The ONNX model at `path` with external data, if any, read from its own folder alone."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ArtifactError(f"{path}: has {size} bytes, an ONNX file holds at most {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror or error})") from error
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ArtifactError(f"{path}: is not an ONNX file, or is damaged ({error})") from error
    if not model.graph.node and not model.graph.output:
        raise ArtifactError(f"{path}: is not an ONNX file, or its graph is empty")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            _inline(path, tensor)
    check_weights(str(path), model)
    return model


def check_weights(path: str, model: onnx.ModelProto) -> None:
    """Weights are in the model itself, and hold as many bytes as their shapes say. Raises ArtifactError."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            raise ArtifactError(f"{path}: initializer '{tensor.name}' is in another file; an encoder holds its own")
        _check_weight(path, tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                if attribute.t.data_location == TensorProto.EXTERNAL:
                    raise ArtifactError(
                        f"{path}: node '{node.name or node.op_type}' names external data; only initializers may"
                    )
                _check_weight(path, attribute.t)


def _check_weight(path: str, tensor: TensorProto) -> None:
    """A tensor holds as many bytes as its shape says, before anything is allocated for it."""
    if tensor.data_type not in _ITEM_BYTES or tensor.data_location == TensorProto.EXTERNAL:
        return
    items = math.prod(tensor.dims) if all(d >= 0 for d in tensor.dims) else -1
    raw = tensor.HasField("raw_data")
    fields = (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    held = len(tensor.raw_data) / _ITEM_BYTES[int(tensor.data_type)] if raw else sum(map(len, fields))
    if items != held:
        raise ArtifactError(
            f"{path}: initializer '{tensor.name}' has shape {list(tensor.dims)} but holds {held:g} elements; the file is damaged"
        )


def _inline(path: Path, tensor: TensorProto) -> None:
    """Reads a tensor's external data into it."""
    info = {e.key: e.value for e in tensor.external_data}
    location = info.get("location", "")
    folder = path.parent.resolve()
    if "\0" in location:
        raise ArtifactError(
            f"{path}: initializer '{tensor.name}': external data at {location!r} cannot be read (not a file name)"
        )
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
        raise ArtifactError(
            f"{path}: initializer '{tensor.name}': external data at '{location}' is outside of the model's folder; refused"
        )
    try:
        offset = int(info.get("offset", 0))
        with file.open("rb") as handle:
            available = handle.seek(0, os.SEEK_END) - offset
            length = int(info.get("length", available))
            if offset < 0 or length < 0 or length > available:
                raise ArtifactError(
                    f"{path}: initializer '{tensor.name}': external data names bytes {offset}..{offset + length} of '{location}', "
                    f"which has {available + offset}"
                )
            handle.seek(offset)
            tensor.raw_data = handle.read(length)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: initializer '{tensor.name}': external data at '{location}' cannot be read ({error})"
        ) from error
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


class _FormatOnly(msgspec.Struct):
    format: int = FORMAT


def _decode(path: str, text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"{path}: metadata: {error}") from error


def _graph_hash(model: onnx.ModelProto) -> "hashlib._Hash":
    """Over everything that decides a result: graph, operator sets, functions; not names of producers or comments."""
    digest = hashlib.sha256()
    for opset in sorted((o.domain, o.version) for o in model.opset_import):
        digest.update(repr(opset).encode())
    for part in (model.graph, *model.functions):
        data = part.SerializeToString(deterministic=True)
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest


def _digest(text: bytes, model: onnx.ModelProto, encoder: str | None = None) -> str:
    digest = _graph_hash(model)
    digest.update(text + (encoder or "").encode())
    return digest.hexdigest()


def _fingerprint(spec: StepSpec, model: onnx.ModelProto, encoder: Artifact | None) -> bytes:
    digest = _graph_hash(model)
    digest.update(msgspec.json.encode((spec.inputs, spec.states, spec.frames_per_step)))
    digest.update(b"" if encoder is None else encoder.fingerprint)
    return digest.digest()[:16]


def _check(where: str, spec: StepSpec, graph: onnx.GraphProto) -> None:
    """Spec and graph agree in every name, shape and dtype; sizes are bounded."""
    initializers = {t.name for t in graph.initializer}
    given = {v.name: v for v in graph.input if v.name not in initializers}
    results = {v.name: v for v in graph.output}
    wanted: list[tuple[str, str, tuple[int | str, ...], str, dict[str, onnx.ValueInfoProto]]] = []
    steps, outs = spec.frames_per_step, spec.outputs_per_step
    _check_sequence(where, spec)
    for i, t in enumerate(spec.inputs):
        wanted.append((f"inputs[{i}]", t.name, _blocks(spec, steps, t), t.dtype, given))
    for i, t in enumerate(spec.outputs):
        wanted.append((f"outputs[{i}]", t.name, _blocks(spec, outs, t), t.dtype, results))
    for i, s in enumerate(spec.states):
        wanted.append((f"states[{i}].name", s.name, s.shape, s.dtype, given))
        wanted.append((f"states[{i}].next", s.next, s.shape, s.dtype, results))
    for field, name in (("valid_input", spec.valid_input), ("lengths_input", spec.lengths_input)):
        if name is not None:
            wanted.append((field, name, (), "int64", given))
    for tensor in graph.initializer:
        _check_weight(where, tensor)
    for field, name, shape, dtype, where_from in wanted:
        _check_tensor(f"{where}: {field}", name, shape, dtype, where_from, spec.batchable)
    for i, s in enumerate(spec.states):
        if not isinstance(s.initial, bytes) and not _holds(s.dtype, s.initial):
            raise ArtifactError(f"{where}: states[{i}].initial: {s.initial!r} is not a finite {s.dtype}")
        if isinstance(s.initial, bytes):
            expected = s.nbytes
            if len(s.initial) != expected:
                raise ArtifactError(
                    f"{where}: states[{i}].initial: has {len(s.initial)} bytes, shape {s.shape} of {s.dtype} needs {expected}"
                )
    named = [name for _, name, _, _, source in wanted if source is given]
    for name in given:
        if name not in named:
            raise ArtifactError(f"{where}: graph input '{name}' is neither an input nor a state in the metadata")
    for source in (given, results):
        names = [name for _, name, _, _, s in wanted if s is source]
        twice = {n for n in names if names.count(n) > 1}
        if twice and source is given:
            raise ArtifactError(f"{where}: graph input '{min(twice)}' is named twice in the metadata")
    if spec.delay and not spec.lengths and spec.valid_input is None:
        raise ArtifactError(
            f"{where}: delay is {spec.delay} but valid_input is not set; a delayed graph must know where its stream ends"
        )


def _blocks(spec: StepSpec, count: int, tensor: TensorSpec) -> tuple[int | str, ...]:
    """The shape of an input or output in the graph, without the batch axis; an axis of any size is a name."""
    if spec.sequence:
        return ("T", *tensor.shape)
    return (count, *tensor.shape) if count > 1 else tensor.shape


def _check_sequence(where: str, spec: StepSpec) -> None:
    if spec.sequence and (
        spec.states or spec.delay or spec.valid_input or max(spec.frames_per_step, spec.outputs_per_step) > 1
    ):
        raise ArtifactError(
            f"{where}: sequence is set, so the graph takes whole sequences; it has no states, delay, valid_input or frames a step"
        )
    if spec.lengths_input is not None and not spec.sequence:
        raise ArtifactError(
            f"{where}: lengths_input is '{spec.lengths_input}', which only a graph of whole sequences has"
        )


def _holds(dtype: str, number: float) -> bool:
    """A finite number of that dtype."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return math.isfinite(number) and abs(number) <= float(np.finfo(kind).max)
    low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
    return number == math.floor(number) and low <= number <= high


def _check_tensor(
    field: str,
    name: str,
    shape: tuple[int | str, ...],
    dtype: str,
    found: dict[str, onnx.ValueInfoProto],
    batchable: bool,
) -> None:
    if name not in found:
        raise ArtifactError(f"{field}: the graph has no '{name}'; it has {sorted(found)}")
    kind = found[name].type.tensor_type
    got = (
        onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        if kind.elem_type in _NUMERIC
        else TensorProto.DataType.Name(kind.elem_type)
    )
    if got != dtype:
        raise ArtifactError(f"{field}: '{name}' is {got} in the graph, {dtype} in the metadata")
    dims = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    sizes = [w if isinstance(w, str) and d != "?" else d for d, w in zip(dims[1:], shape, strict=False)]
    fits = bool(dims) and (isinstance(dims[0], str) if batchable else dims[0] == 1)
    if not kind.HasField("shape") or [*sizes, *dims[1 + len(shape) :]] != list(shape) or not fits:
        batch = "'B'" if batchable else "1"
        axis = "with a symbolic batch axis" if batchable else "since it takes one stream at a time"
        raise ArtifactError(
            f"{field}: '{name}' has shape {dims} in the graph, expected [{', '.join(map(str, (batch, *shape)))}] {axis}"
        )
    size = math.prod(d for d in shape if isinstance(d, int)) * np.dtype(dtype).itemsize
    if size > MAX_TENSOR_BYTES:
        raise ArtifactError(f"{field}: '{name}' has {size} bytes a stream, at most {MAX_TENSOR_BYTES} are allowed")


_ITEM_BYTES: dict[int, int] = {
    int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(d))): np.dtype(d).itemsize for d in DType.__args__
}
_NUMERIC = {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(d)) for d in DType.__args__}
