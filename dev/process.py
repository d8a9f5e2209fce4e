"""Child processes that never outlive this one, with a log file each."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A child process.

    Attributes:
        name: For people.
        process: The process itself.
        log: What it prints.
        began: Where in the log that begins, in bytes: a process that was started again goes on in the old one's.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path
    began: int = 0

    def check(self) -> None:
        """Raises if the process has ended, with the end of its log."""
        if self.process.returncode is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")

    async def until_log_says(self, words: str, seconds: float) -> None:
        """Waits until the process has said some words.

        Raises:
            RuntimeError: The process ended before that.
            TimeoutError: It did not say them in time.
        """
        async with asyncio.timeout(seconds):
            while words.encode() not in self.log.read_bytes()[self.began :]:
                self.check()
                await asyncio.sleep(0.05)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends the process by its id: by the signal, and by SIGKILL where that does not help; its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), _STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    async def kill(self) -> None:
        """SIGKILL, as a crash would."""
        await self.stop(signal.SIGKILL)


async def start(name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, *, cwd: Path) -> Child:
    """Starts a process whose output goes to ``<folder>/<name>.log``.

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


def _die_with_parent() -> None:
    """Lets the kernel end this child should its parent be killed: then nobody else could."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
