"""Puts an example's pipeline where its model and input are."""

import shutil
import tomllib
from pathlib import Path


def place(pipeline: Path, folder: Path) -> None:
    """Copies the pipeline's file into `folder`; what an earlier run of it left there, its store and its answers, goes."""
    document = tomllib.loads(pipeline.read_text())
    shutil.rmtree(folder / f"{document['name']}.state", ignore_errors=True)
    (folder / document["sink"]["path"]).unlink(missing_ok=True)
    shutil.copy(pipeline, folder)
