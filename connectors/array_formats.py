"""Files of arrays as records: a record is up to `chunk` frames, its offset is the number of its first frame.

Records are cut at multiples of `chunk` from the file's beginning, wherever reading begins. Values are read, not mapped
into memory: a mapped file that is cut while it is read ends the process.
"""

import math
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
import soundfile

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError, ConfigError, ConnectorError
from .array_codecs import cast
from .files_config import FilesSourceConfig
from .input_files import InputFile
from .npy import Header, read_header
from .payloads import only_input
from .records import Record
from .times import FrameClock, start_time_ns

CHUNK = 50


def array_input(spec: StepSpec, format: str) -> TensorSpec:
    only = only_input(spec)
    if only is None:
        names = [t.name for t in spec.inputs]
        raise ConfigError(
            f"[source] format '{format}': a file holds one array, the model has inputs {names}; use jsonl or csv"
        )
    return only


def cuts(start: int, length: int, chunk: int) -> Iterator[tuple[int, int]]:
    while start < length:
        stop = min(length, (start // chunk + 1) * chunk)
        yield start, stop
        start = stop


class NpyFormat:
    """`(T, *frame)`, of a dtype that the model's takes without losing more than precision."""

    def __init__(self, config: FilesSourceConfig, spec: StepSpec, clock: FrameClock | None):
        self.input, self.chunk, self.clock = array_input(spec, "npy"), config.chunk or CHUNK, clock
        self.keyed, self.timed = False, clock is not None

    def length(self, file: InputFile) -> int:
        with file.open() as handle:
            return self._header(file, handle).shape[0]

    def records(self, file: InputFile, start: int) -> Generator[Record, None, int]:
        before = file.state()
        with file.open() as handle:
            header = self._header(file, handle)
            for first, stop in cuts(start, header.shape[0], self.chunk):
                rows = cast(_read_rows(handle, header, first, stop), self.input)
                file.still(before)
                yield array_record(file, self.input, self.clock, first, stop, rows)
            return header.shape[0]

    def _header(self, file: InputFile, handle: BinaryIO) -> Header:
        try:
            header = read_header(handle)
            cast(np.zeros(0, header.dtype), self.input)
        except (ValueError, EOFError, CodecError) as error:
            raise ConnectorError(f"{file.path}: {error}") from error
        if not header.shape or header.shape[1:] != self.input.shape:
            shape = ", ".join(map(str, ("T", *self.input.shape)))
            raise ConnectorError(f"{file.path}: has shape {header.shape}, model expects ({shape})")
        size = file.state()[0]
        if size != header.total_bytes:
            raise ConnectorError(
                f"{file.path}: has {size} bytes, its header says {header.total_bytes}; it is not complete"
            )
        return header


def _read_rows(handle: BinaryIO, header: Header, first: int, stop: int) -> np.ndarray:
    """Rows first..stop; of a Fortran-ordered file a piece of each of its columns."""
    count, item = stop - first, header.dtype.itemsize
    row = int(np.prod(header.shape[1:]))
    if not header.fortran:
        handle.seek(header.start + first * row * item)
        flat = np.frombuffer(handle.read(count * row * item), header.dtype)
        return flat.reshape(count, *header.shape[1:]) if flat.size == count * row else _short(handle)
    columns = np.empty((row, count), header.dtype)
    for i in range(row):
        handle.seek(header.start + (i * header.shape[0] + first) * item)
        piece = np.frombuffer(handle.read(count * item), header.dtype)
        columns[i] = piece if piece.size == count else _short(handle)
    return columns.reshape(*header.shape[:0:-1], count).T


def _short(handle: BinaryIO) -> Any:
    raise ConnectorError(f"{handle.name}: ended early; was it changed while it was read?")


class WavFormat:
    """Samples as floats from -1 to 1. A frame is one sample `()`, one of each channel `(C,)`, or, of a file with one
    channel, N samples `(N,)`: the artifact's frames in a second times N must then be the file's sample rate."""

    def __init__(self, config: FilesSourceConfig, spec: StepSpec, clock: FrameClock | None):
        self.input, self.chunk, self.clock = array_input(spec, "wav"), config.chunk or CHUNK, clock
        self.rate_hz, self.pad = config.sample_rate_hz or spec.sample_rate_hz, config.remainder == "pad"
        self.start_ns = start_time_ns(config)
        self.keyed, self.timed = False, True
        if np.dtype(self.input.dtype).kind != "f" or len(self.input.shape) > 1:
            raise ConfigError(
                f"[source] format 'wav': input '{self.input.name}' is {self.input.dtype} {self.input.shape}, "
                "expected floats of shape () or (N,)"
            )

    def length(self, file: InputFile) -> int:
        with self._open(file) as sound:
            return self._frames(sound, self._samples(file, sound))

    def records(self, file: InputFile, start: int) -> Generator[Record, None, int]:
        before = file.state()
        with self._open(file) as sound:
            samples = self._samples(file, sound)
            clock = self.clock or FrameClock(Fraction(sound.samplerate, samples), self.start_ns)
            length = self._frames(sound, samples)
            for first, stop in cuts(start, length, self.chunk):
                rows = self._read(file, sound, first * samples, (stop - first) * samples)
                file.still(before)
                frames = rows.reshape(stop - first, *self.input.shape).astype(self.input.dtype, copy=False)
                yield array_record(file, self.input, clock, first, stop, frames)
            return length

    def _open(self, file: InputFile) -> soundfile.SoundFile:
        try:
            return soundfile.SoundFile(file.path)
        except (soundfile.LibsndfileError, OSError) as error:
            raise ConnectorError(f"{file.path}: cannot be read as audio ({error})") from error

    def _samples(self, file: InputFile, sound: soundfile.SoundFile) -> int:
        """Samples of one channel in a frame. Raises ConnectorError where channels or sample rate do not fit the model."""
        width, channels = int(np.prod(self.input.shape)), sound.channels
        if channels not in (1, width):
            raise ConnectorError(
                f"{file.path}: has {channels} channels, the model's frame is {self.input.shape}: expected 1"
                + (f" or {width}" if width > 1 else "")
            )
        samples = width if channels == 1 else 1
        if self.rate_hz is not None and not math.isclose(self.rate_hz * samples, sound.samplerate, rel_tol=1e-9):
            raise ConnectorError(
                f"{file.path}: has {sound.samplerate} samples a second, the model {self.rate_hz * samples:g} "
                f"({self.rate_hz:g} frames of {samples}); resample the file, e.g. with sox or ffmpeg"
            )
        return samples

    def _frames(self, sound: soundfile.SoundFile, samples: int) -> int:
        return -(-sound.frames // samples) if self.pad else sound.frames // samples

    def _read(self, file: InputFile, sound: soundfile.SoundFile, first: int, count: int) -> np.ndarray:
        real = min(count, sound.frames - first)
        try:
            sound.seek(first)
            found = sound.read(real, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ConnectorError(f"{file.path}: sample {first}: {error}") from error
        if len(found) != real:
            raise ConnectorError(f"{file.path}: ended at sample {first + len(found)}, its header says {sound.frames}")
        return np.concatenate([found, np.zeros((count - real, found.shape[1]), np.float32)]) if real < count else found


def array_record(
    file: InputFile, tensor: TensorSpec, clock: FrameClock | None, first: int, stop: int, frames: np.ndarray
) -> Record:
    """Frames first..stop of a file that is one stream."""
    at, frame_ns = (clock.at(first), clock.frame_ns) if clock else (None, 0)
    return Record(file.name, first, stop, file.key, {tensor.name: frames}, at, frame_ns)
