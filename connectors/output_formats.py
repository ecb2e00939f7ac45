"""What a file of answers begins with, how answers are its bytes, and how a header that tells its length is kept true."""

import math
import struct
from fractions import Fraction
from io import BytesIO
from typing import Protocol

import numpy as np

from ..engine.artifact import StepSpec
from ..engine.errors import ConfigError, ConnectorError
from .array_codecs import pcm16, to_little
from .files_config import FileFormat, FilesSinkConfig
from .npy import GROWING_HEADER_BYTES, growing_header, read_header
from .output_files import OutputFiles
from .output_lines import Steps, csv_header, csv_rows, json_lines
from .payloads import kind_of
from .records import Answer

WAV_HEADER_BYTES = 58
MAX_WAV_BYTES = 2**32 - 1


class OutputFormat(Protocol):
    def data(self, files: OutputFiles, name: str, answer: Answer) -> bytes:
        """What is appended to the file for the answer, its beginning included where it is new. Raises ConnectorError."""
        ...

    def mend(self, files: OutputFiles, name: str) -> None:
        """Makes a header that tells the file's length true, before it is made durable."""
        ...

    def whole(self, files: OutputFiles, name: str) -> int:
        """How many of the file's bytes are whole lines or values: where one that a crash cut in two is left out."""
        ...


def make_output_format(name: FileFormat, config: FilesSinkConfig, spec: StepSpec) -> OutputFormat:
    """Raises ConfigError where an option says nothing of this format."""
    for option, formats in (("value", ("npy", "wav")), ("sample_rate_hz", ("wav",)), ("sample_format", ("wav",))):
        if getattr(config, option) is not None and name not in formats:
            raise ConfigError(f"[sink] {option}: is for {' | '.join(formats)}, the files are {name}; take it out")
    if name == "jsonl":
        return JsonlOutput(spec)
    if name == "csv":
        return CsvOutput(spec)
    return HeadedOutput(Npy() if name == "npy" else Wav(config, spec), config.value)


class JsonlOutput:
    def __init__(self, spec: StepSpec):
        self.steps = Steps(spec)

    def data(self, files: OutputFiles, name: str, answer: Answer) -> bytes:
        return json_lines(answer, self.steps)

    def mend(self, files: OutputFiles, name: str) -> None:
        """Lines tell no length."""

    def whole(self, files: OutputFiles, name: str) -> int:
        return files.after_last_line(name)


class CsvOutput:
    """All answers of a file have the columns that its header says."""

    def __init__(self, spec: StepSpec):
        self.steps, self.header = Steps(spec), b""
        self._checked: set[str] = set()

    def data(self, files: OutputFiles, name: str, answer: Answer) -> bytes:
        header, new = csv_header(answer), not files.lengths.get(name)
        if not new and (name not in self._checked or header != self.header):
            found = files.read(name, len(header))
            if found != header:
                raise ConnectorError(
                    f"{files.folder / name}: its header is {found.decode(errors='replace')!r}, the answers have {header.decode()!r}; "
                    "write to another file"
                )
        self._checked.add(name)
        self.header = header
        return (header if new else b"") + csv_rows(answer, self.steps)

    def mend(self, files: OutputFiles, name: str) -> None:
        """Lines tell no length."""

    def whole(self, files: OutputFiles, name: str) -> int:
        return files.after_last_line(name)


class HeadedOutput:
    """Arrays end to end behind a header of fixed length that tells how many there are."""

    def __init__(self, kind: "Npy | Wav", value: str | None):
        self.kind, self.value = kind, value
        self._checked: set[str] = set()

    def data(self, files: OutputFiles, name: str, answer: Answer) -> bytes:
        label, array = chosen(answer, self.value)
        header, data = self.kind.header(array), self.kind.data(label, array)
        new = not files.lengths.get(name)
        if not new and name not in self._checked and self.kind.resized(files.read(name, len(header)), 0) != header:
            raise ConnectorError(
                f"{files.folder / name}: its header is not that of output '{label}' ({array.dtype} {array.shape[1:]}); "
                "write to another folder"
            )
        self._checked.add(name)
        if files.lengths.get(name, 0) + len(header) + len(data) > self.kind.max_bytes:
            raise ConnectorError(
                f"{files.folder / name}: a wav file holds at most {self.kind.max_bytes} bytes; use npy"
            )
        return (header if new else b"") + data

    def mend(self, files: OutputFiles, name: str) -> None:
        length = files.lengths.get(name, 0)
        if length:
            found = files.read(name, self.kind.header_bytes)
            try:
                header = self.kind.resized(found, length - len(found))
            except ValueError as error:
                raise ConnectorError(f"{files.folder / name}: its header is damaged ({error})") from error
            if header != found:
                files.put(name, 0, header)

    def whole(self, files: OutputFiles, name: str) -> int:
        size, header_bytes = files.size(name), self.kind.header_bytes
        if size < header_bytes:
            return 0
        try:
            row_bytes = self.kind.row_bytes(files.read(name, header_bytes))
        except ValueError as error:
            raise ConnectorError(f"{files.folder / name}: its header is damaged ({error})") from error
        return size - (size - header_bytes) % row_bytes


class Npy:
    header_bytes, max_bytes = GROWING_HEADER_BYTES, 2**63

    def header(self, array: np.ndarray) -> bytes:
        if not array[:1].nbytes and len(array):
            raise ConnectorError(f"[sink] format 'npy': an output of shape {array.shape[1:]} has no values to write")
        return growing_header(0, array.shape[1:], array.dtype.newbyteorder("<"))

    def data(self, label: str, array: np.ndarray) -> bytes:
        return to_little(array)

    def resized(self, header: bytes, data_bytes: int) -> bytes:
        found = read_header(BytesIO(header))
        return growing_header(data_bytes // self.row_bytes(header), found.shape[1:], found.dtype)

    def row_bytes(self, header: bytes) -> int:
        found = read_header(BytesIO(header))
        return math.prod(found.shape[1:]) * found.dtype.itemsize


class Wav:
    """One channel; an output of shape (N,) is N samples. RIFF with a `fact` chunk, as floats need it."""

    header_bytes, max_bytes = WAV_HEADER_BYTES, MAX_WAV_BYTES

    def __init__(self, config: FilesSinkConfig, spec: StepSpec):
        rate_hz = config.sample_rate_hz or spec.sample_rate_hz
        if rate_hz is None:
            raise ConfigError(
                "[sink] format 'wav': give sample_rate_hz (frames in a second), the model does not say it"
            )
        self.rate_hz = Fraction(rate_hz) * spec.outputs_per_step / spec.frames_per_step
        self.floats = config.sample_format != "pcm16"

    def header(self, array: np.ndarray) -> bytes:
        if array.ndim > 2 or array.dtype.kind != "f":
            raise ConnectorError(
                f"[sink] format 'wav': the output is {array.dtype} {array.shape[1:]}, expected floats () or (N,)"
            )
        rate, width = self.rate_hz * int(np.prod(array.shape[1:])), 4 if self.floats else 2
        if rate.denominator > 1 or not 0 < rate < 2**31:
            raise ConnectorError(
                f"[sink] format 'wav': {float(rate)} samples a second, a wav file needs a whole number"
            )
        kind = struct.pack("<HHIIHHH", 3 if self.floats else 1, 1, int(rate), int(rate) * width, width, 8 * width, 0)
        head = b"RIFF" + struct.pack("<I", 0) + b"WAVEfmt " + struct.pack("<I", len(kind)) + kind
        return self.resized(head + b"fact" + struct.pack("<II", 4, 0) + b"data" + struct.pack("<I", 0), 0)

    def data(self, label: str, array: np.ndarray) -> bytes:
        return array.astype("<f4").tobytes() if self.floats else pcm16(label, array).tobytes()

    def row_bytes(self, header: bytes) -> int:
        if len(header) != WAV_HEADER_BYTES or header[:4] != b"RIFF":
            raise ValueError("not the wav header that was written")
        return struct.unpack_from("<H", header, 32)[0]

    def resized(self, header: bytes, data_bytes: int) -> bytes:
        width, out = self.row_bytes(header), bytearray(header)
        struct.pack_into("<I", out, 4, WAV_HEADER_BYTES - 8 + data_bytes)
        struct.pack_into("<I", out, 46, data_bytes // width)
        struct.pack_into("<I", out, 54, data_bytes)
        return bytes(out)


def chosen(answer: Answer, value: str | None) -> tuple[str, np.ndarray]:
    """The one output that goes into a file of numbers. Raises ConnectorError."""
    names = list(answer.values)
    if value is None and len(names) > 1:
        raise ConnectorError(f"[sink] value: a file holds one of the outputs {names}; say which")
    if value is not None and value not in names:
        raise ConnectorError(f"[sink] value: there is no output '{value}', the answers have {names}")
    label = value or names[0]
    array = np.asarray(answer.values[label])
    if array.dtype.kind not in "fiub":
        raise ConnectorError(f"[sink] value: output '{label}' is {kind_of(array)}, expected numbers; use jsonl or csv")
    return label, array
