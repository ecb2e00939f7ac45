"""The arrows of the house: who may import whom."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Level (0 is absolute) and dotted name of every import of a file, those inside of functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows(folder: str) -> None:
    """A folder imports from itself and from what lies below it, always relatively."""
    for path in sources(folder):
        depth = len(path.relative_to(ROOT / folder).parts)  # 1: a file of the folder itself
        for level, name in imports(path):
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
        for level, name in imports(path):
            if level == 0:
                assert name.split(".")[0] not in FORBIDDEN[folder], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("folder", ["engine", "exporters"])
def test_only_the_outside_is_async(folder: str) -> None:
    """The engine and the exporters have no coroutine."""
    for path in sources(folder):
        kinds = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, (ast.AsyncFunctionDef, ast.Await))]
        assert not kinds, f"{path.relative_to(ROOT)}:{kinds[0].lineno}: the engine is synchronous"


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_import_is_light() -> None:
    """`import undertow` loads neither torch, nor Kafka, nor the compiler, nor ONNX Runtime."""
    heavy = TORCH | KAFKA | {"numba", "llvmlite", "onnx", "onnxruntime", "numpy"}
    assert not modules_after("import undertow") & heavy


def test_engine_needs_no_exporter() -> None:
    """A script that only runs a model never loads torch."""
    assert not modules_after("import undertow; undertow.Engine; undertow.BatchError") & (TORCH | KAFKA)


def test_every_name_of_the_face_exists() -> None:
    """What `dir(undertow)` promises can be had."""
    import undertow

    for name in undertow.__all__:
        assert getattr(undertow, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = undertow.nonsense
