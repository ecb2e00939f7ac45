"""English sentences to the records of the pipeline: `python examples/translation/sentences.py < sentences.txt > DIR/sentences.jsonl`.

A line of JSON a sentence: the stream's key is the sentence itself, its frames are its pieces and those of its draft.
"""

import json
import sys

from data import plain
from drafts import Sources
from train import load


def record(english: str, sources: Sources) -> str:
    return json.dumps({"key": english, "value": sources.encode(english), "end": True}, ensure_ascii=False)


if __name__ == "__main__":
    learned = load()[1]
    for line in sys.stdin:
        if sentence := plain(line):
            print(record(sentence, learned))
