"""What `undertow run --check` prints: what a run would be, and what it would meet."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import msgspec

from .connectors.config import PlacedPipeline
from .connectors.kafka.config import KafkaSourceConfig
from .connectors.secret import hidden

if TYPE_CHECKING:
    from .engine import Engine


def checked_plan(placed: PlacedPipeline) -> dict[str, Any]:
    """Loads and looks at everything that a run needs. Raises UndertowError: what would end it."""
    if isinstance(placed.pipeline.source, KafkaSourceConfig):
        return _on_kafka(placed)
    from .connectors.opening import check_parts, open_parts  # the engine takes a second to load

    parts = open_parts(placed, None, None)
    check_parts(parts)
    return _plan(placed, parts.batch.engine, {"store": str(placed.store_path), "resumes": resumes(placed)})


def resumes(placed: PlacedPipeline) -> bool:
    """A run of a store goes on from there."""
    return (placed.store_path / "data.mdb").exists()


def _on_kafka(placed: PlacedPipeline) -> dict[str, Any]:
    from .connectors.kafka.looking import look  # aiokafka takes a fifth of a second to load
    from .connectors.kafka.outputs import SinkOutputs
    from .connectors.opening import check_sink, open_kafka_parts

    parts = open_kafka_parts(placed, None)
    if isinstance(parts.outputs, SinkOutputs):
        check_sink(parts.outputs.sink)
    seen = asyncio.run(look(parts.cluster))
    state = {
        "group": asdict(seen.group),
        "changelogs": [asdict(changelog) for changelog in seen.changelogs],
        "partitions": [asdict(place) for place in seen.partitions],
        "lag": seen.lag,
        "resumes": any(place.committed is not None for place in seen.partitions),
    }
    return _plan(placed, parts.batch.engine, state)


def _plan(placed: PlacedPipeline, engine: "Engine", state: dict[str, Any]) -> dict[str, Any]:
    pipeline = placed.pipeline
    dead, models = pipeline.dead_letters, [str(placed.path(path)) for path in pipeline.model.paths]
    return {
        "pipeline": pipeline.name,
        "model": models if len(models) > 1 else models[0],
        "fingerprint": engine.fingerprint.hex(),
        "backend": engine.backend,
        "max_streams": pipeline.model.max_streams,
        "bytes_per_stream": engine.state_bytes,
        "source": msgspec.to_builtins(pipeline.source, enc_hook=hidden),
        "policy": msgspec.to_builtins(pipeline.policy),
        "decode": msgspec.to_builtins(pipeline.decode),
        "sink": msgspec.to_builtins(pipeline.sink, enc_hook=hidden),
        "delivery": msgspec.to_builtins(pipeline.delivery),
        **state,
        "dead_letters": (dead.topic or str(placed.path(dead.path or ""))) if dead else None,
        "metrics": msgspec.to_builtins(pipeline.metrics),
        "log": msgspec.to_builtins(pipeline.log),
    }


def print_facts(facts: dict[str, Any], as_json: bool, err: bool) -> None:
    """As JSON, or a line each; of a list, one for each thing in it."""
    if as_json:
        click.echo(msgspec.json.encode(facts).decode())
        return
    for name, value in facts.items():
        for i, one in enumerate(value if isinstance(value, list) else [value]):
            if one is not None:
                click.echo(f"{'' if i else name:<18} {_told(one)}", err=err)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} = {_inner(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _inner(value: Any) -> str:
    return f"{{ {_told(value)} }}" if isinstance(value, dict) else str(value)
