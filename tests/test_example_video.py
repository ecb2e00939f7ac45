"""The video example: recordings are what their labels say, scoring counts as it should, and streams name what torch names."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "video"


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


def shot(clip="made", seed=0, frames=40):
    """A shot in which nothing stands still: a smooth pattern that drifts a little."""
    from camera import ROWS, Shot

    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:ROWS, :256] / 8.0
    phases, ways = random.uniform(0, 6, 4), random.normal(0, 1, (4, 2))
    seen = [
        sum(np.sin(w[0] * rows + w[1] * columns + p + t / 20) for p, w in zip(phases, ways, strict=True))
        for t in range(frames)
    ]
    return Shot(clip, np.clip(128 + 30 * np.stack(seen), 0, 255).astype(np.uint8))


def test_clips_are_decoded_frame_by_frame(tmp_path):
    """A video file gives all of its frames in order, grey, of the height that is kept and the width that its shape asks for."""
    import av
    from data import ROWS, decoded

    with av.open(tmp_path / "clip.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for level in range(20, 220, 10):
            frame = av.VideoFrame.from_ndarray(np.full((180, 320, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = decoded(tmp_path / "clip.mp4")
    assert frames.shape == (20, ROWS, 256)
    assert frames.dtype == np.uint8
    assert np.abs(frames.mean((1, 2)) - np.arange(20, 220, 10)).max() < 6


def test_no_clip_is_on_both_sides():
    """What is trained on and what is tested on are of different clips."""
    from data import CLIPS, TEST, TRAIN

    assert {clip for clip, _, _ in TRAIN}.isdisjoint({clip for clip, _, _ in TEST})
    assert {clip for clip, _, _ in TRAIN + TEST} == set(CLIPS)


def test_recordings_show_what_they_say():
    """A frozen frame is the one before it, no other frame is; a cut changes more than what is normal; the same seed gives the same."""
    from events import CUT, FREEZE, NORMAL, events_of, recording

    shots = [shot(seed=i) for i in range(2)]
    cuts, normal = [], []
    for seed in range(6):
        made = recording(shots, seed)
        changed = np.abs(np.diff(made.frames.astype(int), axis=0)).mean((1, 2))
        assert ((changed == 0) == (made.labels[1:] == FREEZE)).all()
        cuts += [changed[e.begin - 1] for e in events_of(made.labels) if e.label == CUT]
        normal += changed[(made.labels[1:] == NORMAL) & (made.labels[:-1] == NORMAL)].tolist()
    assert np.median(cuts) > 4 * np.median(normal)
    again = recording(shots, 5)
    assert (again.frames == made.frames).all()
    assert (again.labels == made.labels).all()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_events_are_the_runs_of_labels(labels):
    """Every frame that is not normal is in the one event that has its label, and no event touches one of the same label."""
    from events import NORMAL, events_of

    found = events_of(np.array(labels))
    covered = np.full(len(labels), NORMAL)
    for event in found:
        assert (covered[event.begin : event.end] == NORMAL).all()
        covered[event.begin : event.end] = event.label
    assert covered.tolist() == labels
    assert all(a.end < b.begin or a.label != b.label for a, b in pairwise(found))


def test_a_tally_counts_each_event_once():
    """An announcement in time is right and its delay is counted; a second one, one too late and one of another kind are wrong."""
    from events import CUT, NORMAL, PAN, ZOOM, Event
    from scoring import TOLERANCE, Announced, tallies

    events = [Event(CUT, 10, 14), Event(PAN, 30, 50), Event(ZOOM, 60, 70)]
    said = [(CUT, 12), (NORMAL, 16), (CUT, 17), (PAN, 33), (NORMAL, 40), (PAN, 44), (PAN, 64), (ZOOM, 70 + TOLERANCE)]
    counts = tallies([events], [[Announced(label, known) for label, known in said]])
    assert [(t.right, t.wrong, t.missed, t.delays) for t in (counts[CUT], counts[PAN], counts[ZOOM])] == [
        (1, 1, 0, [2]),
        (1, 2, 0, [3]),
        (0, 1, 1, []),
    ]
    assert (counts[CUT].precision, counts[CUT].recall, counts[ZOOM].f1) == (0.5, 1.0, 0.0)


def test_thresholds_name_what_is_plain():
    """The plain way names a freeze and a covered lens, and nothing in a picture of noise."""
    from baseline import Thresholds, labelled, measured
    from events import COVER, FREEZE, NORMAL

    random = np.random.default_rng(0)
    frames = np.clip(shot(frames=60).frames[:, :48, :64] + random.normal(0, 2, (60, 48, 64)), 0, 255).astype(np.uint8)
    frames[40:], frames[20:40] = frames[21:41].copy(), frames[20]
    labels = labelled(measured(frames), Thresholds())
    assert (labels[21:40] == FREEZE).all()
    assert (labels[41:] == NORMAL).all()
    covered = (10 + random.normal(0, 2, (30, 48, 64))).astype(np.uint8)
    assert (labelled(measured(covered), Thresholds())[1:] == COVER).all()


def test_training_lowers_the_loss():
    """After twelve epochs the scores of what the network was trained on are better than after one."""
    from events import recording
    from train import seen_of, train

    made = [recording([shot(seed=i) for i in range(2)], i, 200) for i in range(4)]
    labels = torch.from_numpy(np.stack([r.labels for r in made])).flatten()

    @torch.no_grad()
    def loss(model):
        scores, _ = model.name(seen_of(made), None)
        return float(torch.nn.functional.nll_loss(scores.flatten(0, 1), labels))

    assert loss(train(made, 12, 0)) < 0.8 * loss(train(made, 1, 0))


def test_streams_tell_what_torch_tells(tmp_path):
    """The shipped network's artifact gives torch's scores and events for streams that are stepped together, and so does its pipeline."""
    from events import LABELS, recording
    from model import CameraNet
    from run import TOLERANCE, lay_out
    from streaming import by_torch, scored, told, told_by_torch

    made = [recording([shot(seed=i) for i in range(2)], i, 130) for i in range(3)]
    model = CameraNet().eval()
    model.load_state_dict(torch.load(EXAMPLE / "weights.pt", weights_only=True))
    example = torch.from_numpy(np.stack([r.frames[:9] for r in made]))
    ut.export(model, example, tmp_path / "video.onnx", labels=LABELS, sample_rate_hz=25)
    theirs = by_torch(model, made)
    for a, b in zip(scored(tmp_path / "video.onnx", made), theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=TOLERANCE)
    announced, seconds = told(tmp_path / "video.onnx", made)
    assert announced == told_by_torch(theirs)
    assert len(seconds) == 130
    assert len(announced[0]) > 1

    lay_out(made, tmp_path)
    ut.run(tmp_path / "pipeline.toml")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    for one, r in zip(announced, made, strict=True):
        own = [(x["label"], x["step"]) for x in lines if x["stream"] == r.key and "label" in x]
        assert own == [(LABELS[a.label], a.known) for a in one]


def test_the_contact_sheet_is_a_picture(tmp_path):
    """The sheet shows every twelfth frame, in rows of ten, and holds more than paper and frames: the colours of what happened."""
    from events import Recording
    from picture import COLOURS, COLUMNS, EVERY, contact_sheet
    from PIL import Image
    from scoring import Announced

    labels = np.repeat([0, 3], 120)
    frames = np.full((240, 48, 64), 90, np.uint8)
    contact_sheet(Recording("camera", frames, labels), [Announced(0, 0), Announced(3, 123)], tmp_path / "sheet.png")
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    colours = {"#{:02x}{:02x}{:02x}".format(*c) for _, c in sheet.getcolors(1 << 20)}
    assert {COLOURS[0], COLOURS[3]} <= colours
    assert sheet.width > COLUMNS * 128
    assert 240 / EVERY / COLUMNS * 96 < sheet.height < 300
