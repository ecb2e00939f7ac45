"""The processor that programs are compiled for."""

import os

import llvmlite.binding as llvm


def processor() -> str:
    """Name and features, as LLVM writes them: the host's, or what NUMBA_CPU_NAME and NUMBA_CPU_FEATURES say instead."""
    features = os.environ.get("NUMBA_CPU_FEATURES") or llvm.get_host_cpu_features().flatten()
    return f"{os.environ.get('NUMBA_CPU_NAME') or llvm.get_host_cpu_name()} {features}"
