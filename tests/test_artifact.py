"""Artifacts: what is written is read again; what is damaged or hostile is refused, with the place in the message."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from undertow.engine import artifact as module
from undertow.engine.artifact import Artifact, make_artifact, read_artifact, write_artifact
from undertow.engine.errors import ArtifactError

from .step_graph import StepGraph, lookahead_step, lstm_step


def graph_of(artifact: Artifact) -> list[bytes]:
    """Everything that decides a result."""
    model = artifact.model
    parts = [model.graph, *model.functions, *model.opset_import]
    return [part.SerializeToString(deterministic=True) for part in parts]


def tiny() -> Artifact:
    g = StepGraph()
    x, h = g.input("x", (2,)), g.state("h", (2,), initial=np.array([0.5, -0.25]))
    g.next("h", g.op("Tanh", g.op("Add", g.linear(x, 2, 2), h)))
    g.output("y", h, (2,))
    return g.artifact()


def write_and_read(path: Path, made: Artifact) -> Artifact:
    write_artifact(path, made.model, made.spec)
    return read_artifact(path)


def test_round_trip(tmp_path: Path) -> None:
    """Spec, graph and fingerprint come back as they were written, initial values bit by bit."""
    for made in (tiny(), lstm_step(3, 4, 2), lookahead_step(3, frames_per_step=2)):
        read = write_and_read(tmp_path / "a.onnx", made)
        assert read.spec == made.spec
        assert graph_of(read) == graph_of(made)
        assert read.fingerprint == made.fingerprint
        assert read.name == "a.onnx"
        for ours, theirs in zip(made.spec.states, read.spec.states, strict=True):
            assert ours.initial_value().tobytes() == theirs.initial_value().tobytes()
    onnx.checker.check_model(tmp_path / "a.onnx")


def test_fingerprint_binds_the_weights(tmp_path: Path) -> None:
    """Other weights, another fingerprint; another name of the file or producer, the same."""
    one, other = lstm_step(2, 2, seed=1), lstm_step(2, 2, seed=2)
    assert one.fingerprint != other.fingerprint
    one.model.producer_name = "somebody"
    assert make_artifact(one.model, one.spec).fingerprint == one.fingerprint
    assert write_artifact(tmp_path / "b.onnx", one.model, one.spec).fingerprint == one.fingerprint


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(tmp_path: Path, flip: int) -> None:
    """A damaged file is refused, or the damage is where it decides nothing: the spec and graph are the very same."""
    path, made = tmp_path / "a.onnx", tiny()
    write_artifact(path, made.model, made.spec)
    data = path.read_bytes()
    harmless = 0
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :])
        try:
            read = read_artifact(path)
        except ArtifactError:
            continue
        assert read.spec == made.spec, i
        assert graph_of(read) == graph_of(made), i
        harmless += 1
    assert harmless < 50


def test_every_truncation(tmp_path: Path) -> None:
    """A file cut off anywhere is refused."""
    path, made = tmp_path / "a.onnx", tiny()
    write_artifact(path, made.model, made.spec)
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i])
        try:
            read = read_artifact(path)
        except ArtifactError:
            continue
        assert read.spec == made.spec
        assert graph_of(read) == graph_of(made)


def test_what_is_no_artifact(tmp_path: Path) -> None:
    """A missing file, a folder, noise, and an ONNX model without metadata: each says which."""
    with pytest.raises(ArtifactError, match=r"nowhere\.onnx: cannot be read"):
        read_artifact(tmp_path / "nowhere.onnx")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_artifact(tmp_path)
    noise = tmp_path / "noise.onnx"
    for data in (b"", b"not a model at all", bytes(range(256)), b"\x00" * 100):
        noise.write_bytes(data)
        with pytest.raises(ArtifactError, match=r"noise\.onnx"):
            read_artifact(noise)
    plain = tmp_path / "plain.onnx"
    onnx.save(tiny().model, plain)
    with pytest.raises(ArtifactError, match=r"no 'undertow' metadata.*undertow adopt"):
        read_artifact(plain)


def forge(path: Path, edit: Callable[[dict[str, Any]], None], model: onnx.ModelProto | None = None) -> None:
    """Writes the tiny artifact with edited metadata and a checksum that fits."""
    made = tiny()
    write_artifact(path, model or made.model, made.spec)
    document = onnx.load(path)
    values = {p.key: p for p in document.metadata_props}
    meaning = json.loads(values[module.SPEC_KEY].value)
    edit(meaning)
    text = json.dumps(meaning)
    values[module.SPEC_KEY].value = text
    values[module.DIGEST_KEY].value = module._digest(text.encode(), document)
    path.write_bytes(document.SerializeToString())


def put(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit: the field at `path` becomes `value`."""

    def edit(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = value

    return edit


FIELDS = [
    (put("surprise", value=1), "surprise"),
    (put("states", 0, "surprise", value=1), r"surprise.*states\[0\]|states\[0\].*surprise|\$\.states\[\.\.\.\]"),
    (put("format", value=99), "format 99"),
    (put("format", value="one"), "format"),
    (put("delay", value=-1), "delay"),
    (put("delay", value=2**40), "delay"),
    (put("delay", value=1), "valid_input"),
    (put("frames_per_step", value=0), "frames_per_step"),
    (put("frames_per_step", value=2), "inputs"),
    (put("outputs_per_step", value=3), "outputs"),
    (put("inputs", value=[]), "inputs"),
    (put("inputs", 0, "name", value=""), "inputs"),
    (put("inputs", 0, "name", value="nobody"), "nobody"),
    (put("inputs", 0, "dtype", value="complex64"), "dtype"),
    (put("inputs", 0, "dtype", value="float64"), "float64"),
    (put("inputs", 0, "shape", value=[3]), r"inputs\[0\]"),
    (put("inputs", 0, "shape", value=[-2]), "shape"),
    (put("inputs", 0, "shape", value=[2] * 20), "shape"),
    (put("outputs", 0, "shape", value="2"), "shape"),
    (put("states", 0, "next", value="nobody"), r"states\[0\]\.next.*nobody"),
    (put("states", 0, "name", value="x"), r"'x' is named twice|'h' is neither"),
    (put("states", value=[]), "'h' is neither"),
    (put("states", 0, "shape", value=[2**31, 2**31]), r"states\[0\]"),
    (put("states", 0, "initial", value="AAAA"), r"states\[0\]\.initial"),
    (put("states", 0, "initial", value="not base64!"), "initial"),
    (put("states", 0, "initial", value=[1, 2]), "initial"),
    (put("states", 0, "initial", value=1e300), "initial"),
    (put("sample_rate_hz", value=0), "sample_rate_hz"),
    (put("labels", value=[1]), "labels"),
    (put("valid_input", value="x"), "x"),
    (put("valid_input", value="nobody"), "nobody"),
    (put("certificate", value=[{"backend": "numba"}]), "certificate"),
]


@pytest.mark.parametrize(("edit", "message"), FIELDS)
def test_wrong_metadata(tmp_path: Path, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    """A wrong, missing or unknown field is refused, and the message has its path, although the checksum fits."""
    path = tmp_path / "forged.onnx"
    forge(path, edit)
    with pytest.raises(ArtifactError, match=message):
        read_artifact(path)


@pytest.mark.parametrize(
    "text", ['{"x":' + "[" * 200_000, "[" * 200_000, "", "null", "[]", '{"format":1}', "{", "\x00"]
)
def test_metadata_that_is_no_spec(tmp_path: Path, text: str) -> None:
    """Metadata that is no JSON object, or is nested without end, is refused and does not crash."""
    path, model = tmp_path / "a.onnx", tiny().model
    model.metadata_props.add(key=module.SPEC_KEY, value=text)
    model.metadata_props.add(key=module.DIGEST_KEY, value=module._digest(text.encode(), model))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="metadata"):
        read_artifact(path)


@pytest.mark.parametrize("dims", [[3, 2], ["B", 3], ["B"], [], ["B", 2, 1], ["B", "N"], [2, 2]])
def test_graph_that_disagrees(dims: list[Any]) -> None:
    """An input of another shape, or without a symbolic batch axis, is refused by name."""
    made = tiny()
    wrong = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    next(v for v in made.model.graph.input if v.name == "x").CopyFrom(wrong)
    with pytest.raises(ArtifactError, match=r"inputs\[0\]: 'x'"):
        make_artifact(made.model, made.spec)


def external(folder: Path, where: str, **more: str) -> Path:
    """The tiny artifact whose first weight is said to lie in the file `where`."""
    path, made = folder / "model.onnx", tiny()
    weight = made.model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": where, **more}.items():
        weight.external_data.add(key=key, value=value)
    write_artifact(path, made.model, made.spec)
    with suppress(ArtifactError):
        redigest(path)
    return path


def redigest(path: Path) -> None:
    """Makes the checksum fit the graph with its external data read in, as a hostile writer would."""
    document = onnx.load(path, load_external_data=False)
    whole = module.load_model(path)
    text = next(p.value for p in document.metadata_props if p.key == module.SPEC_KEY)
    next(p for p in document.metadata_props if p.key == module.DIGEST_KEY).value = module._digest(text.encode(), whole)
    path.write_bytes(document.SerializeToString())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder beside a secret, with a link to the secret inside."""
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    inside = tmp_path / "models"
    inside.mkdir()
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "up").symlink_to(tmp_path)
    (inside / "weights.bin").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    return inside


def test_external_data_inside(folder: Path) -> None:
    """External data in the model's own folder is read, whatever the working directory."""
    path = external(folder, "weights.bin", offset="16", length="16")
    weight = read_artifact(path).model.graph.initializer[0]
    assert np.array_equal(onnx.numpy_helper.to_array(weight).ravel(), np.arange(4, 8, dtype=np.float32))


@pytest.mark.parametrize(
    "where", ["../secret.bin", "link.bin", "up/secret.bin", "a/../../secret.bin", "", "/etc/hostname", "absolute"]
)
def test_external_data_outside(folder: Path, where: str) -> None:
    """No relative path, absolute path or link leads out of the model's folder."""
    where = str(folder.parent / "secret.bin") if where == "absolute" else where
    path = external(folder, where)
    with pytest.raises(ArtifactError, match="outside of the model's folder"):
        read_artifact(path)


@pytest.mark.parametrize(
    "more",
    [
        {"offset": "99"},
        {"offset": "-1"},
        {"length": "99999999999999"},
        {"length": "-4"},
        {"offset": "many"},
        {"length": "4"},
        {"offset": str(2**70)},
    ],
)
def test_external_data_sizes(folder: Path, more: dict[str, str]) -> None:
    """Offsets and lengths beyond the file, or not those of the tensor, are refused."""
    path = external(folder, "weights.bin", **more)
    with pytest.raises(ArtifactError, match=r"model\.onnx: initializer 'w0'"):
        read_artifact(path)


@pytest.mark.parametrize("where", ["missing.bin", ".", "nul\x00byte"])
def test_external_data_that_cannot_be_read(folder: Path, where: str) -> None:
    """A missing file, a folder, or a name that no file can have."""
    path = external(folder, where)
    with pytest.raises(ArtifactError, match="initializer 'w0'"):
        read_artifact(path)


def test_external_data_in_a_node(folder: Path) -> None:
    """A tensor inside of a Constant node cannot name a file either."""
    made = tiny()
    tensor = TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret.bin")
    made.model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))
    path = folder / "model.onnx"
    with pytest.raises(ArtifactError):
        write_and_read(path, made)


@pytest.mark.parametrize("dims", [[3, 2], [2**20, 2**20], [2**40], [-1, 2]])
def test_weight_of_another_size(tmp_path: Path, dims: list[int]) -> None:
    """A weight whose bytes are not those of its shape is refused with its name, before anything is allocated."""
    made = tiny()
    weight = made.model.graph.initializer[0]
    del weight.dims[:]
    weight.dims.extend(dims)
    with pytest.raises(ArtifactError, match=weight.name):
        write_and_read(tmp_path / "a.onnx", made)


def test_writing_is_one_move(tmp_path: Path) -> None:
    """A writing that fails leaves the old file as it was and nothing beside it."""
    path, made = tmp_path / "a.onnx", tiny()
    write_artifact(path, made.model, made.spec)
    before = path.read_bytes()
    del made.model.graph.output[:]
    with pytest.raises(ArtifactError):
        write_artifact(path, made.model, made.spec)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.onnx"]
