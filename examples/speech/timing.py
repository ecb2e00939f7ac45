"""How long after the end of a word it appears in the partial results.

Where words end is known of speech that eSpeak NG says: the held-out texts, in voices of the kinds that training heard.
"""

import numpy as np
from data import RATE_HZ, Utterance, resampled
from espeak import spoken
from streaming import Partial
from synthesis import manner
from texts import distance


def said_again(texts: list[str], seed: int) -> list[Utterance]:
    """Each text by eSpeak NG, with half a second of silence behind it; those of which the ends of all words are known."""
    generator = np.random.default_rng(seed)
    found = []
    for i, text in enumerate(texts):
        samples, spans = spoken(text, manner(generator))
        if len(spans) == len(text.split()):
            narrow = np.concatenate([resampled(samples, 160, 441), np.zeros(RATE_HZ // 2, np.float32)])
            found.append(Utterance(f"said-{i:03d}", text, narrow, tuple(spans)))
    return found


def delays(utterance: Utterance, partials: list[Partial]) -> list[float]:
    """Seconds from the end of each word that is in the last partial, where it belongs, until it was there and stayed."""
    if not partials:
        return []
    last = partials[-1].text.split()
    found = []
    for there, here in matched(utterance.text.split(), last):
        appeared = partials[-1].at_s
        for partial in reversed(partials):
            words = partial.text.split()
            if len(words) <= here or words[here] != last[here]:
                break
            appeared = partial.at_s
        found.append(appeared - utterance.spans[there][1])
    return found


def matched(truth: list[str], heard: list[str]) -> list[tuple[int, int]]:
    """The places of the words that are the same in a cheapest alignment."""
    pairs = []
    i, j = len(truth), len(heard)
    costs = {(a, b): distance(truth[:a], heard[:b]) for a in range(i + 1) for b in range(j + 1)}
    while i and j:
        if truth[i - 1] == heard[j - 1] and costs[i, j] == costs[i - 1, j - 1]:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif costs[i, j] == costs[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
        elif costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]
