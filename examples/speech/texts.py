"""What is said in a prompt, letter for letter: lower case, numbers and signs as words, remarks left out."""

import re

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
LABELS = ("<blank>", *ALPHABET)

SIGNS = {"*": " star ", "#": " pound ", "@": " at ", "%": " percent "}
MENDED = {  # slips of the transcript, and names that are spelled out
    "fourtieth": "fortieth",
    "umute": "unmute",
    "represenatives": "representatives",
    "indentified": "identified",
    "witheld": "withheld",
    "exclaimation": "exclamation",
    "touchtone": "touch tone",
    "keypad": "key pad",
    "pbx": "p b x",
    "ivr": "i v r",
    "ip": "i p",
    "usb": "u s b",
    "iax": "i a x",
    "mgcp": "m g c p",
    "www.asterisk.org": "w w w dot asterisk dot org",
    "h.323": "h three two three",
    "a.m": "a m",
    "p.m": "p m",
    "3d": "three d",
    "28.8": "twenty eight point eight",
}
ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def said(transcript: str) -> str:
    """The words of a transcript in ALPHABET, single spaces between them; empty where nothing is said."""
    text = re.sub(r"\[.*?\]|\(.*?\)|<.*?>", " ", transcript.lower().replace("’", "'"))
    for sign, name in SIGNS.items():
        text = text.replace(sign, name)
    words = (re.sub(r"^[^\w]+|[^\w]+$", "", w) for w in text.replace("-", " ").replace("...", " ").split())
    mended = " ".join(MENDED.get(w, w) for w in words)
    numbered = re.sub(r"\d+", lambda n: f" {number(int(n[0]))} ", mended)
    return " ".join(re.sub(r"[^a-z' ]", " ", numbered).split())


def number(n: int) -> str:
    """0 to 999 in words; a larger one is read digit by digit."""
    if n > 999:
        return " ".join(ONES[int(digit)] for digit in str(n))
    if n < 20:
        return ONES[n]
    if n < 100:
        return TENS[n // 10 - 2] + (f" {ONES[n % 10]}" if n % 10 else "")
    return f"{ONES[n // 100]} hundred" + (f" {number(n % 100)}" if n % 100 else "")


def distance(a: list[str] | str, b: list[str] | str) -> int:
    """Levenshtein's: the fewest insertions, deletions and replacements that make `a` of `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


def near(a: str, b: str) -> bool:
    """Whether one is the other but for a few words: at least three of five words agree, or the shorter, of three words or more, is in the longer."""
    short, long = sorted((a.split(), b.split()), key=len)
    if len(short) >= 3 and f" {' '.join(short)} " in f" {' '.join(long)} ":
        return True
    return len(short) >= 0.6 * len(long) and distance(short, long) <= 0.4 * len(long)
