"""Examples are folders of plain modules, several with the same names: a test file has those of one example."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


@contextmanager
def importable(example: Path, modules: Sequence[str]) -> Iterator[None]:
    """The example's folder is on the path, and these modules are forgotten afterwards."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(example.parent))
    patch.syspath_prepend(str(example))
    yield
    patch.undo()
    for name in modules:
        sys.modules.pop(name, None)
