"""Text as what the networks read: `python examples/sentiment/words.py < sentences.txt > words.jsonl`, a stream for each line.

Each word is a few ids, hashes of the word itself and of the runs of letters in it, so there is no list of words to keep beside the
model, and a word that was never seen in training has its parts.
"""

import html
import json
import re
import sys
import zlib

import numpy as np

TABLE, MARKS = 8192, 12  # ids that marks are hashed to, 0 for none; and how many a word has
WORD = re.compile(r"[#@]?[a-z0-9]+(?:'[a-z]+)*|[:;=8x][-o^']?[()\[\]dpo/\\|*3]+|<3|\.\.+|[!?]+|[^\w\s]")


def main() -> None:
    for number, line in enumerate(sys.stdin):
        if words(line):
            print(json.dumps({"key": f"line-{number + 1}", "value": frames(line).tolist(), "end": True}))


def words(text: str) -> list[str]:
    """Lower-case words, smileys and marks of punctuation, in order."""
    text = html.unescape(text).replace("’", "'").replace("‘", "'").replace("''", '"')
    return WORD.findall(text.lower())


def marks(word: str) -> list[int]:
    """MARKS ids: of the word, then of its runs of three, four and five letters, its edges among them; zeros where there are fewer."""
    edged = f"<{word}>"
    parts = [edged, *(edged[i : i + n] for n in (3, 4, 5) for i in range(len(edged) - n + 1) if n < len(edged))]
    ids = [zlib.crc32(p.encode()) % (TABLE - 1) + 1 for p in parts[:MARKS]]
    return ids + [0] * (MARKS - len(ids))


def frames(text: str) -> np.ndarray:
    """int64 (words, MARKS)."""
    return np.array([marks(w) for w in words(text)], np.int64).reshape(-1, MARKS)


if __name__ == "__main__":
    main()
