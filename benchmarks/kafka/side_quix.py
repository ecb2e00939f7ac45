"""Quix Streams: one ONNX Runtime call a record, the state of a stream in Quix's own store (RocksDB and a changelog topic)."""

import argparse

import numpy as np
from lstm_model import HIDDEN, next_names, session
from quixstreams import Application, State


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--address", "--input", "--output", "--group", "--model", "--folder"):
        parser.add_argument(name, required=True)
    parser.add_argument("--guarantee", choices=("exactly-once", "at-least-once"), required=True)
    parser.add_argument("--commit-s", type=float, help="by default Quix's own")
    a = parser.parse_args()
    commit = {} if a.commit_s is None else {"commit_interval": a.commit_s}
    app = Application(
        broker_address=a.address,
        consumer_group=a.group,
        auto_offset_reset="earliest",
        state_dir=a.folder,
        processing_guarantee=a.guarantee,
        loglevel="WARNING",
        **commit,
    )
    source = app.topic(a.input, key_deserializer="bytes", value_deserializer="bytes")
    sink = app.topic(a.output, key_serializer="bytes", value_serializer="bytes")
    frames = app.dataframe(source)
    frames.apply(stepper(a.model), stateful=True).to_topic(sink)
    app.run()


def stepper(model: str):
    found = session(model)
    wanted = ["y", *next_names(found)]
    nothing = bytes(8 * HIDDEN)

    def step(payload: bytes, state: State) -> bytes:
        h, c = np.frombuffer(state.get_bytes("state", nothing), np.float32).reshape(2, 1, HIDDEN)
        y, h, c = found.run(wanted, {"x": np.frombuffer(payload, np.float32)[None], "h": h, "c": c})
        state.set_bytes("state", h.tobytes() + c.tobytes())
        return y.tobytes()

    return step


if __name__ == "__main__":
    main()
