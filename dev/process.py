"""Child processes of tests and demos, which never outlive this one."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dev.ark.control import ArkControl

_ROOT = Path(__file__).parents[1]
_STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A child process with a log file.

    Attributes:
        name: Its name in messages.
        process: The process itself.
        log: The file with its output.
        began: The byte of the log at which its output begins: a process that is started again appends to the old log.
    """

    name: str
    process: Process
    log: Path
    began: int = 0

    def check(self) -> None:
        """Raise a RuntimeError with the end of the log if the process has ended."""
        if self.process.returncode is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")

    async def until_log_says(self, words: str, seconds: float) -> None:
        """Wait until the log holds a text.

        Raises:
            RuntimeError: The process ended before that.
            TimeoutError: The text did not come in time.
        """
        async with asyncio.timeout(seconds):
            while words.encode() not in self.log.read_bytes()[self.began :]:
                self.check()
                await asyncio.sleep(0.05)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process, and return its exit code. See :func:`stop`."""
        return await stop(self.process, number)

    async def kill(self) -> None:
        """End the process by SIGKILL, as a crash would."""
        await self.stop(signal.SIGKILL)


async def start(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, cwd: Path) -> Child:
    """Start a process whose output goes to ``<folder>/<name>.log``.

    Its session is its own, so that Ctrl-C reaches this process alone, which ends the others in order.
    """
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        began = output.tell()
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    return Child(name, process, log, began)


async def stop(process: Process, number: signal.Signals = signal.SIGTERM) -> int:
    """End a process by a signal, or by SIGKILL where it does not end in time. Return its exit code."""
    if process.returncode is None:
        process.send_signal(number)
    try:
        return await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        process.kill()
        return await process.wait()


async def start_ark(*options: str, stderr: IO[bytes] | None = None) -> tuple[Process, str]:
    """Start the local Ark on a free port. Return the process, and the root URL of the server.

    Args:
        options: Further options of its command line.
        stderr: The file for its messages; those of this process by default.

    Raises:
        RuntimeError: It did not start; stderr says why.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dev.ark", "--port", "0", *options, cwd=_ROOT, stdout=PIPE, stderr=stderr
    )
    assert process.stdout is not None
    _, _, url = (await process.stdout.readline()).decode().strip().partition(": ")
    if not url:
        raise RuntimeError(f"the local Ark ended with exit code {await process.wait()}")
    return process, url


@contextlib.asynccontextmanager
async def running_ark(*options: str) -> AsyncIterator[ArkControl]:
    """Run a local Ark that is ready for as long as the block runs."""
    process, url = await start_ark(*options)
    try:
        async with ArkControl(url) as control:
            await control.wait_ready()
            yield control
    finally:
        await stop(process)


def _die_with_parent() -> None:
    """Let the kernel end this child when its parent is killed: nothing else could then."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
