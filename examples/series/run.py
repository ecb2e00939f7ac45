"""The whole way: `python examples/series/run.py --out DIR` trains what is missing, exports, streams, compares, and leaves pipelines.

DIR gets the three models, pipeline.toml with its input in weeks/, anomalies.toml with its input in pressure/, result.json and pictures.
"""

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import others
import pictures
import torch
import weather
from data import TRAINED_ON, normals, pressure, prices, stations
from placing import place
from torch import nn
from train import HERE, trained

import undertow as ut

SHOWN, TOLERANCE = "LGA-05", 1e-5


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, required=True, help="the folder to write")
    out: Path = options.parse_args().out
    begin = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    networks = trained(HERE / "weights")
    for name, network in networks.items():
        ut.export(network, torch.zeros(2, 30, 9 if name == "weather" else 1), out / f"{name}.onnx")
    result, more = forecasts(out, networks["weather"]), anomalies(out, networks["pressure"])
    result["more"] |= {"stocks": others.stocks(out / "stocks.onnx", networks["stocks"], prices()), **more}
    result["more"]["differences_from_torch_at_most"] = check(result["more"])
    result |= {"pictures": ["forecasts.svg", "anomaly.svg"], "seconds": round(time.perf_counter() - begin, 1)}
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def forecasts(out: Path, network: nn.Module) -> dict[str, Any]:
    """The main row; leaves the picture, the pipeline and its input."""
    everything = stations()
    found = weather.streamed(out / "weather.onnx", everything)
    torchs = weather.by_torch(network, found.streams)
    table = weather.table(found, torchs, everything)
    pictures.fans(found, SHOWN, out / "forecasts.svg")
    lay_out(out, "pipeline.toml", "weeks", {w.key: w.frames for w in found.streams})
    spec = ut.read_artifact(out / "weather.onnx").spec
    still, smooth = found.streams[0].frames[:, 0], normals()
    return {
        "application": "series",
        "task": f"temperature, 24 hours ahead: {found.truth.size:,} forecasts of {len(found.streams)} held-out weeks at three stations",
        "parameters": sum(p.numel() for p in network.parameters()),
        "state_bytes": spec.state_bytes,
        "metric": "pinball loss in °C (lower is better)",
        "ours": table["GRU, streamed"]["pinball"],
        "torch": table["GRU, torch"]["pinball"],
        "baseline": table["statsmodels SARIMAX"]["pinball"],
        "baseline_name": "statsmodels SARIMAX",
        **weather.timed(out / "weather.onnx", found.streams),
        "more": {
            "weather": table,
            "weather_worst_difference_from_torch": float(np.abs(found.said - torchs).max()),
            "a_day_changes": {"measured": daily(still), "seattle-temps": daily(smooth)},
        },
    }


def daily(temperature: np.ndarray) -> float:
    """The mean difference from the hour a day before."""
    return float(np.abs(temperature[24:] - temperature[:-24]).mean())


def anomalies(out: Path, network: nn.Module) -> dict[str, Any]:
    """What is found in the blood pressure; leaves the picture, the pipeline and its input."""
    series, odd = pressure()
    model = out / "pressure.onnx"
    found = others.blood_pressure(model, network, series, odd)
    scores = ut.Engine(model, decode=others.DECODE | {"emit": "every"}).push("pressure", series[:, None])
    later = scores.at >= TRAINED_ON
    pictures.anomaly(series, scores.values["score"][later], scores.at[later], odd, others.ON, out / "anomaly.svg")
    lay_out(out, "anomalies.toml", "pressure", {"pressure": series[:, None]})
    return {"anomalies": found, "pressure_fed_back": others.fed_back(model, network, series, odd)}


def check(more: dict[str, Any]) -> float:
    """The largest difference between a stream and torch, each over the scale of its values. Raises SystemExit where the answers are not the same."""
    said = {
        "weather": more["weather_worst_difference_from_torch"] / 30,
        "stocks": more["stocks"]["worst_difference_from_torch"],
        "pressure": more["anomalies"]["worst_difference_from_torch"] / 100,
        "pressure, fed back": more["pressure_fed_back"]["worst_difference_from_torch"] / 100,
    }
    for name, difference in said.items():
        if not difference <= TOLERANCE:
            raise SystemExit(
                f"{name}: a stream's answer differs by {difference} of its scale from torch's, expected at most {TOLERANCE}"
            )
    return max(said.values())


def lay_out(out: Path, pipeline: str, folder: str, streams: dict[str, np.ndarray]) -> None:
    """A pipeline's file, and its input: a .npy a stream."""
    place(HERE / pipeline, out)
    shutil.rmtree(out / folder, ignore_errors=True)
    (out / folder).mkdir()
    for key, frames in streams.items():
        np.save(out / folder / f"{key}.npy", frames)


if __name__ == "__main__":
    main()
