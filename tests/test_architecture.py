"""The arrows of the house: who may import whom."""

import ast
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from undertow.engine.decoders import DecodeConfig

ROOT = Path(__file__).parent.parent
FOLDERS = ("api", "connectors", "exporters", "engine")
BELOW = {
    "engine": set(),
    "exporters": {"engine"},
    "connectors": {"engine"},
    "api": {"engine", "exporters", "connectors"},
}
TORCH = {"torch", "onnxscript", "torchaudio", "torchvision", "tensorflow", "keras"}
KAFKA = {"aiokafka", "kafka", "confluent_kafka"}
ASYNC = {"asyncio", "anyio", "trio"}
FORBIDDEN = {
    "engine": TORCH | KAFKA | ASYNC,
    "exporters": KAFKA | ASYNC,
    "connectors": TORCH,
    "api": TORCH | KAFKA,
}


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Level (0 is absolute) and dotted name of every import of a file, those in functions and by import_module included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called, name = ast.unparse(node.func).split(".")[-1], node.args[0].value
            if called in ("import_module", "__import__", "find_spec") and isinstance(name, str):
                yield len(name) - len(name.lstrip(".")), name.lstrip(".")


def test_imports_are_found_however_they_are_written() -> None:
    """What the arrows are checked on: every way to import, at any depth."""
    source = "import a.b\ndef f():\n    from ..c import d\n    from . import e\n    import_module('g')\n    importlib.import_module('.h')"
    assert set(imports(source)) == {(0, "a.b"), (2, "c"), (1, "e"), (0, "g"), (1, "h")}


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows(folder: str) -> None:
    """A folder imports from itself and from what lies below it, always relatively."""
    assert sources(folder), f"{folder}/ has no module: the arrows would hold of nothing"
    for path in sources(folder):
        depth = len(path.relative_to(ROOT / folder).parts)  # 1: a file of the folder itself
        for level, name in imports(path.read_text()):
            where, first = f"{path.relative_to(ROOT)} imports {'.' * level}{name}", name.split(".")[0]
            if level == 0:
                assert first != "undertow", f"{where}: inside the product imports are relative"
            elif folder == "api":
                assert level == 1, f"{where}: beyond the package"
            elif level > depth:
                assert level == depth + 1, f"{where}: beyond the package"
                assert first in BELOW[folder], f"{where}: {folder} may import from {sorted(BELOW[folder])} alone"


@pytest.mark.parametrize("folder", FOLDERS)
def test_foreign_packages(folder: str) -> None:
    """torch only in exporters, Kafka only in connectors, and neither asyncio nor anything of them in the engine."""
    for path in sources(folder):
        for level, name in imports(path.read_text()):
            if level == 0:
                assert name.split(".")[0] not in FORBIDDEN[folder], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["engine", "exporters"])
def test_only_the_outside_is_async(folder: str) -> None:
    """The engine and the exporters have no coroutine."""
    for path in sources(folder):
        kinds = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.AsyncFunctionDef, ast.Await))]
        assert not kinds, f"{path.relative_to(ROOT)}:{kinds[0].lineno}: the engine is synchronous"


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter has loaded after the statement."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


HELP = "from undertow.cli import command; command(['--help'], standalone_mode=False)"


@pytest.mark.parametrize("statement", ["import undertow", "import undertow; undertow.BatchError", HELP])
def test_import_is_light(statement: str) -> None:
    """`import undertow`, an error class and `undertow --help` load no torch, Kafka, asyncio, compiler, ONNX or NumPy."""
    heavy = TORCH | KAFKA | ASYNC | {"numba", "llvmlite", "onnx", "onnxruntime", "numpy", "rich"}
    assert not modules_after(statement) & heavy


def test_help_takes_less_than_a_third_of_a_second() -> None:
    """`undertow --help`: processor time of a process of its own, the median of three, which other work does not add to."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [Path(sys.executable).with_name("undertow"), "--help"], capture_output=True, check=True, timeout=60
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(taken) < 0.3


def test_engine_needs_no_exporter() -> None:
    """A script that only runs a model never loads torch, Kafka or asyncio."""
    assert not modules_after("import undertow; undertow.Engine; undertow.BatchError") & (TORCH | KAFKA | ASYNC)


def test_the_compiled_backend_does_without_onnx_runtime() -> None:
    """An engine that makes a stream and steps it on the compiled backend never loads the other's library."""
    model = ROOT / "api" / "excerpt" / "activity.onnx"
    step = f"e = undertow.Engine({str(model)!r}, backend='numba'); e.stream(1).step([0.0] * 6)"
    loaded = modules_after(f"import undertow; {step}")
    assert "onnx" in loaded
    assert not loaded & {"onnxruntime", *TORCH, *KAFKA, *ASYNC}


def test_every_name_of_the_face_exists() -> None:
    """What `dir(undertow)` promises can be had."""
    import undertow

    for name in undertow.__all__:
        assert getattr(undertow, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = undertow.nonsense


def test_decoders_have_a_face() -> None:
    """`undertow.decode` is there without an import of its own, with every configuration that an engine takes, and `Events`."""
    done = subprocess.run(
        [sys.executable, "-c", "import undertow as ut; print(ut.decode.Labels(), *ut.decode.__all__)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    label, *names = done.stdout.rsplit(")", 1)[0], *done.stdout.rsplit(")", 1)[1].split()
    assert label.startswith("Labels(output=None")
    assert set(names) == {kind.__name__ for kind in get_args(DecodeConfig)} | {"Events"}
