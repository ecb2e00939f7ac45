"""The wheel: what is in it, what it asks for, and that it works where neither this checkout nor torch is."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
HOMES = {
    "api": "undertow",
    "engine": "undertow/engine",
    "exporters": "undertow/exporters",
    "connectors": "undertow/connectors",
}
BLOCKED = ("torch", "onnxscript")
BLOCKER = f"""
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=Path(sys.prefix),
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def pip(*arguments: str | Path) -> None:
    done = run(sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what deploy/Dockerfile copies, so that nothing left in the checkout's build folder gets in."""
    for needed in ("pip", "setuptools"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed here, so no wheel can be built offline")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in HOMES:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    pip("wheel", source, "--no-build-isolation", "--wheel-dir", out)
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The wheel in a folder of its own, and the environment of a process that finds it there, and no torch."""
    target, blocker = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("blocker")
    pip("install", wheel, "--target", target)
    (blocker / "sitecustomize.py").write_text(BLOCKER)
    return target, {"PYTHONPATH": f"{blocker}{os.pathsep}{target}"}


def command(installed: tuple[Path, dict[str, str]], *arguments: str | Path) -> Any:
    """What the installed console script prints, as JSON."""
    target, environment = installed
    done = run(target / "bin" / "undertow", *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_wheel_has_every_module_and_nothing_else(wheel):
    """Each module and each file of the excerpt, once, in its place; no tests, no compiled leftovers, and the license."""
    found = zipfile.ZipFile(wheel).namelist()
    expected = {
        f"{home}/{path.relative_to(ROOT / folder)}"
        for folder, home in HOMES.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix == ".py" or (folder == "api" and "excerpt" in path.parts and path.is_file())
    }
    assert sum("/excerpt/" in name for name in expected) > 10
    assert {name for name in found if ".dist-info/" not in name} == expected
    assert len(found) == len(set(found))
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in found)


def test_the_metadata_says_what_it_needs(wheel):
    """Pythons 3.11 to 3.14, torch for export alone, the console script, and the version that the code says."""
    archive = zipfile.ZipFile(wheel)
    files = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if ".dist-info/" in name}
    metadata = message_from_bytes(files["METADATA"])
    assert set(metadata["Requires-Python"].split(",")) == {">=3.11", "<3.15"}
    plain = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    extra = [need for need in metadata.get_all("Requires-Dist", []) if 'extra == "export"' in need]
    assert not [need for need in plain if need.startswith(BLOCKED)]
    assert {need.split(">")[0] for need in extra} == set(BLOCKED)
    assert b"undertow = undertow.cli:main" in files["entry_points.txt"]
    assert metadata["Version"] == version("undertow")


def test_the_installed_package_is_whole_without_torch(installed):
    """Every name of the face but the exporter's is there, from the installed folder; export and the two modules say what to install."""
    target, environment = installed
    code = (
        "import undertow as ut\n"
        "print(ut.__file__, ut.Engine.__init__.__code__.co_filename, ut.__version__)\n"
        "[getattr(ut, name) for name in ut.__all__ if name not in ('StepModule', 'DecoderModule')]\n"
        "for call in (lambda: ut.export(None, None, 'm.onnx'), lambda: ut.StepModule, lambda: ut.DecoderModule):\n"
        "    try:\n        call()\n    except ut.ExportError as error:\n        print(error)\n"
    )
    done = run(sys.executable, "-c", code, **environment)
    assert done.returncode == 0, done.stderr
    places, *remedies = done.stdout.splitlines()
    package, engine, said = places.split()
    assert Path(package).is_relative_to(target)
    assert Path(engine).is_relative_to(target)
    assert said == version("undertow")
    assert ["pip install 'undertow[export]'" in remedy for remedy in remedies] == [True, True, True]


def test_the_commands_run_without_torch(installed, tmp_path):
    """`inspect` and `demo` of the installed script work on the packaged excerpt; the demo agrees with torch's results."""
    target, _ = installed
    facts = command(installed, "inspect", target / "undertow" / "excerpt" / "activity.onnx")
    assert facts["backends"]["numba"] == "runs"
    figures = command(installed, "demo", "--out", tmp_path)
    assert figures["worst_difference"] < 1e-4
    assert figures["streams"] == 14
    assert Path(figures["report"]).read_text().startswith("<!doctype html>")
