"""Run the command line, in the process of the tests or in one of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from temporalio.client import Client
from typer.testing import CliRunner

from dev.stack import ROOT
from seedance_temporal.cli.main import app
from tests.support.temporal_stub import address

NOWHERE = "127.0.0.1:1"


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Parse all of stdout as one JSON document."""
        return json.loads(self.out)


async def run_command(temporal: Client | None, *arguments: str, stdin: str = "", **variables: str) -> CommandResult:
    """Run a command, in a thread: it has an event loop of its own."""
    server = NOWHERE if temporal is None else address(temporal)
    environment = {"TEMPORAL_ADDRESS": server, "TERM": "dumb"} | variables
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=stdin, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return CommandResult(result.exit_code, result.stdout, result.stderr)


@asynccontextmanager
async def script_process(
    *command: str, streams: dict[str, Any], **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a script of this checkout as a process, and kill it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command), cwd=ROOT, env=os.environ | variables, **streams
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
