"""Jobs on the model's server: letting them end, and reading all that they left."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

from google.protobuf.json_format import MessageToJson

from tests.model.server import Run
from tests.model.world import World

HOUR = 3600.0


def newest(world: World) -> Run:
    """Return the newest run of the job."""
    run = world.job(world.servers[0])
    assert run is not None
    return run


def until_the_end(world: World) -> None:
    """Let the truth be told, and everything be in order, until the job has ended."""
    world.lift_trouble()
    for _ in range(30):
        if not newest(world).open:
            return
        world.go_on(HOUR)
        world.attend()
    raise AssertionError(f"the job does not end: {world.state(newest(world))}")


def texts_of(world: World) -> Iterator[tuple[str, str]]:
    """Return all that Temporal and the bucket hold."""
    for name, content in world.bucket.contents.items():
        yield name, name + content.decode(errors="replace")
    for server in world.servers:
        for run in server.runs:
            for step, commands in run.hosted.history:
                for message in (step, *commands):
                    yield f"the history of {run.workflow_id}", _plain(MessageToJson(message))


def _plain(text: str) -> str:
    """Return JSON with what it holds in base64."""

    def walk(value: object) -> Iterator[str]:
        if isinstance(value, dict):
            for name, inner in value.items():
                if name == "data" and isinstance(inner, str):
                    yield base64.b64decode(inner).decode(errors="replace")
                else:
                    yield name
                    yield from walk(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(inner)
        elif isinstance(value, str):
            yield value

    return "\n".join(walk(json.loads(text)))
