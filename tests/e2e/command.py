"""``starter.py`` as people and programs start it: a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from dev.stack import ROOT, Stack

# `recover` follows searches that take a minute, on a busy machine.
_SECONDS = 300


class Ran(NamedTuple):
    """A command that has ended: its exit code, its answer in JSON, and its messages."""

    code: int
    answer: Any
    messages: str


async def python(*arguments: str, env: Mapping[str, str], stdin: str = "") -> tuple[int, str, str]:
    """Run a Python program in the repository's root, and return its exit code, output and messages."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        cwd=ROOT,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), _SECONDS)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def starter(stack: Stack, *arguments: str, stdin: str = "", **changes: str) -> Ran:
    """Run a command to its end, with ``--json``.

    Args:
        stack: Whose environment it gets.
        stdin: What it can read.
        changes: Variables that differ from the stack's.
    """
    code, out, err = await python("starter.py", *arguments, "--json", env=stack.environment | changes, stdin=stdin)
    assert out, err
    return Ran(code, json.loads(out), err)
