"""What a pipeline file says of files, standard input, and standard output: `[source]`, `[sink]`.

`sample_rate_hz`, here and in the artifact, is frames of a stream in a second. Of audio whose frame is N samples it is
therefore the file's sample rate divided by N.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .codec_config import TimeUnit

Positive = Annotated[int, Meta(ge=1)]
Rate = Annotated[float, Meta(gt=0)]
Text = Annotated[str, Meta(min_length=1)]
FileFormat = Literal["csv", "jsonl", "npy", "wav"]


class FilesSourceConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="files"):
    """`[source] type = "files"`.

    path: a file; a folder, read with its folders; or a pattern with `*`, `?`, `[..]` or `**`. Hidden files are passed over.
    format: by default what the suffixes say. A folder gives its files of that format, a pattern all that match.
    chunk: the most frames of a record (npy, wav); a record of csv and jsonl is a line.
    concurrency: files open at once; they are read in turn, a record of each.
    key_column: the csv column, or field of a jsonl object, that names the stream; without it a file is one stream.
    columns: csv columns that are the frame, in its order; by default all that are numbers, but for key and time.
    time_column: the csv column or jsonl field of the event time: ISO 8601 (UTC where it says nothing) or a number of
        `time_unit` since 1970. Of jsonl it is "time" by default and a line may lack it.
    value_field, end_field, seq_field: the fields of a jsonl object; other fields are refused or passed over (`extra_fields`).
    sample_rate_hz: frames in a second, in place of the artifact's. Without a time column (csv, npy, wav) the event times
        are `start_time` and on from there by the sample rate; without both rate and column there are none.
    start_time: ISO 8601, of each file's first frame; by default 1970, so that times count from the file's beginning.
    remainder: samples at the end of a wav file that do not fill a frame are dropped, or padded with zeros.
    rate: "fast", or event time sets the pace: "recorded", or a number of times that.
    max_line_bytes: a longer line of text is a record that cannot be decoded.
    """

    path: Text
    format: FileFormat | None = None
    chunk: Positive | None = None
    concurrency: Positive = 1024
    key_column: Text | None = None
    columns: Annotated[tuple[Text, ...], Meta(min_length=1)] | None = None
    delimiter: Annotated[str, Meta(min_length=1, max_length=1)] | None = None
    time_column: Text | None = None
    time_unit: TimeUnit | None = None
    value_field: Text | None = None
    end_field: Text | None = None
    seq_field: Text | None = None
    extra_fields: Literal["error", "ignore"] | None = None
    sample_rate_hz: Rate | None = None
    start_time: Text | None = None
    remainder: Literal["drop", "pad"] | None = None
    rate: Literal["fast", "recorded"] | Rate = "fast"
    max_line_bytes: Annotated[int, Meta(ge=64, le=2**30)] | None = None


class StdinConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="stdin"):
    """`[source] type = "stdin"`: JSON Lines.

    stream: all lines are of this stream, and a line may be the bare payload; else `key_column` names it in each line.
    end_at_eof: the end of the input ends every stream. Say false where the feeder goes away and comes back.
    The other options are those of the files source.
    """

    stream: Text | None = None
    key_column: Text | None = None
    time_column: Text = "time"
    time_unit: TimeUnit = "s"
    value_field: Text = "value"
    end_field: Text = "end"
    seq_field: Text = "seq"
    extra_fields: Literal["error", "ignore"] = "error"
    sample_rate_hz: Rate | None = None
    end_at_eof: bool = True
    max_line_bytes: Annotated[int, Meta(ge=64, le=2**30)] = 4 * 2**20


class FilesSinkConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="files"):
    """`[sink] type = "files"`.

    path: a .jsonl or .csv file for all streams; or, with `format`, a folder with a file for each stream.
    value: which output npy and wav files hold; needed where there are several.
    sample_rate_hz: of wav: frames in a second, in place of the artifact's.
    sample_format: of wav: "float32" keeps an output's bits, "pcm16" clips and rounds.
    max_open: the most files open at once.
    """

    path: Text
    format: FileFormat | None = None
    value: Text | None = None
    sample_rate_hz: Rate | None = None
    sample_format: Literal["float32", "pcm16"] | None = None
    max_open: Positive = 256


class StdoutConfig(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="stdout"):
    """`[sink] type = "stdout"`: JSON Lines, the same as in a file."""
