"""The translation example: near-copies stay on one side, Keras' weights become torch's, streams and pipelines say what torch says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut
from undertow.connectors.config import read_pipeline
from undertow.connectors.running import run

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "translation"
START, STOP, PIECES, ROOM = 2, 3, 30, 12


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


@pytest.fixture(scope="module")
def network():
    """A small translator with weights that make it say something."""
    from model import Translator

    torch.manual_seed(3)
    small = Translator(PIECES, width=12, hidden=16).eval()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(1.5)
    return small


@pytest.fixture(scope="module")
def artifact(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("translation") / "translation.onnx"
    example, labels = torch.randint(4, PIECES, (2, 8)), [f"▁{i}" for i in range(PIECES)]
    ut.export_seq2seq(
        network.encoder, network.decoder, example, path, max_memory=ROOM, start=START, stop=STOP, labels=labels
    )
    return path


def sources(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(4, PIECES, rng.integers(1, ROOM + 1)).tolist() for _ in range(count)]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Zapotec, Ocotlán", "Ocotlan Zapotec", True),  # the same words
        ("Delete the selected page?", "Delete selected pages", True),  # most trigrams
        (
            "Choose the file that is to be opened in a new tab",
            "A file that is to be opened in a new window",
            True,
        ),  # a run
        ("Western Xiangxi Miao", "Eastern Grebo", False),
        ("Add row", "Add a permission", False),
    ],
)
def test_near_copies_are_known(one, other, same):
    """What counts as nearly the same text, by each of the three rules, and what does not."""
    from near import near

    assert near(one, other) is near(other, one) is same


WORDS = st.lists(
    st.sampled_from(["page", "pages", "delete", "add", "the", "file", "Étape", "list"]), min_size=1, max_size=4
)
TEXTS = st.lists(WORDS.map(" ".join), min_size=2, max_size=25)


@given(TEXTS, TEXTS)
def test_no_near_copy_is_in_two_parts(english, french):
    """Whatever the pairs: none of one part is nearly the same as one of another, in either language, by the plain definition."""
    from data import Pair, split
    from near import near

    everything = [Pair(e, f, "message") for e, f in zip(english, french, strict=False)]
    parts = split(everything, tune=3, test=3)
    assert sorted(map(str, [*parts.train, *parts.tune, *parts.test])) == sorted(map(str, everything))
    for here, there in ((parts.train, parts.test), (parts.train, parts.tune), (parts.tune, parts.test)):
        for a in here:
            for b in there:
                assert not near(a.english, b.english)
                assert not near(a.french, b.french)


def test_pairs_are_cleaned():
    """Placeholders are numbered alike on both sides, punctuation is plain, and what is no text or has other placeholders is left out."""
    from data import Pair, cleaned

    assert cleaned("%(count)s of %(total)s “pages”", "Sur %(total)s : %(count)s « pages »") == Pair(
        '{1} of {2} "pages"', 'Sur {2} : {1} "pages"', "message"
    )
    assert cleaned("Northern\xa0Grebo", "Grebo septentrional", named=True) == Pair(
        "Northern Grebo", "Grebo septentrional", "name"
    )
    assert cleaned("Habu", "Habu", named=True) == Pair("Habu", "Habu", "unchanged")
    for english, french in (
        ("Wagtail", "Wagtail"),
        ("%s page", "page"),
        ("<b>a</b>", "b"),
        (":?.!", ":?.!"),
        ("a " * 60, "b"),
    ):
        assert cleaned(english, french) is None


def test_training_is_the_decoder_step_by_step(network):
    """The scores that training uses are those of one step after the other on each sentence alone, without padding."""
    rows = sources(5)
    source = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    target = torch.randint(4, PIECES, (5, 6))
    with torch.no_grad():
        given = network(source, torch.tensor([len(row) for row in rows]), target)
        for row, said, mine in zip(rows, target, given, strict=True):
            outs, _ = network.decoder.over(said[None], network.encoder(torch.tensor([row])))
            torch.testing.assert_close(outs["scores"][0], mine, atol=1e-5, rtol=0)


def test_a_training_step_lowers_the_loss():
    """The same batch a few times: its loss falls."""
    from model import Translator
    from train import learn

    torch.manual_seed(0)
    fresh = Translator(PIECES, width=12, hidden=16, dropout=0.0)
    optimiser = torch.optim.Adam(fresh.parameters(), lr=1e-2)
    source, target = torch.randint(4, PIECES, (8, 7)), torch.randint(4, PIECES, (8, 6))
    losses = [learn(fresh, optimiser, source, torch.full((8,), 7), target) for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]


def every_translation(network, source, max_steps):
    """(log-probability, tokens) of all that can be said in so many steps: the oracle of a beam that is wide enough."""
    encoded = network.encoder(torch.tensor([source]))
    done, live = [], [[]]
    for _ in range(max_steps):
        following = []
        for tokens in live:
            outs, _ = network.decoder.over(torch.tensor([[START, *tokens]]), encoded)
            logs = torch.log_softmax(outs["scores"][0].double(), -1)
            before = float(sum(logs[i, token] for i, token in enumerate(tokens)))
            for token in range(logs.shape[1]):
                (done if token == STOP else following).append([*tokens, token])
                if token == STOP:
                    done[-1] = (before + float(logs[-1, token]), [*tokens, token])
        live = following
    for tokens in live:
        outs, _ = network.decoder.over(torch.tensor([[START, *tokens[:-1]]]), encoded)
        logs = torch.log_softmax(outs["scores"][0].double(), -1)
        done.append((float(sum(logs[i, token] for i, token in enumerate(tokens))), tokens))
    return done


def test_a_wide_beam_finds_the_best_of_all():
    """A beam as wide as there are hypotheses finds what trying everything finds."""
    from model import Translator
    from search import beam_search, penalty

    torch.manual_seed(5)
    tiny = Translator(6, width=8, hidden=8).eval()
    with torch.no_grad():
        for source in ([4, 5], [5], [4, 4, 5]):
            score, best = max(
                (log / penalty(len(tokens), 0.7), tokens) for log, tokens in every_translation(tiny, source, 3)
            )
            found = beam_search(
                tiny.encoder,
                tiny.decoder,
                torch.tensor(source),
                start=START,
                stop=STOP,
                max_steps=3,
                beam=36,
                length_penalty=0.7,
            )
            assert found.tokens == best
            assert found.log_probability / penalty(len(best), 0.7) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("backend", ["numba", "ort"])
@pytest.mark.parametrize("beam", [2, 4])
def test_streams_say_what_torch_says(network, artifact, beam, backend):
    """Sixty sentences, many at once: the same pieces as torch's search on each alone, log-probabilities to 1e-4; no stream is left."""
    from search import beam_search
    from streaming import Asked, agreement, translations

    asked = Asked(START, STOP, 9, beam, 0.6)
    given, engine = sources(60), ut.Engine(artifact, backend=backend, max_streams=32)
    found = translations(engine, given, asked, 25)
    how = {"start": START, "stop": STOP, "max_steps": 9}
    torchs = [(network.encoder, network.decoder, torch.tensor(source)) for source in given]
    expected = [beam_search(*pair, beam=beam, length_penalty=0.6, **how) for pair in torchs]
    agreed = agreement(found, expected)
    assert agreed["different"] == []
    assert agreed["worst_log_probability_difference"] < 1e-4
    assert len({tuple(f.tokens) for f in found}) > 20
    assert len(engine) == 0


def test_pieces_come_as_they_are_said(network, artifact):
    """Greedy tokens that come step by step are torch's, and the steps count every one of them."""
    from search import beam_search
    from search import greedy as greedy_by_torch
    from streaming import Asked, greedy

    given = sources(30, seed=1)
    found, steps = greedy(ut.Engine(artifact, max_streams=16), given, Asked(START, STOP, 9, 1, 0.0), 16)
    for source, tokens in zip(given, found, strict=True):
        pair = (network.encoder, network.decoder, torch.tensor(source))
        expected = greedy_by_torch(*pair, start=START, stop=STOP, max_steps=9)
        assert tokens == expected.tokens == beam_search(*pair, start=START, stop=STOP, max_steps=9, beam=1).tokens
    assert sum(streams for streams, _ in steps) == sum(map(len, found))


def test_the_engine_says_where_it_looked(network, artifact):
    """Attention of a sentence whose translation is given: torch's, without the room that the sentence does not need; rows sum to 1."""
    from streaming import attention

    engine, given = ut.Engine(artifact, max_streams=4), [START, 7, 9, 4]
    for source in sources(10, seed=2):
        outs, _ = network.decoder.over(torch.tensor([given]), network.encoder(torch.tensor([source])))
        looked = attention(engine, source, given)
        np.testing.assert_allclose(looked, outs["attention"][0].detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(looked.sum(1), 1, atol=1e-5)


def test_the_pipeline_says_what_torch_says(network, artifact, tmp_path):
    """The example's own pipeline file, with sentences in and translations out: pieces and text of torch's search, each under its sentence."""
    from search import beam_search

    given = {f"sentence {i}": source for i, source in enumerate(sources(20, seed=3))}
    shutil.copy(artifact, tmp_path / "translation.onnx")
    shutil.copy(EXAMPLE / "pipeline.toml", tmp_path)
    records = [json.dumps({"key": key, "value": source, "end": True}) for key, source in given.items()]
    (tmp_path / "sentences.jsonl").write_text("\n".join(records) + "\n")
    run(read_pipeline(tmp_path / "pipeline.toml"))
    told = {
        line["stream"]: line for line in map(json.loads, (tmp_path / "translations.jsonl").read_text().splitlines())
    }
    assert list(told) == list(given)
    for key, source in given.items():
        found = beam_search(
            network.encoder,
            network.decoder,
            torch.tensor(source),
            start=START,
            stop=STOP,
            max_steps=64,
            beam=4,
            length_penalty=1.0,
        )
        assert told[key]["tokens"] == found.tokens
        assert told[key]["text"] == " ".join(str(token) for token in found.tokens if token != STOP)


def test_labels_are_what_pieces_say():
    """Text to pieces and back, learned from a few sentences; labels end to end say the same, a character never seen included."""
    from pieces import END, HOLDERS, SPACE, START, Pieces

    texts = ["Ajouter une page", "Page {1} sur {2}", "Supprimer la page", "Étape suivante : page {3}"] * 20
    pieces = Pieces.learned(texts, 60)
    for text in (*texts[:4], "une page supprimée", "page ß"):
        numbers = pieces.encode(text)
        written = "".join(pieces.labels[n] for n in numbers).replace(SPACE, " ")
        assert written == " " + pieces.decode(numbers)
        assert not {START, END} & set(numbers)
    assert all(pieces.decode(pieces.encode(text)) == text for text in texts[:4])
    assert set(HOLDERS) <= set(pieces.labels)
    assert Pieces(pieces.model).labels == pieces.labels


def test_a_draft_is_never_by_a_dictionary_that_saw_its_pair():
    """A word that one training pair alone has is not known to its own draft, but to that of a new sentence; words of others are."""
    from baseline import Dictionary
    from data import Pair
    from drafts import drafted

    names = ["alpha", "beta", "gamma", "delta", "kappa", "sigma"]
    trained = [Pair(f"page {name}", f"feuille {name}e", "message") for name in names]
    assert [e.draft for e in drafted(trained, folds=3)] == [f"feuille {name}" for name in names]
    assert [e.french for e in drafted(trained, folds=3)] == [pair.french for pair in trained]
    assert Dictionary.learned(trained).translate("page beta") == "feuille betae"


def test_a_record_has_the_sentence_and_its_draft():
    """The pipeline's line: pieces of the sentence, END, pieces of what the dictionary makes of it; the key is the sentence."""
    from baseline import Dictionary
    from drafts import Sources
    from pieces import END, Pieces
    from sentences import record

    pieces = Pieces.learned(["Add a page", "Ajouter une page", "Delete", "Supprimer"] * 20, 40)
    line = json.loads(record("Add page", Sources(pieces, Dictionary({"add": "ajouter"}))))
    assert line == {"key": "Add page", "value": line["value"], "end": True}
    at = line["value"].index(END)
    assert pieces.decode(line["value"][:at]) == "Add page"
    assert pieces.decode(line["value"][at + 1 :]) == "ajouter page"


def keras_gru(x, kernel, recurrent, biases):
    """(T, units): Keras' GRU with reset_after, as its documentation writes it, in NumPy."""
    h, states = np.zeros(len(recurrent)), []
    for row in x:
        given, kept = row @ kernel + biases[0], h @ recurrent + biases[1]
        z, r, _ = np.split(1 / (1 + np.exp(-(given + kept))), 3)
        candidate = np.tanh(np.split(given, 3)[2] + r * np.split(kept, 3)[2])
        h = z * h + (1 - z) * candidate
        states.append(h)
    return np.array(states)


def test_keras_weights_become_torch_modules(tmp_path):
    """A file like Netra's, with random weights: the modules give what Keras' formulas give in NumPy, letter by letter."""
    import h5py
    from netra import UNITS, NetraDecoder, NetraEncoder, take

    rng = np.random.default_rng(0)
    wide = 3 * UNITS
    shapes = {
        "embedding": [(28, 32)],
        "embedding_1": [(81, 32)],
        "additive_attention": [(UNITS,)],
        "time_distributed/layer": [(2 * UNITS, UNITS), (UNITS,)],
        "dense": [(2 * UNITS, 81), (81,)],
        **{
            name: [(32, wide), (UNITS, wide), (2, wide)]
            for name in ("bidirectional/forward_layer/cell", "bidirectional/backward_layer/cell", "gru/cell")
        },
    }
    w = {name: [rng.normal(0, 0.3, s).astype(np.float32) for s in each] for name, each in shapes.items()}
    encoder, decoder = NetraEncoder().eval(), NetraDecoder().eval()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for name, values in w.items():
            for i, value in enumerate(values):
                file[f"layers/{name}/vars/{i}"] = value
        take(encoder, decoder, file["layers"])

    letters, said = rng.integers(0, 28, 25), rng.integers(0, 81, 6)
    x = w["embedding"][0][letters]
    forward = keras_gru(x, *w["bidirectional/forward_layer/cell"])
    backward = keras_gru(x[::-1], *w["bidirectional/backward_layer/cell"])[::-1]
    memory = np.concatenate([forward, backward], 1) @ w["time_distributed/layer"][0] + w["time_distributed/layer"][1]
    states = keras_gru(w["embedding_1"][0][said], *w["gru/cell"])
    energy = (w["additive_attention"][0] * np.tanh(states[:, None] + memory[None])).sum(-1)
    attention = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
    scores = np.concatenate([states, attention @ memory], 1) @ w["dense"][0] + w["dense"][1]

    with torch.no_grad():
        outs, _ = decoder.over(torch.from_numpy(said)[None], encoder(torch.from_numpy(letters)[None]))
    np.testing.assert_allclose(outs[0], scores, atol=1e-4)


def test_baselines_answer_from_what_was_trained():
    """The memory gives the French of the nearest English, the dictionary its words; what neither knows stays as it is."""
    from baseline import Dictionary, TranslationMemory
    from data import Pair

    pairs = [
        Pair("Add page", "Ajouter page", "message"),
        Pair("Add file", "Ajouter fichier", "message"),
        Pair("Old file", "Ancien fichier", "message"),
    ]
    memory, words = TranslationMemory(pairs), Dictionary.learned(pairs)
    assert memory.translate("add a page") == "Ajouter page"
    assert memory.translate("zzz") == "zzz"
    assert words.translate("Add file xyz") == "ajouter fichier xyz"
