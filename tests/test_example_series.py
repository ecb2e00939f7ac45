"""The time series example: nothing comes from the future, no held-out hour is trained on, and streams say what torch says."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import undertow as ut

from .example_modules import importable

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "series"


@pytest.fixture(scope="module", autouse=True)
def example():
    with importable(EXAMPLE):
        yield


def made_up(hours: int = 3000, start: str = "2013-06-01T00"):
    """A station whose temperature is the number of the hour."""
    from data import framed

    values = np.tile(np.arange(hours, dtype=float)[:, None], (1, 5))
    return framed("AAA", np.datetime64(start, "h") + np.arange(hours), values)


@given(st.data())
def test_gaps_are_filled_from_the_past(data):
    """Every hour is there once, what was measured is where it was, and what was not is the last that was."""
    from data import without_gaps

    given_hours = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    holes = data.draw(st.lists(st.booleans(), min_size=len(given_hours), max_size=len(given_hours)))
    values = np.array(
        [[np.nan if hole and i else h] for i, (h, hole) in enumerate(zip(given_hours, holes, strict=True))], float
    )
    hours, filled = without_gaps(np.datetime64("2013-01-01T00", "h") + np.array(given_hours), values)
    assert (np.diff(hours).astype(int) == 1).all()
    assert len(hours) == given_hours[-1] - given_hours[0] + 1
    known = [h for h, v in zip(given_hours, values[:, 0], strict=True) if v == h]
    for place, value in enumerate(filled[:, 0]):
        assert value == max(h for h in known if h <= given_hours[0] + place)


def test_no_held_out_hour_is_trained_on():
    """What is trained on ends, forecasts' truths included, before the held-out time; weeks are scored wholly after it."""
    from data import AHEAD, DAY, HELD_OUT, WARM_UP, WEEK, split, truth, weeks
    from train import windows

    station = made_up(5000)
    before, after = split(station)
    assert before.hours[-1] < HELD_OUT == after.hours[0]
    drawn = windows([before], np.random.default_rng(0))
    for fresh, x, y in (next(drawn) for _ in range(12)):
        noise = x[:, :1, :1] - x[:, :1, 2:3]  # the temperature is moved, the pressure still says which hour it is
        assert torch.allclose(y, x[:, :, 2:3] + torch.arange(1, AHEAD + 1) + noise, atol=1e-2)
        assert (x[:, -1, 2] + AHEAD < len(before.frames)).all()
        assert isinstance(fresh, bool)
    found = weeks(station)
    assert len(found) == (len(after.frames) - AHEAD) // WEEK
    for i, week in enumerate(found):
        assert week.hours[WARM_UP] == HELD_OUT + i * WEEK
        assert np.array_equal(truth(week.frames)[WARM_UP], week.frames[WARM_UP, 0] + np.arange(1, DAY + 1))


def test_the_state_that_training_hands_on_is_the_whole_past():
    """A sequence in windows, each from the state of the one before, gives what the whole sequence gives."""
    from model import Forecaster

    torch.manual_seed(0)
    model, x, state, parts = Forecaster(hidden=8, past=6, ahead=3, span=5).eval(), torch.randn(2, 60, 9), None, []
    with torch.no_grad():
        for t in range(0, 60, 20):
            out, state = model.carry(x[:, t : t + 20], state)
            parts.append(out)
        assert torch.allclose(torch.cat(parts, 1), model(x), atol=1e-5)


def test_a_step_of_training_lowers_the_loss():
    """A few steps on one batch of made-up weather bring the pinball loss down."""
    from model import Forecaster, pinball
    from train import descend, windows

    torch.manual_seed(0)
    model = Forecaster(hidden=8, past=6)
    _, x, y = next(windows([made_up()], np.random.default_rng(1)))
    model.mean.copy_(x.mean((0, 1)))
    model.scale.copy_(1 / x.std((0, 1)).clamp(min=0.1))
    optimiser, losses = torch.optim.Adam(model.parameters(), lr=1e-2), []
    for _ in range(6):
        loss = pinball(model.carry(x, None)[0], y).mean()
        descend(model, optimiser, loss)
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_streams_say_what_torch_says(tmp_path):
    """The exported forecaster's quantiles, of several streams in chunks, are torch's of the whole sequences, sorted."""
    from model import LEVELS, Forecaster

    torch.manual_seed(1)
    model = Forecaster(hidden=8, past=6, ahead=4, span=5).eval()
    ut.export(model, torch.zeros(2, 12, 9), tmp_path / "weather.onnx")
    engine = ut.Engine(tmp_path / "weather.onnx", backend="numba", decode={"type": "quantiles", "levels": list(LEVELS)})
    x = torch.randn(3, 40, 9)
    with torch.no_grad():
        expected = np.sort(model(x).numpy(), axis=-1)
    for t in range(0, 40, 8):
        events = engine.push_many({i: x[i, t : t + 8].numpy() for i in range(3)})
        for i in range(3):
            got = np.stack([events[i].values[f"p{100 * level:g}"] for level in LEVELS], -1)
            np.testing.assert_allclose(got, expected[i, t : t + 8], atol=1e-5)


def test_looking_ahead_is_the_closed_form():
    """Of an autoregression of order one with a level: mean c + a^h (x - c), variance the sum of the noise's, at every hour ahead."""
    from baselines import looking_ahead
    from data import AHEAD
    from model import LEVELS

    a, noise, x, levels = 0.8, 0.5, np.random.default_rng(2).normal(size=100), np.arange(100.0)
    filtered = SimpleNamespace(
        transition=np.full((1, 1, 1), a), design=np.ones((1, 1, 1)), selection=np.ones((1, 1, 1)),
        state_cov=np.full((1, 1, 1), noise), obs_cov=np.zeros((1, 1, 1)), state_intercept=np.zeros((1, 1)),
        obs_intercept=levels[None], filtered_state=x[None], filtered_state_cov=np.zeros((1, 1, 100)), nobs=100,
    )  # fmt: skip
    said = looking_ahead(filtered)
    assert said.shape == (100 - AHEAD, AHEAD, len(LEVELS))
    for t, h in ((0, 1), (10, 5), (75, 24)):
        deviation = np.sqrt(noise * sum(a ** (2 * k) for k in range(h)))
        assert said[t, h - 1, 2] == pytest.approx(levels[t + h] + a**h * x[t])
        assert said[t, h - 1, 4] - said[t, h - 1, 2] == pytest.approx(1.2815516 * deviation)


def test_plain_forecasts_look_at_the_past_alone():
    """Persistence and the day before, at the hours that are scored; with a steady rise both learn how far off they are."""
    from baselines import a_day_ago, coverage, persistence, pinball, with_errors
    from data import WARM_UP, WEEK, split, truth, weeks

    station = made_up(5000)
    streams = weeks(station)
    true = np.stack([truth(w.frames)[WARM_UP : WARM_UP + WEEK] for w in streams])
    assert persistence(np.arange(50.0))[0].tolist() == [23.0] * 24
    assert a_day_ago(np.arange(50.0))[3].tolist() == list(range(3, 27))
    for point in (persistence, a_day_ago):
        said = with_errors(point, split(station)[0], streams)
        assert said.shape == (*true.shape, 5)
        assert pinball(said, true) == pytest.approx(0, abs=1e-6)
        assert coverage(np.sort(said + np.array([-1, 0, 0, 0, 1])), true) == 1


def test_plain_methods_find_a_planted_anomaly():
    """A dent in a sine is where the nearest neighbour is farthest, and the largest difference is at a jump."""
    from others import discord, highest, largest_difference, near

    series = np.sin(np.arange(4000) / 20).astype(np.float32) * 10 + np.random.default_rng(3).normal(
        0, 0.01, 4000
    ).astype(np.float32)
    series[3000:3040] += 3 * np.hanning(40).astype(np.float32)
    assert near(discord(series), (3000, 3040))
    series[2500] += 9
    assert largest_difference(series) in (2500, 2501)
    assert highest(np.array([9.0, 1.0, 2.0, 1.0]), np.array([100, 1300, 1400, 1500])) == 1400
