"""The local Ark as a process of its own, for as long as a test or a demo needs it."""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from .control import ArkControl

_ROOT = Path(__file__).parents[2]
_SECONDS_TO_END = 5


async def start(*options: str, stderr: IO[bytes] | None = None) -> tuple[Process, str]:
    """Starts the server on a free port; gives the process and the server's root URL.

    Args:
        options: further command line options.
        stderr: where its complaints go, if not to ours.

    Raises:
        RuntimeError: it did not come up; why stands on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dev.ark", "--port", "0", *options, cwd=_ROOT, stdout=PIPE, stderr=stderr
    )
    assert process.stdout is not None
    _, _, url = (await process.stdout.readline()).decode().strip().partition(": ")
    if not url:
        raise RuntimeError(f"the local Ark ended with exit code {await process.wait()}")
    return process, url


async def stop(process: Process) -> int:
    """Ends the server, by force where it does not end by itself; gives the exit code."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _SECONDS_TO_END)
        except TimeoutError:
            process.kill()
    return await process.wait()


@contextlib.asynccontextmanager
async def started(*options: str) -> AsyncIterator[ArkControl]:
    """A server that is ready, and ends with the block."""
    process, url = await start(*options)
    try:
        async with ArkControl(url) as control:
            await control.wait_ready()
            yield control
    finally:
        await stop(process)
