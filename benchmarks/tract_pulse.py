"""One whole-sequence ONNX file through tract: loaded, pulsed, fed pulse by pulse, compared. Prints what came of it as JSON.

    python benchmarks/tract_pulse.py case.npz model.onnx PULSE

case.npz: `in_<name>` for each input, whole sequences of one stream with `time_axis`, and `out_<i>` for each output; `short_..` likewise
for a shorter sequence, which the file must be right about before it is pulsed.
After the last frame it is fed zeros until every output is out: its Python API has no way to say that a stream has ended.
"""

import json
import sys
from typing import Any

import numpy as np
import tract

TYPES = {"float32": "f32", "int64": "i64"}


def loaded(path: str, inputs: dict[str, np.ndarray], axis: int) -> tract.Model:
    """The model, its time axis the symbol S."""
    whole = tract.onnx().load(path)
    for i in range(whole.input_count()):
        array = inputs[whole.input_name(i)]
        sizes = ["S" if at == axis else str(size) for at, size in enumerate(array.shape)]
        whole.set_input_fact(i, ",".join([*sizes, TYPES[array.dtype.name]]))
    for i in range(whole.output_count()):
        whole.set_output_fact(i, None)
    whole.analyse()
    return whole.into_model()


def check_whole(model: tract.Model, inputs: dict[str, np.ndarray], expected: list[np.ndarray]) -> None:
    """Raises where the file, without pulses, is not the module: it is no test of the pulse transform then."""
    feed = [inputs[model.input_name(i)] for i in range(model.input_count())]
    for got, wanted in zip(model.into_runnable().run(feed), expected, strict=True):
        array = got.to_numpy()
        if array.shape != wanted.shape or not np.allclose(array, wanted, atol=1e-3):
            raise ValueError("the file is not the module at other lengths: its exporter has built the length in")


def streamed(model: tract.Model, inputs: dict[str, np.ndarray], axis: int, pulse: int, more: int) -> list[np.ndarray]:
    """Each output of all pulses, end to end; `more` pulses of zeros after the frames."""
    axes = model.property("pulse.output_axes").to_numpy()
    names = [model.input_name(i) for i in range(model.input_count())]
    state = model.into_runnable().spawn_state()
    length = next(iter(inputs.values())).shape[axis]
    parts: list[list[np.ndarray]] = [[] for _ in axes]
    for at in range(0, length + more * pulse, pulse):
        feed = []
        for name in names:
            whole = inputs[name]
            block = (
                whole.take(range(at, at + pulse), axis)
                if at < length
                else np.zeros_like(whole.take(range(pulse), axis))
            )
            feed.append(np.ascontiguousarray(block))
        for part, made in zip(parts, state.run(feed), strict=True):
            part.append(made.to_numpy())
    return [np.concatenate(part, int(at)) for part, at in zip(parts, axes, strict=True)]


def compared(got: np.ndarray, expected: np.ndarray, axis: int, delay: int, fed: float) -> tuple[float, int]:
    """The worst error of what came while frames came, and how many of the last are wrong. fed: which share of all pulses had frames."""
    count = expected.shape[axis]
    got = np.moveaxis(got, axis, 0)[delay : delay + count]
    expected = np.moveaxis(expected, axis, 0)
    differs = np.abs(got - expected[: len(got)]).reshape(len(got), -1).max(1) if len(got) else np.zeros(0)
    scale = max(1.0, float(np.abs(expected).max()))
    wrong = ~(differs <= 1e-4 * scale)
    right = int(np.argmax(wrong)) if wrong.any() else len(got)
    inner = max(0, min(len(got), int(fed) - delay))
    return float(differs[:inner].max(initial=0.0)), count - right


def tensors(data: Any, kind: str) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Inputs by name, and outputs in order."""
    inputs = {name.removeprefix(f"{kind}in_"): data[name] for name in data.files if name.startswith(f"{kind}in_")}
    count = sum(name.startswith(f"{kind}out_") for name in data.files)
    return inputs, [data[f"{kind}out_{i}"] for i in range(count)]


def main(case: str, path: str, pulse: int) -> dict[str, object]:
    data = np.load(case)
    axis = int(data["time_axis"])
    inputs, expected = tensors(data, "")
    check_whole(loaded(path, inputs, axis), *tensors(data, "short_"))
    model = loaded(path, inputs, axis)
    model.transform(tract.Pulse(pulse, symbol="S"))
    delays = [int(d) for d in model.property("pulse.delay").to_numpy()]
    axes = [int(a) for a in model.property("pulse.output_axes").to_numpy()]
    rates = [int(model.output_fact(i).dim(a)) for i, a in enumerate(axes)]
    length = next(iter(inputs.values())).shape[axis]
    more = (
        max(-(-(d + e.shape[a]) // r) for d, e, a, r in zip(delays, expected, axes, rates, strict=True))
        - length // pulse
    )
    outputs = streamed(model, inputs, axis, pulse, max(0, more))
    found = [
        compared(g, e, a, d, length // pulse * r)
        for g, e, a, d, r in zip(outputs, expected, axes, delays, rates, strict=True)
    ]
    return {"delay": delays[0], "error": max(f[0] for f in found), "last": max(f[1] for f in found)}


if __name__ == "__main__":
    try:
        print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        print(
            json.dumps({"fails": next((line for line in lines if "Stack backtrace" not in line), type(error).__name__)})
        )
