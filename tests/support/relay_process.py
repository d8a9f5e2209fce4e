"""The relay as a process of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.command_line import NOWHERE, script_process

SECRET = "the new secret of the relay"


@asynccontextmanager
async def relay_process(
    streams: dict[str, Any], temporal: str = NOWHERE
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run the relay, and yield its base URL once it answers.

    Args:
        streams: Further arguments of the process, such as its stderr.
        temporal: The address of its Temporal server; by default, none is there.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"SEEDANCE_CALLBACK_SECRET": SECRET, "SEEDANCE_RELAY_PORT": str(port), "TEMPORAL_ADDRESS": temporal}
    base = f"http://127.0.0.1:{port}"
    async with script_process("relay.py", streams=streams, **variables) as process:
        async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    await http.get(f"{base}/healthz")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.05)
        yield base, process
