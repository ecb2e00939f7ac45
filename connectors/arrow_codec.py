"""Payloads that are Arrow IPC streams of record batches: a column for each input or output, a row for each frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..engine.artifact import StepSpec, TensorSpec
from ..engine.errors import CodecError
from .array_codecs import cast
from .payloads import Decoded, Frames, each, encode_one, gathered, kind_of, library, no_rows
from .records import Answer


class ArrowCodec:
    """Frames of a shape are FixedSizeLists, one in the other, or FixedShapeTensors. One row is one frame."""

    def __init__(self, spec: StepSpec):
        self.inputs, self._pa = spec.inputs, library("pyarrow", "arrow")

    def decode(self, payload: bytes) -> Frames:
        table = self._table(payload)
        return Frames(self._arrays(table), table.num_rows == 1)

    def decode_many(self, payloads: Sequence[bytes | None]) -> Decoded:
        """Those of one schema are read one by one and made arrays of at once."""
        errors: dict[int, CodecError] = {}
        tables: dict[int, Any] = {}
        for place, payload in enumerate(payloads):
            try:
                if payload is not None:
                    tables[place] = self._table(payload)
            except CodecError as error:
                errors[place] = error
        try:
            arrays = self._arrays(self._end_to_end(list(tables.values())))
        except CodecError:  # of one of them, or they are not alike
            found = each(tables, lambda table: Frames(self._arrays(table), table.num_rows == 1), errors)
            return gathered(self.inputs, len(payloads), np.empty(0, np.int64), no_rows(self.inputs), found, errors)
        counts = np.zeros(len(payloads), np.int64)
        counts[list(tables)] = [table.num_rows for table in tables.values()]
        return Decoded([arrays[t.name] for t in self.inputs], counts, counts == 1, errors)

    def _table(self, payload: bytes) -> Any:
        """Not validated: nothing of it is safe to touch but its schema and length."""
        source = self._pa.BufferReader(payload)
        try:
            table = self._pa.ipc.open_stream(source).read_all()
        except (self._pa.ArrowException, OSError, ValueError) as error:
            raise CodecError(f"not an Arrow IPC stream ({error})") from error
        if source.tell() != len(payload):
            raise CodecError(f"the payload has {len(payload)} bytes, its Arrow IPC stream ends at {source.tell()}")
        return table

    def _end_to_end(self, tables: list[Any]) -> Any:
        """Raises CodecError where they are not of one schema, or there is none."""
        if not tables or not all(table.schema.equals(tables[0].schema) for table in tables):
            raise CodecError("the tables are not of one schema")
        return self._pa.concat_tables(tables)

    def _arrays(self, table: Any) -> dict[str, np.ndarray]:
        try:
            table.validate(full=True)
        except (self._pa.ArrowException, ValueError) as error:
            raise CodecError(f"not a valid Arrow table ({error})") from error
        names = [t.name for t in self.inputs]
        if sorted(table.column_names) != sorted(names):
            raise CodecError(f"the columns are {table.column_names}, the model has inputs {names}")
        return {t.name: cast(self._values(table[t.name].combine_chunks(), t), t) for t in self.inputs}

    def encode(self, answer: Answer) -> bytes:
        return encode_one(self, answer)

    def encode_many(self, values: Mapping[str, np.ndarray], counts: np.ndarray) -> list[bytes]:
        """Each answer's batch is made for itself: a slice of one of all is as true, but not the same bytes."""
        pa, payloads, row = self._pa, [], 0
        for count in counts.tolist():
            columns = [self._column(name, array[row : row + count]) for name, array in values.items()]
            batch, out = pa.record_batch(columns, names=list(values)), pa.BufferOutputStream()
            with pa.ipc.new_stream(out, batch.schema) as stream:
                stream.write_batch(batch)
            payloads.append(out.getvalue().to_pybytes())
            row += count
        return payloads

    def _values(self, array: Any, tensor: TensorSpec) -> np.ndarray:
        """A column as `(T, *frame)`. Raises CodecError."""
        pa, rows, given = self._pa, len(array), array.type
        shape: tuple[int, ...] = ()
        if isinstance(array.type, pa.FixedShapeTensorType):
            order = array.type.permutation
            if order is not None and list(order) != sorted(order):
                raise CodecError(f"column '{tensor.name}' is {given}, expected a tensor without a permutation")
            shape, array = tuple(array.type.shape), self._inner(array.storage, tensor)
        while pa.types.is_fixed_size_list(array.type):
            shape, array = (*shape, array.type.list_size), self._inner(array, tensor)
        kind = array.type
        if (
            not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))
            or shape != tensor.shape
        ):
            raise CodecError(
                f"column '{tensor.name}' is {given}, expected numbers of shape {tensor.shape} in FixedSizeLists or a FixedShapeTensor"
            )
        self._no_nulls(array, tensor)
        return array.to_numpy(zero_copy_only=False).reshape(rows, *shape)

    def _inner(self, lists: Any, tensor: TensorSpec) -> Any:
        self._no_nulls(lists, tensor)
        return lists.flatten()

    def _no_nulls(self, array: Any, tensor: TensorSpec) -> None:
        if array.null_count:
            raise CodecError(f"column '{tensor.name}' has {array.null_count} nulls, expected numbers")

    def _column(self, name: str, array: np.ndarray) -> Any:
        pa = self._pa
        if array.dtype.kind not in "fiubU" or 0 in array.shape[1:]:
            raise CodecError(
                f"output '{name}' is {kind_of(array)} {array.shape[1:]}, expected numbers or text, at least one a row; use json or msgpack"
            )
        column = pa.array(array.astype(array.dtype.newbyteorder("="), copy=False).reshape(-1))
        for size in reversed(array.shape[1:]):
            column = pa.FixedSizeListArray.from_arrays(column, size)
        return column
