"""Figures as a Markdown table, as JSON, and in the page of the documentation that keeps them."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker import kafka_version
from lstm_model import WORDS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pairing import heading

PAGE = Path(__file__).resolve().parents[2] / "docs/kafka-benchmarks.md"


def options(about: str | None, name: str) -> argparse.ArgumentParser:
    """What every benchmark here takes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test in less than a minute; its figures say nothing"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="of the broker, which takes this one and the next; default: free ones"
    )
    parser.add_argument("--out", type=Path, default=Path("build/kafka") / name, help="where the JSON and plots go")
    parser.add_argument("--docs", action="store_true", help=f"also writes the table into {PAGE.name}")
    return parser


def conditions(command: str) -> dict[str, str]:
    return {
        "command": command,
        "machine": heading("numba", "numpy", "onnxruntime", "aiokafka"),
        "broker": f"Apache Kafka {kafka_version()}, one node, on the same machine, as are feeder and reader",
        "model": WORDS,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def command_line() -> str:
    """As it was typed, from the repository's root, without what only says where."""
    arguments, kept = sys.argv[1:], []
    while arguments:
        a = arguments.pop(0)
        if a in ("--port", "--out", "--others"):
            arguments.pop(0)
        elif a != "--docs":
            kept.append(a)
    return " ".join(["python", f"benchmarks/kafka/{Path(sys.argv[0]).name}", *kept])


def middle(values: Sequence[float], digits: int = 0) -> str:
    """`median (lowest..highest)`."""
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:,.{digits}f} ({low:,.{digits}f}..{high:,.{digits}f})"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def report(name: str, a: argparse.Namespace, how: str, body: str, figures: dict[str, Any]) -> None:
    """Prints all of it, keeps the JSON, and with --docs puts it into the page."""
    facts = conditions(command_line())
    text = f"`{facts['command']}`, {facts['date']}. {facts['machine']}. {facts['broker']}. Model: {facts['model']}.\n\n{how}\n\n{body}\n"
    print(text)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "figures.json").write_text(json.dumps({**facts, **figures}, indent=1, default=float) + "\n")
    if a.docs:
        into_page(name, text)


def into_page(name: str, text: str) -> None:
    """Replaces what stands between the page's markers of this benchmark. Raises SystemExit where it has none."""
    begin, end = f"<!-- {name}: written by the command -->", f"<!-- {name}: end -->"
    page = PAGE.read_text()
    if begin not in page or end not in page:
        raise SystemExit(f"{PAGE}: has no lines {begin!r} and {end!r} to write the table between")
    head, _, rest = page.partition(begin)
    PAGE.write_text(f"{head}{begin}\n\n{text}\n{end}{rest.partition(end)[2]}")


def installed(python: Path, *packages: str) -> str:
    """`name version` of packages in another environment, `absent` where they are not there."""
    code = (
        "import sys, json, importlib.metadata as m\nfound = {}\nfor p in sys.argv[1:]:\n"
        "    try: found[p] = m.version(p)\n    except m.PackageNotFoundError: found[p] = 'absent'\nprint(json.dumps(found))"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return ", ".join(f"{name} {found}" for name, found in json.loads(done.stdout).items())
