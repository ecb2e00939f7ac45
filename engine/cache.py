"""Compiled programs on disk: a folder each, named by the hash of all that decides the machine code.

Source, the modules that it calls, versions, processor. Never beside the code, so an edited callee or another machine
cannot bring back a stale program.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np

from . import circular, functions, gemm, lanes, multiply, powers, simd


def cache_folder() -> Path:
    """`UNDERTOW_CACHE_DIR`, or `undertow` in the user's cache folder."""
    given = os.environ.get("UNDERTOW_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "undertow"


def program_key(text: str) -> str:
    """The hash of everything that decides the machine code."""
    digest = hashlib.sha256()
    for part in (
        text, *(Path(m.__file__ or "").read_text() for m in (simd, lanes, functions, circular, powers, multiply, gemm)), sys.version, platform.machine(),
        numba.__version__, llvmlite.__version__, np.__version__, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(),
    ):  # fmt: skip
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


def load_program(text: str) -> ModuleType:
    """The program of this source as a module, from disk where it was compiled before. Not yet compiled: numba does so on first use."""
    key = program_key(text)
    file = cache_folder() / key / f"program_{key}.py"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text)
        os.replace(temporary, file)
    elif file.read_text() != text:
        shutil.rmtree(file.parent)
        return load_program(text)
    module_spec = importlib.util.spec_from_file_location(f"undertow_program_{key}", file)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    return module


def forget_program(text: str) -> None:
    """Removes a program from the disk, where what numba kept of it is damaged."""
    shutil.rmtree(cache_folder() / program_key(text), ignore_errors=True)
