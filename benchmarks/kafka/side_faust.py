"""faust-streaming: one ONNX Runtime call a record, the state of a stream in a table (RocksDB and a changelog topic)."""

import argparse
import sys

import faust
import numpy as np
from lstm_model import HIDDEN, next_names, session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--address", "--input", "--output", "--group", "--model", "--folder"):
        parser.add_argument(name, required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--guarantee", choices=("exactly_once", "at_least_once"), required=True)
    parser.add_argument("--commit-s", type=float, required=True)
    a = parser.parse_args()
    app = faust.App(
        a.group,
        broker=f"kafka://{a.address}",
        store="rocksdb://",
        datadir=a.folder,
        processing_guarantee=a.guarantee,
        broker_commit_interval=a.commit_s,
        consumer_auto_offset_reset="earliest",
        topic_partitions=a.partitions,
        topic_replication_factor=1,
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
    )
    source = app.topic(a.input, key_type=bytes, value_type=bytes)
    sink = app.topic(a.output, key_type=bytes, value_type=bytes)
    states = app.Table("states", key_type=bytes, value_type=bytes, partitions=a.partitions)
    found = session(a.model)
    wanted, nothing = ["y", *next_names(found)], bytes(8 * HIDDEN)

    @app.agent(source)
    async def step(records):
        async for key, payload in records.items():
            h, c = np.frombuffer(states.get(key, nothing), np.float32).reshape(2, 1, HIDDEN)
            y, h, c = found.run(wanted, {"x": np.frombuffer(payload, np.float32)[None], "h": h, "c": c})
            states[key] = h.tobytes() + c.tobytes()
            await sink.send(key=key, value=y.tobytes())

    sys.argv = [sys.argv[0], "worker", "-l", "warn"]
    app.main()


if __name__ == "__main__":
    main()
