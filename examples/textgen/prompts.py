"""Prompts as what the model reads: `python examples/textgen/prompts.py < prompts.txt > prompts.jsonl`, a stream for each line.

The pieces are those that were learnt with the model; a prompt begins with the END that comes before every text.
"""

import json
import sys
from pathlib import Path

from pieces import END, Pieces


def main() -> None:
    pieces = Pieces.load(Path(__file__).resolve().parent / "pieces.json")
    for number, line in enumerate(sys.stdin):
        print(line_of(f"line-{number + 1}", line.rstrip("\n"), pieces))


def line_of(key: str, prompt: str, pieces: Pieces) -> str:
    """The record of one stream: its prompt, after which it ends."""
    return json.dumps({"key": key, "value": [END, *pieces.encode(prompt)], "end": True})


if __name__ == "__main__":
    main()
