"""The activity example and the demo: an honest split, torch's own results from the stream, a page that stands alone."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import undertow as ut
from undertow.cli_demo import demo_command
from undertow.demo import Answers, compare, excerpt, read_bundle
from undertow.report import Portrait, Report, render

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "activity"


@pytest.fixture
def example():
    with importable(EXAMPLE):
        yield


@pytest.fixture
def few(tmp_path):
    """A demo folder with three recordings of two seconds."""
    folder = tmp_path / "few"
    shutil.copytree(excerpt(), folder)
    truth = dict(list(json.loads((folder / "truth.json").read_text()).items())[:3])
    (folder / "truth.json").write_text(json.dumps(truth))
    with np.load(folder / "torch.npz") as archive:
        expected = {key: archive[key][:100] for key in truth}
    np.savez(folder / "torch.npz", **expected)
    for path in (folder / "recordings").iterdir():
        if path.stem in truth:
            np.save(path, np.load(path)[:100])
        else:
            path.unlink()
    return folder


def test_no_person_is_in_training_and_in_test(example):
    """The accuracy is about people whom the model has never seen; every recording is used once."""
    from data import recordings, split

    everything, labels = recordings()
    train, test = split(everything)
    assert not {r.person for r in train} & {r.person for r in test}
    assert sorted(r.key for r in (*train, *test)) == sorted({r.key for r in everything})
    assert {r.label for r in test} == {r.label for r in train} == set(range(len(labels)))


def test_the_data_set_runs_no_code(example):
    """A pickle that names anything but arrays is refused, and nothing of it is called."""
    import io
    import pickle

    from data import ArraysOnly

    with pytest.raises(pickle.UnpicklingError, match=r"builtins\.print"):
        ArraysOnly(io.BytesIO(pickle.dumps({"X": print}))).load()


def test_training_carries_the_state_across_windows(example):
    """Window after window with the state handed on gives what the whole sequence gives."""
    torch = pytest.importorskip("torch")
    from model import ActivityNet

    model = ActivityNet().eval()
    model.load_state_dict(torch.load(EXAMPLE / "weights.pt", weights_only=True))
    frames = torch.randn(2, 150, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, state = model.carry(frames[:, :64], None)
        second, _ = model.carry(frames[:, 64:], state)
        torch.testing.assert_close(torch.cat([first, second], 1), model(frames), atol=1e-5, rtol=0)


def test_the_excerpt_is_of_the_weights(example):
    """The shipped answers of torch are those of the shipped weights on the shipped recordings."""
    torch = pytest.importorskip("torch")
    from model import ActivityNet

    model = ActivityNet().eval()
    model.load_state_dict(torch.load(EXAMPLE / "weights.pt", weights_only=True))
    bundle = read_bundle(excerpt())
    for key, frames in bundle.frames.items():
        with torch.no_grad():
            got = model(torch.from_numpy(frames)[None])[0].numpy()
        np.testing.assert_allclose(got, bundle.expected[key], atol=1e-4)


def test_steps_give_what_torch_gave(few):
    """Frame by frame through the engine = torch on the whole recording, and so is the accuracy."""
    bundle = read_bundle(few)
    engine = ut.Engine(bundle.artifact)
    outputs = {
        key: np.concatenate([engine.push(key, f[None]) for f in frames]) for key, frames in bundle.frames.items()
    }
    found = compare(bundle, Answers.of(outputs))
    assert found.worst_difference < 1e-4
    assert (found.accuracy, found.disagreements) == (found.torch_accuracy, 0)


def test_a_missing_output_is_named(few):
    """A run that lost an output is an error that names the stream, not a slightly lower accuracy."""
    bundle = read_bundle(few)
    answers = Answers.of(bundle.expected)
    key = next(iter(bundle.expected))
    answers.label[key][-1] = -1
    with pytest.raises(ut.UndertowError, match=re.escape(key)):
        compare(bundle, answers)


def test_demo_command(few, tmp_path):
    """The recordings run as live streams, equal torch, and figures and the page are written."""
    out = tmp_path / "out"
    done = CliRunner().invoke(demo_command, [str(few), "--out", str(out), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert (figures["streams"], figures["frames"], figures["disagreements"]) == (3, 300, 0)
    assert figures["accuracy"] == figures["torch_accuracy"]
    assert figures["worst_difference"] < 1e-4
    assert_stands_alone((out / "report.html").read_text())


def test_demo_command_without_a_bundle_in_the_folder(tmp_path):
    """A folder that holds no demo is an error that says what is missing and how to make one."""
    with pytest.raises(ut.UndertowError, match=r"activity\.onnx.*export\.py"):
        CliRunner().invoke(demo_command, [str(tmp_path)], catch_exceptions=False)


def test_report_escapes_and_stands_alone():
    """Names from data cannot become markup, and the page asks nothing of the network."""
    rng = np.random.default_rng(0)
    evil = "<script>alert(1)</script>"
    scores = rng.dirichlet(np.ones(3), 40)
    portrait = Portrait(
        evil,
        rng.normal(size=(40, 2)),
        (evil, "b"),
        ((evil, evil, (0, 1)),),
        scores,
        {evil: rng.normal(size=(40, 5))},
        1,
        50.0,
    )
    page = render(
        Report(evil, evil, [(evil, "1", evil)], [(evil, evil)], (evil, "y", "z"), np.eye(3, dtype=int), portrait, evil)
    )
    assert "<script" not in page
    assert_stands_alone(page)


class _Links(HTMLParser):
    """Collects what a page refers to, and its headings and images without a name."""

    def __init__(self):
        super().__init__()
        self.references: list[str] = []
        self.nameless: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.references += [v for k, v in attrs if k in ("src", "href", "action", "data", "xlink:href") and v]
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.references.append(tag)
        if tag == "svg" and not found.get("aria-label"):
            self.nameless.append(tag)


def assert_stands_alone(page: str) -> None:
    links = _Links()
    links.feed(page)
    assert [r for r in links.references if not r.startswith("data:image/png;base64,")] == []
    assert "http" not in page
    assert "url(" not in page
    assert links.nameless == []
    assert "<html lang=" in page
