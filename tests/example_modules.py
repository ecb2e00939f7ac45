"""Examples are folders of plain modules, several with the same names: a test file has those of one example."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


@contextmanager
def importable(example: Path) -> Iterator[None]:
    """The example's modules and those that the examples share can be imported, and are forgotten afterwards."""
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(example.parent))
    patch.syspath_prepend(str(example))
    yield
    patch.undo()
    for path in (*example.glob("*.py"), *example.parent.glob("*.py")):
        sys.modules.pop(path.stem, None)
