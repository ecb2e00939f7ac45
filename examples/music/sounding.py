"""Rows of tokens as something to hear: a MIDI file, and a WAV of it through FluidSynth."""

import shutil
import subprocess
from pathlib import Path

import mido
import numpy as np
from data import BEAT, CACHE, VOICES, begins, pitches
from packages import debian

TICKS = 480  # in a quarter note
CHOIR = 52  # the General MIDI program "choir aahs"
QUARTERS_PER_MINUTE = 80
SOUNDFONT = "usr/share/sounds/sf2/TimGM6mb.sf2"
SHA256 = "c5378b62028c920cb11e4803327983fee2f2cdff5dc89c708e39da417e51c854"


def notes(voice: np.ndarray) -> list[tuple[int, int, int]]:
    """(first row, row after the last, pitch) of each note of one voice's tokens (T,)."""
    sounding, fresh = pitches(voice), begins(voice)
    found: list[tuple[int, int, int]] = []
    for t, (pitch, new) in enumerate(zip(sounding.tolist(), fresh.tolist(), strict=True)):
        if new:
            found.append((t, t + 1, pitch))
        elif pitch:
            found[-1] = (found[-1][0], t + 1, pitch)
    return found


def write_midi(rows: np.ndarray, path: Path) -> None:
    """A file with a track for each voice, from rows (T, 4)."""
    file = mido.MidiFile(ticks_per_beat=TICKS)
    for channel, (name, voice) in enumerate(zip(VOICES, rows.T, strict=True)):
        track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
        if channel == 0:
            track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(QUARTERS_PER_MINUTE)))
        track.append(mido.Message("program_change", channel=channel, program=CHOIR))
        turns = [(begin, 1, pitch) for begin, _, pitch in notes(voice)] + [(end, 0, p) for _, end, p in notes(voice)]
        now = 0
        for row, on, pitch in sorted(turns):  # of one row first what ends
            kind = "note_on" if on else "note_off"
            ticks = (row - now) * TICKS // BEAT
            track.append(mido.Message(kind, channel=channel, note=pitch, velocity=80, time=ticks))
            now = row
        file.tracks.append(track)
    file.save(path)


def write_wav(midi: Path, path: Path) -> None:
    """The file as FluidSynth plays it. Raises SystemExit where that fails."""
    font = debian("timgm6mb-soundfont", {SOUNDFONT: SHA256}, CACHE) / SOUNDFONT
    command = ["fluidsynth", "-n", "-i", "-q", "-F", str(path), "-r", "22050", "-g", "0.8", str(font), str(midi)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.exists():
        raise SystemExit(f"{midi}: `{' '.join(command)}` failed\n{done.stderr.strip()}")


def need_player() -> None:
    """Raises SystemExit where FluidSynth is not installed."""
    if shutil.which("fluidsynth") is None:
        raise SystemExit(
            "fluidsynth, which makes the WAV, is not on this machine; on Debian: apt-get install fluidsynth, or leave the WAV out with --silent"
        )
