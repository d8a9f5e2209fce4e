"""Run the command line in the process of the tests."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from temporalio.client import Client
from typer.testing import CliRunner

from seedance_temporal.cli.main import app
from tests.support.temporal_stub import address

NOWHERE = "127.0.0.1:1"


class Said(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Parse all of stdout as one JSON document."""
        return json.loads(self.out)


async def say(temporal: Client | None, *arguments: str, stdin: str = "", **variables: str) -> Said:
    """Run a command, in a thread: it has an event loop of its own."""
    server = NOWHERE if temporal is None else address(temporal)
    environment = {"TEMPORAL_ADDRESS": server, "TERM": "dumb"} | variables
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Said(result.exit_code, result.stdout, result.stderr)
