"""``starter.py`` as people and programs start it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, NamedTuple

from dev.stack import ROOT, Stack

_SECONDS = 120


class Ran(NamedTuple):
    """A command that has ended: its exit code, its answer in JSON, and what it told people."""

    code: int
    answer: Any
    told: str


async def starter(stack: Stack, *arguments: str, stdin: str = "", **changes: str) -> Ran:
    """Runs a command to its end, with ``--json``.

    Args:
        stack: Whose environment it gets.
        stdin: What it can read.
        changes: Variables that differ from the stack's.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "starter.py", *arguments, "--json"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=stack.environment | changes,
        cwd=ROOT,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), _SECONDS)
    assert process.returncode is not None
    assert out, err.decode()
    return Ran(process.returncode, json.loads(out), err.decode())
