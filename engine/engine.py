"""The engine: keys and frames in, outputs out; every stream's state in between."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from .arena import Key
from .artifact import Artifact, read_artifact
from .beams import beam_search
from .building import Model, Options, build
from .chain_config import Stage
from .chain_reading import Linked, read_chain
from .decoders import DecodeConfig, Generate, decode_config
from .errors import (
    BackendError,
    BatchError,
    CheckpointError,
    FrameError,
    SnapshotError,
    StreamError,
    UndertowError,
    UnknownStreamError,
)
from .generation import Generator
from .generation_call import Call, Generation, Seed, Stop, stops_of
from .given import Given
from .kernels import KNOWN, NO_KEY, TWICE
from .snapshot import check_rows, collected_frames, read_checkpoint, snapshot, unpack_snapshot, write_checkpoint
from .stage import one_each
from .stream import Stream

if TYPE_CHECKING:
    from .ort_session import Provider

Arrays = Any  # one array, or a dict of arrays by name where the model has several inputs or outputs


class Engine:
    """Steps many live streams of one model and keeps their state.

    model: path of a step artifact, an `Artifact`, or a chain of `Stage`s.
    backend: "numba" (compiled), "ort" (ONNX Runtime) or "auto" (measures both at load, takes the faster at each batch size).
    providers: ONNX Runtime execution providers, names or `(name, options)`, for "ort" and "auto"; one that is absent is an error.
        With "ort" and CUDA first, states of all max_streams stay in the device's memory and frames alone go there. With "auto",
        whose compiled program shares the states, and with other providers, TensorRT too, states are copied there and back at each step.
    max_streams: how many streams may be resident; more raise ArenaFullError for the new stream alone.
    threads: threads that a large batch is split over.
    idle_timeout_s: streams without a frame for so long are flushed and forgotten; `on_expire(key, tail)` is told.
    max_batch: the most streams in one ONNX Runtime call. clock: nanoseconds that never go back.
    decode: what becomes of the outputs, such as `undertow.decode.Labels(...)` or a dict of the keys of a pipeline's [decode]. Its state is
        part of each stream's. `push`, `push_many` and `close` give `Events` then, and `step` gives the events of the batch.
    max_frames: of a model of whole sequences, how many frames are collected of a stream until it ends; more are a FrameError
        of that stream alone.

    decodes: answers are events. seeded: they depend on the streams' names, too.
    All methods may be called from several threads. Raises ArtifactError, BackendError, ConfigError.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Model | Sequence[Stage],
        *,
        backend: str = "auto",
        providers: Sequence["Provider"] | None = None,
        max_streams: int = 4096,
        threads: int = 1,
        idle_timeout_s: float | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        on_expire: Callable[[Key, Arrays], None] | None = None,
        max_batch: int = 1024,
        max_frames: int = 65_536,
        decode: DecodeConfig | Mapping[str, Any] | None = None,
    ):
        counts = {"max_streams": max_streams, "threads": threads, "max_batch": max_batch, "max_frames": max_frames}
        for name, value in counts.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
        if idle_timeout_s is not None and not idle_timeout_s > 0:
            raise ValueError(f"idle_timeout_s is {idle_timeout_s!r}, expected a positive number of seconds or None")
        options = Options(backend, providers, max_streams, threads, max_batch, max_frames)
        if isinstance(model, Artifact | Linked):
            self.artifact: Model = model
        else:
            self.artifact = read_artifact(model) if isinstance(model, str | PathLike) else read_chain(model)
        config = decode_config(decode)
        self._built = build(self.artifact, config, options)
        self._arena, self._executor = self._built.arena, self._built.executor
        self._reader, self._generator = self._built.reader, self._built.generator
        self._intake, self._collected = self._executor.intake, self._executor.collected
        self.spec, self.fingerprint = self._executor.spec, self.artifact.fingerprint
        self.decodes, self.seeded = (
            config is not None or isinstance(self.artifact, Linked),
            isinstance(config, Generate),
        )
        self._lock = threading.RLock()
        self._clock, self._on_expire = clock, on_expire
        self._idle_ns = None if idle_timeout_s is None else int(idle_timeout_s * 1e9)
        self._next_sweep, self._expiring = 0, False
        self._ready = np.ones(0, np.bool_)

    # ---------------------------------------------------------------------------------------------- what is there

    @property
    def backend(self) -> str:
        """The backend in use: "numba", "ort", or both with the batch size from which each is used."""
        return self._executor.backend

    def __len__(self) -> int:
        return len(self._arena.index)

    def __contains__(self, key: object) -> bool:
        return key in self._arena.index

    def keys(self) -> list[Key]:
        """The resident streams."""
        with self._lock:
            return list(self._arena.index)

    def frames(self, key: Key) -> int:
        """How many frames the stream has seen. Raises UnknownStreamError."""
        with self._lock:
            return int(self._executor.seen(np.array([self._arena.slot(key)], np.int64))[0])

    # ---------------------------------------------------------------------------------------------- stepping

    def step(self, keys: Sequence[Key], frames: Arrays) -> tuple[Arrays, np.ndarray]:
        """One frame of each stream: values `(B, *out)` and which of them are ready, bool `(B,)`.

        keys: B distinct str, bytes or int; unknown ones open a stream. frames: `(B, *frame)`. Where a step gives M > 1
        outputs, values are `(B, M, *out)` and ready `(B, M)`.
        With a decoder values are the batch's `Events`, and ready says which streams have any.
        Raises FrameError (shape or dtype of the whole), BatchError (some streams failed; `.result` has the others').
        """
        given = keys if type(keys) is list else keys.tolist() if isinstance(keys, np.ndarray) else list(keys)
        with self._lock:
            now = self._tick()
            inputs = self._intake.batch(frames, len(given))
            slots, found = self._arena.index.find(given)
            errors: dict[Key, UndertowError] = {}
            if not self._intake.fit(inputs):
                errors = self._intake.bad_rows(inputs, given)
            errors = self._executor.refusals(given, slots, one_each(len(given))) | errors
            if found != KNOWN or errors:
                self._settle(given, slots, found, now, errors)
            if errors:
                inputs = [x[slots >= 0] for x in inputs]
            live = slots[slots >= 0] if errors else slots
            names = [key for key in given if key not in errors] if errors else given
            made = self._executor.advance(live, one_each(len(live)), inputs, now, names)
            if made.events is None:
                outputs, ready = self._in_place(made.outputs, made.rows, slots)
                result = (self._intake.named_outputs(outputs), ready)
            else:
                made.events.streams = np.flatnonzero(slots >= 0)[made.events.streams]
                result = (made.events, np.isin(np.arange(len(slots)), made.events.streams))
        if errors:
            raise BatchError(errors, result)
        return result

    def push(self, key: Key, chunk: Arrays) -> Arrays:
        """What became ready, `(T', *out)`, after a chunk `(T, *frame)`. Raises FrameError, ArenaFullError; nothing changes then."""
        try:
            return self.push_many({key: chunk})[key]
        except BatchError as error:
            raise error.errors[key] from None

    def push_many(self, chunks: Mapping[Key, Arrays]) -> dict[Key, Arrays]:
        """What became ready of each stream, after ragged chunks `(T, *frame)`; batched across streams and steps.

        Raises BatchError where some streams failed: those are unchanged, and `.result` has the outputs of the others.
        """
        keys = list(chunks)
        with self._lock:
            now = self._tick()
            arrays, errors, inputs = self._intake.chunks(chunks)
            if errors:
                keys = [k for k in keys if k not in errors]
            slots, found = self._arena.index.find(keys)
            counts = np.fromiter(map(len, arrays[0]), np.int64, len(keys))
            more = self._executor.refusals(keys, slots, counts)
            if found != KNOWN or more:
                self._settle(keys, slots, found, now, more)
            if more:
                errors.update(more)
                inputs = None
                good = slots >= 0
                arrays = [[a for a, keep in zip(column, good, strict=True) if keep] for column in arrays]
                keys, slots = [k for k, keep in zip(keys, good, strict=True) if keep], slots[good]
                counts = counts[good]
            inputs = inputs or [self._intake.joined(i, column) for i, column in enumerate(arrays)]
            result = self._parts(keys, self._executor.advance(slots, counts, inputs, now, keys))
        if errors:
            raise BatchError(errors, result)
        return result

    def _parts(self, keys: list[Key], made: Given) -> dict[Key, Arrays]:
        """Each stream's outputs, or events."""
        if made.events is not None:
            return {key: made.events.of(i) for i, key in enumerate(keys)}
        ends = np.cumsum(made.rows)
        cuts = list(map(slice, (ends - made.rows).tolist(), ends.tolist()))
        parts = [map(y.__getitem__, cuts) for y in made.outputs]
        if len(parts) == 1:
            return dict(zip(keys, parts[0], strict=True))
        return {k: self._intake.named_outputs(list(p)) for k, *p in zip(keys, *parts, strict=True)}

    def push_rows(
        self, keys: list[Key], counts: np.ndarray, frames: list[np.ndarray], names: Sequence[Key] | None = None
    ) -> Given:
        """`push_many` of frames that lie end to end and that `refusals` has passed, its answers end to end in the order of the keys.

        keys: B distinct ones. counts: frames of each, int64 (B,). frames: of each input `(counts.sum(), *frame)`. names: what random
        numbers follow from in place of the keys.
        Raises BatchError where a stream finds no room, or a model of whole sequences has too many frames; nothing is stepped then.
        """
        with self._lock:
            now = self._tick()
            slots, found = self._arena.index.find(keys)
            errors = self._executor.refusals(keys, slots, counts)
            if found != KNOWN or errors:
                self._settle(keys, slots, found, now, errors)
            if errors:
                raise BatchError(errors, {})
            return self._executor.advance(slots, np.ascontiguousarray(counts), frames, now, names or keys)

    def refusals(self, keys: Sequence[Key], counts: np.ndarray, frames: list[np.ndarray]) -> dict[int, FrameError]:
        """Which of B chunks that lie end to end may not be stepped, by their place: values that are not finite, an index
        beyond its table. Arguments as in `push_rows`; touches no stream."""
        if self._intake.fit(frames):
            return {}
        ends = np.cumsum(counts).tolist()
        starts, bad = [0, *ends[:-1]], {}
        for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
            error = self._intake.refusal_of(keys[i], [a[start:end] for a in frames])
            if error is not None:
                bad[i] = error
        return bad

    def check(self, key: Key, chunk: Arrays) -> list[np.ndarray]:
        """The chunk `(T, *frame)` as `push` would take it, an array for each input; touches no stream. Raises FrameError."""
        columns, errors, _ = self._intake.chunks({key: chunk})
        if errors:
            raise errors[key]
        return [column[0] for column in columns]

    def read(self, key: Key, source: Arrays) -> int:
        """Begins the stream with its whole source, `(T, *frame)`, and gives the positions of memory that it has; see `read_many`. Raises FrameError."""
        try:
            return self.read_many({key: source})[key]
        except BatchError as error:
            raise error.errors[key] from None

    def read_many(self, sources: Mapping[Key, Arrays]) -> dict[Key, int]:
        """Begins each stream, anew where it is resident, with its whole source, ragged `(T, *frame)`: the model's encoder reads
        them together and fills each stream's memory and first state. Gives how many positions each memory has.

        Raises BackendError where the model has no encoder; BatchError where some sources failed, such as one with more positions
        than memory has room for: those streams are unchanged, and `.result` has the others.
        """
        if self._reader is None:
            raise BackendError(f"{self.artifact.name}: has no encoder, so it reads no source; push frames to it")
        with self._lock:
            now = self._tick()
            good, errors = self._reader.checked(sources)
            keys = list(good)
            slots, found = self._arena.index.find(keys)
            new = slots < 0
            self._settle(keys, slots, found, now, errors)
            keys, new, slots = [k for k in keys if k not in errors], new[slots >= 0], slots[slots >= 0]
            counts, failed = self._reader.fill(
                [good[k] for k in keys], slots, self._arena.reset, self._arena.stages[0].column
            )
            self._arena.last_active[slots] = now
            for i, error in failed.items():
                errors[keys[i]] = error
                if new[i]:
                    self._release(keys[i])
        read = {key: count for key, count in zip(keys, counts.tolist(), strict=True) if key not in errors}
        if errors:
            raise BatchError(errors, read)
        return read

    def close(self, key: Key) -> Arrays:
        """The tail `(T', *out)` that the delay still held, then forgets the stream. Raises UnknownStreamError.

        Of a model of whole sequences all outputs. Raises BackendError where it fails on this one; nothing changes then.
        """
        try:
            return self.close_many([key])[key]
        except BatchError as error:
            raise error.errors[key] from None

    def close_many(self, keys: Iterable[Key]) -> dict[Key, Arrays]:
        """What `close` gives for each; ragged streams of a model of whole sequences are batched.

        Raises BatchError where some streams failed: those are unchanged, and `.result` has the outputs of the others.
        """
        errors: dict[Key, UndertowError] = {}
        slots: dict[Key, int] = {}
        with self._lock:
            for key in keys:
                try:
                    slots[key] = self._arena.slot(key)
                except UnknownStreamError as error:
                    errors[key] = error
            names = list(slots)
            made, failed = self._executor.end(np.fromiter(slots.values(), np.int64, len(slots)), self._clock(), names)
            tails = self._parts(names, made)
            for i, error in failed.items():
                errors[names[i]] = error
                del tails[names[i]]
            for key in tails:
                self._release(key)
        if errors:
            raise BatchError(errors, tails)
        return tails

    def close_rows(self, keys: Sequence[Key], names: Sequence[Key] | None = None) -> Given:
        """`close_many` as `push_rows` gives it: the tails end to end. Raises BatchError; nothing changes then."""
        with self._lock:
            slots = np.array([self._arena.slot(key) for key in keys], np.int64)
            made, failed = self._executor.end(slots, self._clock(), names or keys)
            if failed:
                raise BatchError({keys[i]: error for i, error in failed.items()}, {})
            for key in keys:
                self._release(key)
        return made

    # ---------------------------------------------------------------------------------------------- generating

    def generate(
        self,
        keys: Sequence[Key],
        prompts: Any,
        max_steps: int,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: Seed = None,
        stop: Stop = (),
        min_steps: int = 0,
        beam: int = 1,
        length_penalty: float = 0.6,
        n_best: int = 1,
    ) -> dict[Key, Generation]:
        """Up to max_steps tokens of each stream, each fed back as the next frame.

        The model takes token ids, one integer a step, and gives logits over as many; or several of both (voices).
        keys: B distinct ones; unknown ones open a stream. prompts: one of each, token ids `(T,)` or `(T, N)` of N voices or a dict
        by input, or by key; None or empty goes on after the token that was generated last.
        temperature 0 takes the likeliest. top_k, top_p: only the k likeliest, only the likeliest that come to p.
        repetition_penalty: logits of the last 64 tokens are divided by it (multiplied where negative).
        stop: tokens that end a stream (any voice's does), for all voices or by input; none of them comes before min_steps.
        seed: the random numbers of a stream follow from its own seed and from how many tokens it has generated. An int: its
        own is a hash of that and of its key; or each one's by key; None: as before, or as for 0. So a stream's tokens are the
        same whatever else is in the batch, in however many calls, and after a snapshot.
        beam: hypotheses of a beam search, the best `n_best` are given; each is scored by its log-probability over
        ((5 + length) / 6) ** length_penalty (Wu et al. 2016, without coverage). The stream goes on from the best.
        Raises ValueError, BackendError where the model has no tokens, BatchError where some streams failed: those are
        unchanged, and `.result` has the others'.
        """
        generator = self._generating()
        call = Call(
            max_steps, temperature, top_k, top_p, repetition_penalty, min_steps, stops_of(stop, generator.voices),
            beam, length_penalty, n_best,
        )  # fmt: skip
        call.check(generator.voices)
        with self._lock:
            return self._generate(generator, list(keys), prompts, call, seed)

    def generating(
        self,
        keys: Sequence[Key],
        prompts: Any,
        max_steps: int,
        *,
        every: int = 1,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: Seed = None,
        stop: Stop = (),
        min_steps: int = 0,
    ) -> Iterator[dict[Key, np.ndarray]]:
        """The tokens of `generate` as they come: after every so many steps the new ones of each stream that still goes on.

        Other calls may come between; a stream that is dropped meanwhile leaves. Closing the iterator leaves every stream after
        its last tokens. Streams that fail leave, and a BatchError tells of them when the others are through.
        """
        generator = self._generating()
        call = Call(
            max_steps, temperature, top_k, top_p, repetition_penalty, min_steps, stops_of(stop, generator.voices)
        )
        call.check(generator.voices)
        if isinstance(every, bool) or not isinstance(every, int | np.integer) or every < 1:
            raise ValueError(f"every is {every!r}, expected a whole number of at least 1")
        return self._pieces(generator, list(keys), prompts, call, seed, int(every))

    def _generating(self) -> Generator:
        if isinstance(self._generator, str):
            raise BackendError(f"{self.artifact.name}: {self._generator}")
        return self._generator

    def _pieces(
        self, generator: Generator, keys: list[Key], prompts: Any, call: Call, seed: Seed, every: int
    ) -> Iterator[dict[Key, np.ndarray]]:
        done, errors = 0, {}
        while keys and done < call.max_steps:
            some = replace(call, max_steps=min(every, call.max_steps - done), min_steps=max(0, call.min_steps - done))
            try:
                with self._lock:
                    if done:
                        keys = [key for key in keys if key in self._arena.index]
                    made = self._generate(generator, keys, prompts, some, seed)
            except BatchError as error:
                made, errors = error.result, errors | error.errors
            if made:
                yield {key: g.tokens for key, g in made.items()}
            keys = [key for key, g in made.items() if g.finished == "length"]
            done, prompts = done + some.max_steps, None
        if errors:
            raise BatchError(errors, {})

    def _generate(
        self, generator: Generator, keys: list[Key], prompts: Any, call: Call, seed: Seed
    ) -> dict[Key, Generation]:
        now = self._tick()
        given, errors = generator.prompts(keys, prompts)
        if isinstance(seed, Mapping) and any(key not in seed for key in keys):
            raise ValueError(f"seed has none for stream {next(key for key in keys if key not in seed)!r}")
        slots, found = self._arena.index.find(keys)
        for i in np.flatnonzero(slots < 0).tolist():
            if not len(given[i]) and keys[i] not in errors:
                errors[keys[i]] = _nothing(keys[i])
        known = slots >= 0
        if found != KNOWN or errors:
            self._settle(keys, slots, found, now, errors)
        going = np.flatnonzero(known & (slots >= 0))
        for i in going[~generator.waiting(slots[going])].tolist():
            if not len(given[i]):
                errors[keys[i]], slots[i] = _nothing(keys[i]), -1
        chosen = np.flatnonzero(slots >= 0).tolist()
        some, live = [keys[i] for i in chosen], slots[chosen]
        run = generator.sample if call.beam == 1 else partial(beam_search, generator)
        results, failed = run(some, live, [given[i] for i in chosen], call, seed, now)
        for i in chosen:
            if keys[i] in failed and not known[i]:
                self._release(keys[i])
        if errors or failed:
            raise BatchError(errors | failed, results)
        return results

    # ---------------------------------------------------------------------------------------------- handles

    def stream(self, key: Key) -> Stream:
        """A handle to one stream, opened where it is not resident: the shortest path for one stream."""
        with self._lock:
            slot = self._arena.index.get(key)
            slot = self._arena.open(key, self._clock()) if slot < 0 else slot
            return Stream(self, key, slot, int(self._arena.generations[slot]))

    # ---------------------------------------------------------------------------------------------- state

    def state(self, key: Key) -> dict[str, np.ndarray]:
        """Copies of the stream's states by name. Raises UnknownStreamError."""
        with self._lock:
            return self._arena.state(self._arena.slot(key))

    def snapshot(self, key: Key) -> bytes:
        """The stream as portable bytes: every piece of its state. Raises UnknownStreamError."""
        with self._lock:
            return snapshot(self._arena, self.fingerprint, self._arena.slot(key), self._collected)

    def restore(self, key: Key, blob: bytes) -> None:
        """Puts a snapshot under `key`, in place of what was there. Raises SnapshotError, ArenaFullError; nothing changes then."""
        with self._lock:
            row, frames = unpack_snapshot(self._arena, self.fingerprint, key, blob)
            if self._collected and len(frames[0]) > self._collected.max_frames:
                raise SnapshotError(str(self._collected.refusal(key, -1, len(frames[0]))))
            self._put(key, row, frames)

    def read_rows(self, keys: list[Key]) -> np.ndarray:
        """Copies of the streams' rows in the arena, uint8 (B, row_bytes): all of their state but collected frames. Raises UnknownStreamError."""
        with self._lock:
            slots = self._arena.index.find(keys)[0]
            if (slots < 0).any():
                self._arena.slot(keys[int(np.flatnonzero(slots < 0)[0])])
            return self._arena.read(slots)

    def write_rows(self, keys: list[Key], rows: np.ndarray) -> None:
        """Puts rows that `read_rows` gave under distinct keys, in place of what was there. Raises SnapshotError where they
        are no rows of this model, ArenaFullError; nothing changes then."""
        with self._lock:
            check_rows(self._arena, rows, f"{len(keys)} streams")
            slots = self._arena.index.find(keys)[0]
            new = np.flatnonzero(slots < 0)
            slots[new] = self._arena.open_many([keys[i] for i in new.tolist()], 0)
            self._arena.write_many(slots, rows)
            self._arena.last_active[slots] = self._clock()

    def collected(self, key: Key) -> list[bytes]:
        """The frames that wait for the stream's end, of each input, where the model takes whole sequences; else none."""
        with self._lock:
            return [a.tobytes() for a in self._collected.of(self._arena.slot(key))] if self._collected else []

    def put_collected(self, key: Key, frames: list[bytes]) -> None:
        """Puts back what `collected` gave. Raises SnapshotError where it is not as much as the stream's row says."""
        with self._lock:
            slot = self._arena.slot(key)
            arrays = collected_frames(self._arena, frames, int(self._arena.frames[slot]), f"stream {key!r}")
            if self._collected:
                self._collected.replace(slot, arrays)

    @property
    def state_bytes(self) -> int:
        """Bytes of one stream's states: of every stage, of what is decoded, and of what generating keeps."""
        return sum(state.nbytes for _, _, state in self._arena.states)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that `read_rows` gives."""
        return self._arena.row_bytes

    @property
    def layout(self) -> bytes:
        """8 bytes that are the same for engines whose rows mean the same: names, shapes and dtypes of states, buffered frames, what is decoded."""
        return self._arena.digest

    def fork(self, key: Key, new_key: Key) -> None:
        """A second stream with the same past. Raises UnknownStreamError, ArenaFullError, StreamError where new_key is resident."""
        with self._lock:
            slot = self._arena.slot(key)
            if new_key in self._arena.index:
                raise StreamError(f"stream {new_key!r} is resident already; drop it before forking {key!r} onto it")
            frames = self._collected.of(slot) if self._collected else []
            self._put(new_key, self._arena.read(np.array([slot], np.int64))[0], frames)

    def drop(self, key: Key) -> None:
        """Forgets the stream without flushing it. Raises UnknownStreamError."""
        with self._lock:
            self._release(key)

    def save(self, path: str | PathLike[str]) -> None:
        """Every stream in one file."""
        with self._lock:
            write_checkpoint(self._arena, self.fingerprint, path, self._collected)

    def load(self, path: str | PathLike[str]) -> None:
        """Every stream of a file that `save` wrote, beside those that are resident. Raises CheckpointError; nothing changes then."""
        with self._lock:
            keys, rows, frames = read_checkpoint(self._arena, self.fingerprint, path)
            both = [k for k in keys if k in self._arena.index]
            if both:
                raise CheckpointError(
                    f"{path}: stream {both[0]!r} ({len(both)} in all) is resident already; drop it before loading"
                )
            if len(self) + len(keys) > self._arena.max_streams:
                raise CheckpointError(
                    f"{path}: has {len(keys)} streams, {self._arena.max_streams - len(self)} slots are free; raise max_streams"
                )
            for key, parts in zip(keys, frames, strict=True):
                if self._collected and len(parts[0]) > self._collected.max_frames:
                    raise CheckpointError(f"{path}: {self._collected.refusal(key, -1, len(parts[0]))}")
            for key, row, parts in zip(keys, rows, frames, strict=True):
                self._put(key, row, parts)

    def expire(self) -> list[Key]:
        """Flushes and forgets the streams that were idle for longer than idle_timeout_s; their keys.

        Of a model of whole sequences they end as one batch; those that it fails on are forgotten too, and a BatchError says so.
        """
        if self._idle_ns is None:
            return []
        with self._lock:
            if self._expiring:  # a callback steps streams
                return []
            self._expiring, expired = True, []
            try:
                self._expire(expired)
            finally:
                self._expiring = False
            return expired

    # ---------------------------------------------------------------------------------------------- inside

    def _tick(self) -> int:
        now = self._clock()
        if self._idle_ns is not None and now >= self._next_sweep:
            self._next_sweep = now + self._idle_ns // 8
            self.expire()
        return now

    def _expire(self, expired: list[Key]) -> None:
        idle = self._arena.idle(self._clock() - (self._idle_ns or 0))
        if self._collected is not None:
            self._expire_together(idle, expired)
            return
        for key in idle:
            if key not in self._arena.index:  # the callback ended it
                continue
            tail = self.close(key)
            expired.append(key)
            if self._on_expire:
                self._on_expire(key, tail)

    def _expire_together(self, idle: list[Key], expired: list[Key]) -> None:
        failure = None
        try:
            tails = self.close_many(idle)
        except BatchError as error:
            failure, tails = error, error.result
            for key in error.errors:
                self._release(key)
        for key, tail in tails.items():
            expired.append(key)
            if self._on_expire:
                self._on_expire(key, tail)
        if failure is not None:
            raise failure

    def _release(self, key: Key) -> None:
        if self._collected:
            self._collected.free(self._arena.slot(key))
        self._arena.release(key)

    def _put(self, key: Key, row: np.ndarray, frames: list[np.ndarray]) -> None:
        slot = self._arena.index.get(key)
        slot = self._arena.open(key, 0) if slot < 0 else slot
        self._arena.write(slot, row)
        if self._collected:
            self._collected.replace(slot, frames)
        self._arena.last_active[slot] = self._clock()

    def _settle(
        self, keys: list[Key], slots: np.ndarray, found: int, now: int, errors: dict[Key, UndertowError]
    ) -> None:
        """Opens the unknown streams, gives slots to them and takes them from those with an error; adds the new errors."""
        for key in keys if found == NO_KEY else ():
            if not isinstance(key, Hashable):
                raise StreamError(f"stream key {key!r} is {type(key).__name__}; expected str, bytes or int")
        if found == TWICE or len(set(keys)) < len(keys):
            twice = next(k for k, count in Counter(keys).items() if count > 1)
            raise StreamError(
                f"stream {twice!r} is named twice in one batch; a batch takes one frame of each stream, use push for several"
            )
        new = [i for i in np.flatnonzero(slots < 0).tolist() if keys[i] not in errors]
        if new:
            slots[new], failed = self._arena.open_some([keys[i] for i in new], now)
            errors |= failed
        if errors:
            slots[[i for i, k in enumerate(keys) if k in errors]] = -1

    def _in_place(
        self, outputs: list[np.ndarray], counts: np.ndarray, slots: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Outputs at their streams' places in the batch, zeros where nothing is ready; and what is ready."""
        m, batch = self.spec.outputs_per_step, len(slots)
        if batch > len(self._ready):
            self._ready = np.ones(2 * batch, np.bool_)
        if m == 1 and len(outputs[0]) == batch:
            return outputs, self._ready[:batch].copy()
        each = np.zeros(batch, np.int64)
        each[slots >= 0] = counts
        ready = np.arange(m) >= m - each[:, None]  # what the delay hides comes first
        spread = [np.zeros((batch, m, *y.shape[1:]), y.dtype) for y in outputs]
        for out, y in zip(spread, outputs, strict=True):
            out[ready] = y
        return ([out[:, 0] for out in spread], ready[:, 0]) if m == 1 else (spread, ready)


def _nothing(key: Key) -> FrameError:
    return FrameError(
        f"stream {key!r}: has no prompt and no generated token to go on from; give a prompt of at least one token"
    )
