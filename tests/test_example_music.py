"""The music example: scores become rows as they are written, no tune is on both sides, and streams sing as torch does."""

import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "music"
NOTE = "<note><pitch><step>{}</step>{}<octave>{}</octave></pitch><duration>{}</duration>{}<voice>1</voice></note>"
REST = "<note><rest/><duration>{}</duration><voice>1</voice></note>"


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


def note(step: str, octave: int, quarters: float, alter: int = 0, tie: str = "") -> str:
    altered = f"<alter>{alter}</alter>" if alter else ""
    return NOTE.format(step, altered, octave, round(quarters * 8), f'<tie type="{tie}"/>' if tie else "")


def score(measures: dict[str, list[str]]) -> ElementTree.Element:
    """A score in 4/4 with a part for each name and its measures, 8 divisions to a quarter."""
    names = "".join(f'<score-part id="P{i}"><part-name>{n}</part-name></score-part>' for i, n in enumerate(measures))
    parts = ""
    for i, bars in enumerate(measures.values()):
        first = "<attributes><divisions>8</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
        body = "".join(f"<measure>{first if not j else ''}{bar}</measure>" for j, bar in enumerate(bars))
        parts += f'<part id="P{i}">{body}</part>'
    return ElementTree.fromstring(f"<score-partwise><part-list>{names}</part-list>{parts}</score-partwise>")


def melody(pitches, lengths=None):
    """A voice as tokens: each pitch for so many rows, 0 is a rest."""
    from data import REST, token_of

    row = []
    for pitch, length in zip(pitches, lengths or [4] * len(pitches), strict=True):
        first = token_of(pitch) if pitch else REST
        row += [first] + [first + bool(pitch)] * (length - 1)
    return np.array(row)


def made_up(seed, bars=4, name="made"):
    """A chorale of a soprano that walks at random, and the three others below it in its rhythm."""
    from data import Chorale

    random = np.random.default_rng(seed)
    soprano = 69 + np.cumsum(random.integers(-2, 3, 4 * bars)) % 9
    return Chorale(f"{name}-{seed}", np.stack([melody((soprano - down).tolist()) for down in (0, 7, 12, 21)], 1), 16)


def test_a_score_becomes_rows(tmp_path):
    """Rows are sixteenth notes: upbeats end a bar, tied notes are one, repeated ones two, grace notes and other parts are left out."""
    from data import begins, chorale, pitches
    from data import score as read

    upbeat, bar = note("G", 4, 1), note("A", 4, 1, tie="start") + note("A", 4, 0.5, tie="stop") + note("A", 4, 2.5)
    grace = "<note><grace/><pitch><step>C</step><octave>4</octave></pitch><voice>1</voice></note>"
    low = [note("E", 3, 1), note("F", 3, 3, alter=1) + REST.format(8)]
    parts = {
        "Violin": [REST.format(8), REST.format(32)],
        "Soprano": [upbeat, grace + bar],
        "Alto": low,
        "Tenor": low,
        "Bass": low,
    }
    with zipfile.ZipFile(tmp_path / "x.mxl", "w") as archive:
        archive.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="x.xml"/></rootfiles></container>'
        )
        archive.writestr("x.xml", ElementTree.tostring(score(parts)))
    found = chorale("x", read(tmp_path / "x.mxl"))
    assert (found.name, found.bar, found.rows.shape) == ("x", 16, (32, 4))
    assert pitches(found.rows[:, 0]).tolist() == [0] * 12 + [67] * 4 + [69] * 16
    assert np.flatnonzero(begins(found.rows)[:, 0]).tolist() == [12, 16, 22]
    assert pitches(found.rows[:, 3]).tolist() == [0] * 12 + [52] * 4 + [54] * 12 + [0] * 4
    assert chorale("y", score(dict.fromkeys(("Soprano", "Alto", "Tenor"), low))) is None


def test_bars_of_the_orchestra_are_left_out():
    """A bar in which all voices rest goes, and so do rests after the last note; a rest of some voices stays."""
    from data import REST, sung

    rows = np.full((80, 4), REST)
    rows[4:16, 0], rows[40:44], rows[48:50, 1] = 70, 60, 50
    kept = sung(rows, 16)
    assert len(kept) == 16 + 16 + 2
    assert (kept[4:16, 0] == 70).all()
    assert (kept[24:28] == 60).all()
    assert kept[32:, 1].tolist() == [50, 50]


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(0, 40))
def test_what_the_network_reads_can_be_read_back(seed, bars, cut):
    """Staggered rows give the rows back, and of a part of them the soprano's part, the others at least as far as they are known."""
    from data import BEGIN, DELAY, END, aligned, pitches, scored, staggered

    rows = made_up(seed, bars).rows
    made = staggered(rows)
    assert (aligned(made) == rows).all()
    assert (scored(made).sum(0) == len(rows) + 1).all()
    assert not np.isin(made[1:][scored(made)], [BEGIN]).any()
    part = aligned(made[: len(made) - cut][: max(len(made) - cut, 6)])
    known = len(part) - DELAY
    for v in range(4):
        assert (part[: known[v], v] == rows[: known[v], v]).all()
        assert (pitches(part[known[v] :, v]) == pitches(part[known[v] - 1, v])).all()
    assert END not in part


def test_keys_stay_within_what_voices_sing():
    """A chorale moves as far as every voice stays in its range, by an octave in all; moved back it is what it was."""
    from data import pitches, ranges, room, transposed

    one = made_up(3)
    within = ranges([one]) + np.array([[-2, 1], [-9, 9], [-9, 9], [-9, 9]])
    assert room(one.rows, within) == range(-2, 2)
    assert room(one.rows, ranges([one]) + np.array([-20, 20])) == range(-6, 6)
    up = transposed(one.rows, 3)
    assert (pitches(up) - pitches(one.rows) == 3).all()
    assert (transposed(up, -3) == one.rows).all()


def test_no_tune_is_on_both_sides():
    """Chorales with the same melody, in another key too, are on one side; every chorale is on one, and the same each time."""
    from data import Chorale, split, transposed

    different = [made_up(seed, 6) for seed in range(60)]
    again = [Chorale(f"{c.name}-again", transposed(c.rows, 2), 16) for c in different[::3]]
    sides = split([*different, *again])
    where = {c.name: side for side, chosen in enumerate(sides) for c in chosen}
    assert len(where) == 80
    assert all(where[c.name] == where[c.name.removesuffix("-again")] for c in again)
    assert all(len(side) >= 4 for side in sides)
    assert [[c.name for c in s] for s in split([*different, *again])] == [[c.name for c in s] for s in sides]


def test_chances_of_n_grams_sum_to_one():
    """In any context the chances of all tokens sum to one, and what was trained on is likelier than what was not."""
    from data import TOKENS, VOICES
    from ngram import NGram, harmonic, melodic

    train_set = [made_up(seed) for seed in range(6)]
    for contexts in (melodic, harmonic):
        model = NGram(train_set, contexts)
        rows = np.repeat(train_set[0].rows[None, :9], TOKENS, 0)
        for v in range(len(VOICES)):
            rows[:, -1, v] = np.arange(TOKENS)
            chances = sum(np.exp(-model.nats(one)[8, v]) for one in rows)
            assert chances == pytest.approx(1, abs=1e-9)
            rows[:, -1, v] = train_set[0].rows[8, v]
        assert model.nats(train_set[0].rows).mean() < model.nats(made_up(99).rows).mean()


def test_midi_has_the_notes(tmp_path):
    """A MIDI file has a track for each voice with its notes at their times; one that is struck again ends before."""
    import mido
    from sounding import TICKS, write_midi

    rows = np.stack([melody([72, 72, 0, 74]), melody([60], [16]), melody([0, 55], [8, 8]), melody([40, 41], [8, 8])], 1)
    write_midi(rows, tmp_path / "x.mid")
    file = mido.MidiFile(tmp_path / "x.mid")
    assert [track.name for track in file.tracks] == ["soprano", "alto", "tenor", "bass"]
    found = []
    for track in file.tracks:
        now, notes = 0, []
        for message in track:
            now += message.time
            if message.type in ("note_on", "note_off"):
                notes.append((now / TICKS, message.type == "note_on", message.note))
        found.append(notes)
    assert found[0] == [(0, True, 72), (1, False, 72), (1, True, 72), (2, False, 72), (3, True, 74), (4, False, 74)]
    assert found[2] == [(2, True, 55), (4, False, 55)]
    assert file.length == pytest.approx(4 * 60 / 80)


def test_training_lowers_the_loss():
    """After six epochs the network knows what it trains on better than after one."""
    from train import loss_of, train

    chosen = [made_up(seed) for seed in range(12)]
    rows = [c.rows for c in chosen]
    assert loss_of(train(chosen, chosen[:2], 6, 0), rows) < 0.9 * loss_of(train(chosen, chosen[:2], 1, 0), rows)


def test_streams_sing_what_torch_sings(tmp_path):
    """The artifact gives torch's logits for streams that are stepped together; what it generates is as likely to torch, the same alone, and
    the same from the example's pipeline."""
    from data import VOICES, staggered
    from model import ChoraleNet
    from run import GIVEN, HOW, MOST_ROWS, TOLERANCE, lay_out
    from streaming import streamed, told, whole

    torch.manual_seed(0)
    model = ChoraleNet(8, 24).eval()
    chorales = [made_up(seed, 5 + seed) for seed in range(3)]
    made = [staggered(c.rows) for c in chorales]
    example = torch.from_numpy(np.stack([rows[:9] for rows in made]))
    ut.export(model, tuple(example.unbind(-1)), tmp_path / "music.onnx")
    engine = ut.Engine(tmp_path / "music.onnx", max_streams=8)
    assert [t.name for t in engine.spec.inputs] == list(VOICES)
    ours, _ = streamed(engine, made)
    for y, rows in zip(ours, made, strict=True):
        np.testing.assert_allclose(y, whole(model, rows), atol=TOLERANCE)
    keys, prompts = [c.name for c in chorales], [rows[: 1 + GIVEN * 16] for rows in made]
    together = engine.generate(keys, prompts, MOST_ROWS, **HOW)
    for key, rows in zip(keys, prompts, strict=True):
        tokens = together[key].tokens
        assert tokens.shape[1] == 4
        assert together[key].log_probability == pytest.approx(told(model, rows, tokens), abs=TOLERANCE * len(tokens))
    engine.drop(keys[1])
    alone = engine.generate(keys[1:2], prompts[1:2], MOST_ROWS, **HOW)[keys[1]]
    assert (alone.tokens == together[keys[1]].tokens).all()

    lay_out(chorales, tmp_path)
    ut.run(tmp_path / "pipeline.toml")
    lines = [json.loads(line) for line in (tmp_path / "continued.jsonl").read_text().splitlines()]
    assert {x["stream"]: x["tokens"] for x in lines} == {key: together[key].tokens.tolist() for key in keys}
    assert {x["finished"] for x in lines} == {g.finished for g in together.values()}
