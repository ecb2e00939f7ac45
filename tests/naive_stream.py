"""A step artifact as its metadata says, one stream, one step at a time, in ONNX Runtime: slow and obvious."""

import numpy as np
import onnx
import onnxruntime

from undertow.engine.artifact import StepSpec

GARBAGE = 37.0  # frames that are not real: the graph must not let them through


def plain(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def streamed(
    session: onnxruntime.InferenceSession, spec: StepSpec, frames: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """{output: (T', *out)} of {input: (T, *frame)}: steps over the frames, then steps that push the rest out."""
    count, per_step = len(next(iter(frames.values()))), spec.frames_per_step
    wanted = spec.outputs_of(count) if count else 0
    late = spec.delay * spec.outputs_per_step // per_step
    states = {s.name: s.initial_value()[None] for s in spec.states}
    names = [o.name for o in session.get_outputs()]
    given: dict[str, list[np.ndarray]] = {o.name: [np.zeros((0, *o.shape), o.dtype)] for o in spec.outputs}
    made, at = -late, 0
    while made < wanted and wanted:
        feed = dict(states)
        real = max(0, min(per_step, count - at * per_step))
        for name, array in frames.items():
            block = np.full((per_step, *array.shape[1:]), GARBAGE).astype(array.dtype)
            block[:real] = array[at * per_step : at * per_step + real]
            feed[name] = block[None] if per_step > 1 else block
        if spec.valid_input:
            feed[spec.valid_input] = np.array([real], np.int64)
        results = dict(zip(names, session.run(None, feed), strict=True))
        states = {s.name: np.asarray(results[s.next]) for s in spec.states}
        for o in spec.outputs:
            block = np.asarray(results[o.name])
            given[o.name].append(block[0] if spec.outputs_per_step > 1 else block)
        made, at = made + spec.outputs_per_step, at + 1
    return {name: np.concatenate(parts)[late : late + wanted] for name, parts in given.items()}
