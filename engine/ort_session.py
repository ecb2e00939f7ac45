"""Opens ONNX Runtime sessions on the execution providers that were asked for, and on no others."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
import onnxruntime as ort

from .errors import BackendError

Provider: TypeAlias = "str | tuple[str, Mapping[str, Any]]"  # a name, or a name and options

DEVICES = {"CUDAExecutionProvider": "cuda"}  # providers on whose device states can stay, and what it is called
_QUIET = 3  # errors only


def named(providers: Sequence[Provider] | None) -> list[tuple[str, dict[str, Any]]]:
    """Names and options; without any, the CPU's. Raises BackendError where a provider is not there.

    CUDA computes in float32 unless its options say otherwise: ONNX Runtime would take TF32, which is a thousand times coarser.
    """
    chosen = [(p, {}) if isinstance(p, str) else (p[0], dict(p[1])) for p in providers or ["CPUExecutionProvider"]]
    absent = [name for name, _ in chosen if name not in ort.get_available_providers()]
    if absent:
        raise BackendError(
            f"execution provider {absent[0]!r} is not in this ONNX Runtime; it has {ort.get_available_providers()}"
        )
    exact = {"CUDAExecutionProvider": {"use_tf32": "0"}}
    return [(name, exact.get(name, {}) | options) for name, options in chosen]


def device_of(providers: Sequence[Provider] | None) -> tuple[str, int] | None:
    """Name and number of the device of the first provider, where states can stay there."""
    name, options = named(providers)[0]
    return (DEVICES[name], int(options.get("device_id", 0))) if name in DEVICES else None


def open_session(
    model: onnx.ModelProto, name: str, threads: int, providers: Sequence[Provider] | None
) -> ort.InferenceSession:
    """A session of the model. Raises BackendError, also where the first provider is not the one that runs it."""
    chosen, options = named(providers), ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, _QUIET
    options.add_session_config_entry(
        "session.disable_quant_qdq", "1"
    )  # small weights become float32 at load, not at every step
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=chosen)
    except Exception as error:  # onnxruntime's own errors share no public base
        raise BackendError(f"{name}: ONNX Runtime cannot load the step graph: {error}") from error
    if session.get_providers()[0] != chosen[0][0]:
        raise BackendError(
            f"execution provider {chosen[0][0]!r} was asked for, ONNX Runtime fell back to {session.get_providers()}"
        )
    return session
