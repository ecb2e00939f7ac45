"""The encoder that rides in an artifact's file: a second ONNX model as a metadata entry, and what its outputs fill."""

import base64
import binascii
from typing import TYPE_CHECKING

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from .errors import ArtifactError

if TYPE_CHECKING:
    from .artifact import EncoderSpec, StateSpec, StepSpec, TensorSpec

ENCODER_KEY = "undertow.encoder"


def packed(model: onnx.ModelProto) -> str:
    """The model as the entry's text."""
    return base64.b64encode(model.SerializeToString(deterministic=True)).decode()


def unpacked(where: str, text: str | None) -> onnx.ModelProto:
    """The entry's model. Raises ArtifactError."""
    if text is None:
        raise ArtifactError(
            f"{where}: the metadata has an encoder, the file has no entry '{ENCODER_KEY}'; export it again"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise ArtifactError(f"{where}: entry '{ENCODER_KEY}' is damaged ({error}); export the model again") from error
    return model


def check_encoder(where: str, spec: "StepSpec", encoder: "StepSpec | None") -> None:
    """What the encoder gives fits the states that it fills. Raises ArtifactError."""
    if spec.encoder is None or encoder is None:
        if spec.encoder is not None or encoder is not None:
            raise ArtifactError(f"{where}: an encoder is in one of metadata and file, not in both; export it again")
        return
    _check_kinds(where, spec, encoder)
    states, outputs = {s.name: s for s in spec.states}, {o.name: o for o in encoder.outputs}
    _check_length(where, states, spec.encoder)
    filled = [*spec.encoder.memory, *spec.encoder.initial]
    for field, pairs in (("memory", spec.encoder.memory), ("initial", spec.encoder.initial)):
        rows = (spec.encoder.max_memory,) if field == "memory" else ()
        for i, (output, state) in enumerate(pairs):
            _check_pair(f"{where}: encoder.{field}[{i}]", outputs.get(output), states.get(state), (output, state), rows)
    names = [state for _, state in filled] + [spec.encoder.length]
    for name in names:
        if names.count(name) > 1:
            raise ArtifactError(f"{where}: encoder: state '{name}' is filled twice")
    if unused := sorted(set(outputs) - {output for output, _ in filled}):
        raise ArtifactError(f"{where}: encoder: its output '{unused[0]}' fills no state")


def _check_kinds(where: str, spec: "StepSpec", encoder: "StepSpec") -> None:
    if not encoder.sequence or encoder.encoder is not None:
        raise ArtifactError(f"{where}: the encoder must be a graph of whole sequences, without an encoder of its own")
    if spec.sequence or spec.frames_per_step != 1 or spec.outputs_per_step != 1 or spec.delay:
        raise ArtifactError(f"{where}: a decoder with an encoder steps one frame to one output, without delay")


def _check_length(where: str, states: "dict[str, StateSpec]", encoder: "EncoderSpec") -> None:
    length = states.get(encoder.length)
    if length is None or length.shape or length.dtype != "int64" or length.next != length.name:
        raise ArtifactError(
            f"{where}: encoder.length: '{encoder.length}' is {length}, expected a state int64 () that no step changes"
        )


def _check_pair(
    field: str,
    output: "TensorSpec | None",
    state: "StateSpec | None",
    names: tuple[str, str],
    rows: tuple[int, ...],
) -> None:
    if output is None or state is None:
        raise ArtifactError(f"{field}: output '{names[0]}' of the encoder or state '{names[1]}' does not exist")
    wanted = (*rows, *output.shape)
    if state.shape != wanted or state.dtype != output.dtype:
        raise ArtifactError(
            f"{field}: state '{state.name}' is {state.dtype} {state.shape}, the encoder's '{output.name}' needs {output.dtype} {wanted}"
        )


def begun(spec: "StepSpec", encoded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The states of one stream that begins with what the encoder gave for its source, `(T', *out)` by output; 1 <= T' <= max_memory."""
    assert spec.encoder is not None
    states = {s.name: s.initial_value() for s in spec.states}
    for output, state in spec.encoder.memory:
        states[state] = np.zeros_like(states[state])
        states[state][: len(encoded[output])] = encoded[output]
    for output, state in spec.encoder.initial:
        states[state] = encoded[output][-1]
    length = len(next(iter(encoded.values())))
    states[spec.encoder.length] = np.array(length, np.int64)
    return states


def memory_bytes(spec: "StepSpec") -> int:
    """Bytes of one stream's states that an encoder fills row by row."""
    filled = {state for _, state in spec.encoder.memory} if spec.encoder else set[str]()
    return sum(s.nbytes for s in spec.states if s.name in filled)
