"""The speech example: what is said in a transcript, the split, the language model, training's two losses, streams that say what torch says."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "speech"


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


def utterances(*texts: str):
    from data import Utterance

    generator = np.random.default_rng(5)
    return [
        Utterance(f"u{i}", text, generator.normal(0, 0.1, 1600 + 400 * len(text)).astype(np.float32))
        for i, text in enumerate(texts)
    ]


@pytest.mark.parametrize(
    ("transcript", "words"),
    [
        ("Please press 1, or 22 for Q.", "please press one or twenty two for q"),
        ("You can dial 500 ...", "you can dial five hundred"),
        ("Press * to toggle pause, press # to exit", "press star to toggle pause press pound to exit"),
        ("[sound of monkeys screaming]", ""),
        ("(10 seconds of silence)", ""),
        ('IAX (note: does not say "2")', "i a x"),
        ("at [@]", "at"),
        ("extension 1234: don't re-enter A.M.", "extension one two three four don't re enter a m"),
    ],
)
def test_said(transcript, words):
    """Numbers and signs become words, remarks go, and nothing is left that has no label."""
    from texts import ALPHABET, said

    assert said(transcript) == words
    assert set(words) <= set(ALPHABET)


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_distance(a, b):
    """The edit distance is that of its plain recursion."""
    from texts import distance

    def plain(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(plain(i - 1, j) + 1, plain(i, j - 1) + 1, plain(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    short = a[:5], b[:5]
    a, b = short
    assert distance(a, b) == plain(len(a), len(b))


@given(
    st.lists(
        st.lists(st.sampled_from(["one", "two", "three", "press", "now", "key", "to"]), min_size=1, max_size=6),
        max_size=25,
    )
)
def test_no_near_copy_crosses_the_split(texts):
    """Whatever the prompts are: each is on one side and held out once at most, no held-out text is near to one of training, and one and two words
    are held out only with a longer text that they are near to."""
    from data import split
    from texts import near

    everything = utterances(*(" ".join(words) for words in texts))
    for fold in range(5):
        training, test = split(everything, fold)
        assert len(training) + len(test) == len(everything)
        assert not [(a.text, b.text) for a in test for b in training if near(a.text, b.text)]
    held = [u.text for fold in range(5) for u in split(everything, fold)[1]]
    keys = [u.key for fold in range(5) for u in split(everything, fold)[1]]
    assert len(keys) == len(set(keys))
    assert not [
        text
        for text in held
        if len(text.split()) < 3 and not any(near(text, other) for other in held if len(other.split()) >= 3)
    ]


def test_near():
    """What counts as a near-copy, and what does not."""
    from texts import near

    assert near("the conference is now muted", "the conference is now unmuted")
    assert near("please try again", "that option is invalid please try again")
    assert not near("press", "press one for help")
    assert not near("press one to call this number", "your temporary greeting has been removed")


def test_synthetic_texts_keep_away_from_held_out_ones():
    """Sentences that are made of the training texts are never near to a held-out one, and none is empty."""
    from synthesis import sentences
    from texts import near

    training = ["press one to send this message", "press two to hear this message", "the call has been sent"]
    held_out = ["press two to send this message"]
    made = list(sentences(90, training, held_out, np.random.default_rng(0), ["a stitch in time saves nine"]))
    assert len(made) == 90
    assert all(made)
    assert not [text for text in made if near(text, held_out[0])]


def test_language_model(tmp_path):
    """The n-gram file holds probabilities: after any history they sum to one over all words, by the rule of backing off that readers use."""
    from ngram import counted, smoothed, write_arpa

    texts = ["press one now", "press two now", "you have one new message", "one one one"]
    path = tmp_path / "words.arpa"
    count = write_arpa(texts, path)
    lines = [line.split("\t") for line in path.read_text().splitlines() if "\t" in line]
    logs = {tuple(fields[1].split()): float(fields[0]) for fields in lines}
    weights = {tuple(fields[1].split()): float(fields[2]) for fields in lines if len(fields) == 3}
    assert len(logs) == count

    def log10(history: tuple[str, ...], word: str) -> float:
        if (*history, word) in logs:
            return logs[*history, word]
        return weights.get(history, 0.0) + log10(history[1:], word)

    words = {gram[0] for gram in logs if len(gram) == 1}
    for history in [(), ("<s>",), ("<s>", "press"), ("one",), ("never", "one"), ("two", "one"), ("one", "one")]:
        assert sum(10 ** log10(history, word) for word in words) == pytest.approx(1, abs=1e-3)
    probabilities, _ = smoothed(counted(texts, 3))
    assert 10 ** logs["<s>", "press"] == pytest.approx(probabilities["<s>", "press"], rel=1e-4)
    assert probabilities["<s>", "press"] == pytest.approx(2 / 7 + 3 / 7 * probabilities["press",])


def test_resampling_keeps_a_tone():
    """A tone in the band of both rates is the same tone at the other."""
    from data import resampled

    tone = np.sin(2 * np.pi * 440 * np.arange(11_025) / 22_050).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)
    found = resampled(tone, 160, 441)
    assert len(found) == 4000
    assert np.abs(found - expected)[500:-500].max() < 1e-3


def test_labels_are_placed_where_words_are():
    """A word's letters lie in its time, in order, behind a space, some outputs late; between words there are blanks."""
    from batches import LATE, placed
    from data import Utterance
    from texts import LABELS

    utterance = Utterance("u", "hi no", np.zeros(16_000, np.float32), ((0.32, 0.64), (0.96, 1.28)))
    spelled = "".join("-" if k == 0 else LABELS[k] for k in placed(utterance, 62))
    assert spelled.strip("-").startswith(" ")
    assert spelled[: 10 + LATE] == "-" * (10 + LATE)
    assert "".join(c for i, c in enumerate(spelled) if c != "-" and (i == 0 or c != spelled[i - 1])) == " hi no"


def test_training_lowers_both_losses():
    """A few steps on labels with places, and then with CTC, make each loss smaller."""
    from batches import placed_batches, varied_batches
    from data import Utterance
    from model import Recogniser
    from train import ctc_loss, fit_scale, learn, placed_loss

    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    chosen = [
        Utterance(u.key, u.text, u.samples, ((0.0, 0.1), (0.1, 0.2))) for u in utterances("a b", "b c", "c a", "a a")
    ]
    model = Recogniser(hidden=24, channels=16, dropout=0.0)
    fit_scale(model, chosen)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    placed = [
        learn(model, optimiser, placed_loss(model, *batch))
        for _ in range(12)
        for batch in placed_batches(chosen, generator)
    ]
    assert np.mean(placed[-3:]) < 0.8 * placed[0]
    free = [
        learn(model, optimiser, ctc_loss(model, *batch, generator))
        for _ in range(12)
        for batch in varied_batches([[u] for u in chosen], generator)
    ]
    assert np.mean(free[-3:]) < np.mean(free[:3])


def test_delays_are_measured_where_words_stay():
    """A word counts from when it was there and stayed; one that was not said, or not heard, does not count."""
    from data import Utterance
    from timing import Partial, delays

    said = Utterance("u", "press one now", np.zeros(1, np.float32), ((0.0, 0.5), (0.5, 0.8), (0.8, 1.2)))
    partials = [
        Partial(t, text)
        for t, text in ((0.4, "pre"), (0.7, "press"), (0.9, "press on"), (1.0, "press one"), (1.4, "press one no"))
    ]
    assert delays(said, partials) == pytest.approx([0.2, 0.2])
    assert delays(said, []) == []


def test_streamed_as_torch(tmp_path):
    """The exported recogniser, fed several streams at a time, gives torch's outputs of the whole recordings, and the text that they spell."""
    from model import STEP, Recogniser, outputs_of, padded
    from scoring import greedy
    from streaming import outputs, words
    from texts import LABELS

    torch.manual_seed(1)
    model = Recogniser(mels=2, channels=8, hidden=12, step=8).eval()
    model.head.weight.data *= 40  # so that it says something
    ut.export(model, torch.zeros(2, 128), tmp_path / "speech.onnx", labels=LABELS, sample_rate_hz=8000)
    streams = {u.key: padded(u.samples) for u in utterances("a", "press one", "to the end")}
    found = outputs(ut.Engine(tmp_path / "speech.onnx"), streams)
    decode = {"type": "ctc", "scores": "log-probabilities", "blank": "<blank>", "max_tokens": 4096}
    heard, speed = words(ut.Engine(tmp_path / "speech.onnx", decode=decode), streams)
    assert (speed.streams, speed.steps) == (3, sum(len(x) // STEP for x in streams.values()))
    for key, samples in streams.items():
        whole = outputs_of(model, samples)
        np.testing.assert_allclose(found[key], whole, atol=1e-5)
        assert heard[key].text == greedy(whole)
        assert [w["word"] for w in heard[key].words] == heard[key].text.split()
    assert any(heard[key].text for key in streams)


def test_what_the_language_model_is_made_of(monkeypatch):
    """Of the lines of fortunes none is near to a held-out text; the training prompts count four times."""
    import ngram

    monkeypatch.setattr(ngram, "lines", lambda: ["press two to hear this message", "a stitch in time saves nine"])
    training, test = utterances("you have new mail"), utterances("press one to hear this message")
    assert ngram.language(training, test) == ["you have new mail"] * 4 + ["a stitch in time saves nine"]


def test_recordings_are_the_samples(tmp_path):
    """WAV files hold the samples of 16 bits exactly, and what is beyond is the largest, not the other sign."""
    import soundfile
    from data import Utterance, record

    samples = np.float32([-1.0, -0.5, 1 / 32768, 32767 / 32768, 1.0])
    record([Utterance("a", "", samples)], tmp_path / "recordings")
    found, rate = soundfile.read(tmp_path / "recordings" / "a.wav", dtype="int16")
    assert (found.tolist(), rate) == ([-32768, -16384, 1, 32767, 32767], 8000)


def test_raw_sound_is_heard_as_it_comes(tmp_path):
    """Raw 16-bit samples, a step at a time and with an odd byte at their end, are the same stream as the samples at once."""
    from listen import heard

    class Loudness(torch.nn.Module):
        def forward(self, samples):
            return torch.stack([0.1 - samples, samples], -1)

    ut.export(Loudness(), torch.zeros(2, 8), tmp_path / "loud.onnx", labels=["<blank>", "a"], sample_rate_hz=8000)
    sound = np.repeat(np.array([0, 9000, 0, 9000, 0], "<i2"), 150)
    engine = ut.Engine(tmp_path / "loud.onnx", decode={"type": "ctc", "partials": False})
    events = list(heard(engine, io.BytesIO(sound.tobytes() + b"x")))
    assert [(e["text"], e["final"], len(e["words"])) for e in events] == [("aa", True, 1)]
    assert events[0]["words"][0]["begin_s"] == pytest.approx(150 / 8000)
    assert "sound" not in engine


class Loud(torch.nn.Module):
    """Of every 256 samples how loud they are: a voice detector, or the scores of one letter."""

    def __init__(self, blank: bool):
        super().__init__()
        self.blank = blank

    def forward(self, samples):
        loud = 2 * torch.nn.functional.avg_pool1d(samples.abs()[:, None], 256)[:, 0, :, None]
        return torch.log_softmax(torch.cat([20 - 40 * loud, loud], -1), -1) if self.blank else loud


def test_behind_the_gate_each_stretch_is_heard_by_itself(tmp_path):
    """The chain of gated.toml hears in calls what a recogniser hears in each stretch that the plain rule cuts out, and less than all passes."""
    from calls import behind_the_gate, calls, stretches
    from data import Utterance
    from ngram import write_arpa

    for name, model, labels in (("voice", Loud(False), None), ("speech", Loud(True), ["<blank>", "a"])):
        ut.export(model, torch.zeros(2, 1024), tmp_path / f"{name}.onnx", labels=labels, sample_rate_hz=8000)
    write_arpa(["a a"], tmp_path / "words.arpa")
    (tmp_path / "words.txt").write_text("a\n")
    for pipeline in ("gated.toml", "pipeline.toml"):
        shutil.copy(EXAMPLE / pipeline, tmp_path)
    said = [Utterance(f"u{i}", "a", np.full(6000, 0.7, np.float32)) for i in range(4)]
    told = behind_the_gate(tmp_path, calls(said, 2, seed=0))
    assert (told["calls"], told["word error rate, gated"], told["word error rate, not gated"]) == (2, 0, 0)
    assert 0.2 < told["share of the samples that passed"] < 0.9

    gate = {"on": 0.5, "off": 0.35, "min_off": 2, "before": 200}
    assert stretches(np.array([0.6, 0.1, 0.2, 0.9, 0.4, 0.3, 0.4, 0.1, 0.2, 0.1, 0.7]), gate) == [
        (0, 3 * 256),
        (3 * 256, 9 * 256),
        (10 * 256 - 200, 11 * 256),
    ]


def test_rates():
    """Errors by length, of all texts together; the interval holds the rate; the best labels spell without blanks and repetitions."""
    from scoring import greedy, score
    from texts import LABELS

    found = score(["press one now", "yes"], ["press two", "yes"])
    assert found.words == pytest.approx(2 / 4)
    assert found.characters == pytest.approx(6 / 16)
    assert found.between[0] <= found.words <= found.between[1]
    spelled = [LABELS.index(c) if c != "-" else 0 for c in "-aa-ab--  b-"]
    assert greedy(np.eye(len(LABELS))[spelled]) == "aab b"
