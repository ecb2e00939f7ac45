"""Runs every example: trains what is missing, streams, compares, and writes one page of it: `python examples/everything.py --out DIR`.

Then it looks at each one's pipelines: are the answers the same after kill -9 and from Kafka (see delivery.py)? `make examples` does all of
this. An example that fails does not keep the others from running; the exit code says so in the end.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from page import page, table
from rich.console import Console

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs" / "applications.md"
NAMES = ("textgen", "sentiment", "translation", "speech", "series", "music", "video")
MARKED = re.compile(r"(?<=<!-- table -->\n).*?(?=<!-- end -->)", re.DOTALL)
console = Console(stderr=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write; index.html is the page")
    options.add_argument(
        "--only", nargs="+", choices=NAMES, default=NAMES, help="these examples; the page has all that lie in DIR"
    )
    options.add_argument("--docs", action="store_true", help="puts the table into docs/applications.md, too")
    given = options.parse_args()
    out: Path = given.out.resolve()
    failed = [name for name in given.only if not ran(name, out / name)]
    found = {name: out / name / "result.json" for name in NAMES}
    results = {name: json.loads(file.read_text()) for name, file in found.items() if file.exists()}
    delivery = delivered([out / name for name in results], out / "delivery.json")
    (out / "index.html").write_text(page(results, delivery or {}, out))
    if given.docs and len(results) == len(NAMES) and not failed:
        DOCS.write_text(MARKED.sub(lambda _: table(results), DOCS.read_text()))
    console.print(f"wrote {out / 'index.html'}: {len(results)} of {len(NAMES)} examples")
    if failed or delivery is None:
        sys.exit(f"failed: {', '.join([*failed, *([] if delivery is not None else ['delivery'])])}")


def ran(name: str, folder: Path) -> bool:
    """One example, in a process of its own; what it says on stderr is shown as it comes."""
    console.rule(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").unlink(missing_ok=True)  # an earlier run's figures are not this one's
    begin = time.perf_counter()
    command = [sys.executable, str(HERE / name / "run.py"), "--out", str(folder)]
    with (folder / "run.log").open("w") as log:
        done = subprocess.run(command, stdout=log, check=False)
    console.print(
        f"{name}: {'done' if not done.returncode else f'ended with {done.returncode}'} after {time.perf_counter() - begin:.0f} s"
    )
    return not done.returncode


def delivered(folders: list[Path], file: Path) -> Mapping[str, Any] | None:
    console.rule("the same answers however they are delivered")
    command = [sys.executable, str(HERE / "delivery.py"), *map(str, folders), "--out", str(file)]
    return None if subprocess.run(command, check=False).returncode else json.loads(file.read_text())


if __name__ == "__main__":
    main()
