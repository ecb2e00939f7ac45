"""Files of text as records: a line is a record, its offset is where the line begins."""

from collections.abc import Generator

from ..engine.artifact import StepSpec
from ..engine.errors import CodecError, ConfigError
from .csv_rows import Columns, CsvRows
from .files_config import FilesSourceConfig
from .input_files import InputFile, State
from .json_lines import Fields, JsonLines
from .lines import Line, read_lines
from .records import Record, Unreadable
from .times import FrameClock

MAX_LINE_BYTES = 4 * 2**20


class JsonlFormat:
    """Event times are those of the lines; the sample rate spaces the frames of a line's chunk."""

    timed = True

    def __init__(self, config: FilesSourceConfig, spec: StepSpec, clock: FrameClock | None):
        fields = Fields(
            config.key_column,
            config.value_field or "value",
            config.time_column or "time",
            config.end_field or "end",
            config.seq_field or "seq",
            config.extra_fields == "ignore",
        )
        self.limit = config.max_line_bytes or MAX_LINE_BYTES
        self.keyed = config.key_column is not None
        self.lines = JsonLines(fields, spec, config.time_unit or "s", clock.frame_ns if clock else 0)

    def length(self, file: InputFile) -> int:
        return file.state()[0]

    def records(self, file: InputFile, start: int) -> Generator[Record, None, int]:
        before = file.state()
        for line in read_lines(file, before, start, self.limit):
            yield self.lines.record(file.name, line, file.key)
        return before[0]


class CsvFormat:
    """Event times are those of the time column; else, where a file is a stream, by the sample rate and the row's number."""

    def __init__(self, config: FilesSourceConfig, spec: StepSpec, clock: FrameClock | None):
        self.rows, self.limit = CsvRows(config, spec), config.max_line_bytes or MAX_LINE_BYTES
        self.keyed = config.key_column is not None
        if self.keyed and (config.sample_rate_hz or config.start_time):
            raise ConfigError(
                "[source] sample_rate_hz, start_time: rows of several streams have no common number; give time_column"
            )
        self.frame_ns = clock.frame_ns if clock else 0
        self.clock = None if self.keyed or config.time_column else clock
        self.timed = bool(config.time_column or self.clock)

    def length(self, file: InputFile) -> int:
        return file.state()[0]

    def records(self, file: InputFile, start: int) -> Generator[Record, None, int]:
        before = file.state()
        header, first = self._head(file, before)
        if header is None:
            return before[0]
        columns = self.rows.columns(file.path, header, first)
        if first is None:
            return before[0]
        number = self._rows_before(file, before, first.offset, start) if self.clock else 0
        for line in read_lines(file, before, max(start, first.offset), self.limit):
            yield self._record(file, line, columns, number)
            number += 1
        return before[0]

    def _head(self, file: InputFile, before: State) -> tuple[Line | None, Line | None]:
        lines = read_lines(file, before, 0, self.limit)
        header, first = next(lines, None), next(lines, None)
        lines.close()
        return header, first

    def _rows_before(self, file: InputFile, before: State, first: int, start: int) -> int:
        """A row's time comes from its number, so a file that is taken up again is counted through to there."""
        count = 0
        if start > first:
            lines = read_lines(file, before, first, self.limit)
            for line in lines:
                if line.offset >= start:
                    break
                count += 1
            lines.close()
        return count

    def _record(self, file: InputFile, line: Line, columns: Columns, number: int) -> Record:
        where = (file.name, line.offset, line.next_offset)
        at = self.clock.at(number) if self.clock else None
        try:
            row = self.rows.row(line, columns)
        except CodecError as error:
            return Record(*where, "" if self.keyed else file.key, Unreadable(line.text, str(error)), at)
        key = file.key if row.key is None else row.key
        return Record(*where, key, row.arrays, row.time_ns if at is None else at, self.frame_ns, single=True)
