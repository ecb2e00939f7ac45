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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from . import circular, contexts, functions, gemm, kernels, lanes, multiply, powers, sampling, simd, token_rows
from .processor import processor


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
        text, *(Path(m.__file__ or "").read_text() for m in (simd, contexts, lanes, functions, circular, powers, multiply, gemm, kernels, sampling, token_rows)), sys.version, platform.machine(),
        numba.__version__, llvmlite.__version__, np.__version__, processor(),
    ):  # fmt: skip
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()[:32]


Signatures = Mapping[str, Sequence[tuple[Any, ...]]]  # of each function the argument types that it is compiled for


def load_program(text: str, signatures: Signatures) -> ModuleType:
    """The program of this source as a module, compiled for these types alone; from disk where it was compiled before."""
    try:
        return _compiled(_module(text), signatures)
    except (EOFError, OSError, ValueError, KeyError, ImportError):  # what numba kept on the disk is damaged
        shutil.rmtree(cache_folder() / program_key(text), ignore_errors=True)
        return _compiled(_module(text), signatures)


def load_static(functions: Sequence[Any], signatures: Signatures) -> ModuleType:
    """Functions that no model decides, compiled and kept on disk like a program."""
    lines = ['"""Functions that no model decides."""', ""]
    modules = sorted(_modules(functions))
    lines += [f"# {name} {hashlib.sha256(_source(name)).hexdigest()}" for name in modules]
    lines += ["", "from numba import njit"]
    for function in functions:
        name, nogil = function.py_func.__name__, bool(function.targetoptions.get("nogil"))
        names = ", ".join(function.py_func.__code__.co_varnames[: function.py_func.__code__.co_argcount])
        lines += [
            f"from {function.py_func.__module__} import {name} as _{name}",
            "",
            "",
            f"@njit(cache=True, nogil={nogil})",
            f"def {name}({names}):",
            f"    return _{name}({names})",
            "",
        ]
    return load_program("\n".join(lines), signatures)


def _modules(functions: Iterable[Any]) -> set[str]:
    """The modules of these functions and of all compiled ones that they may call."""
    found, ahead = set[str](), list(functions)
    while ahead:
        module = ahead.pop().py_func.__module__
        if module not in found:
            found.add(module)
            ahead += [value for value in vars(sys.modules[module]).values() if isinstance(value, Dispatcher)]
    return found


def _source(module: str) -> bytes:
    """A module's text: an edited one makes another program."""
    return Path(sys.modules[module].__file__ or "").read_bytes()


def _compiled(module: ModuleType, signatures: Signatures) -> ModuleType:
    for name, each in signatures.items():
        function = getattr(module, name)
        for signature in each:
            function.compile(signature)
        function.disable_compile()
    return module


def _module(text: str) -> ModuleType:
    key = program_key(text)
    file = cache_folder() / key / f"program_{key}.py"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(text)
        os.replace(temporary, file)
    elif file.read_text() != text:
        shutil.rmtree(file.parent)
        return _module(text)
    module_spec = importlib.util.spec_from_file_location(f"undertow_program_{key}", file)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module
    module_spec.loader.exec_module(module)
    return module
