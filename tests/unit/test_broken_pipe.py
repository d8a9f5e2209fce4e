"""A command whose reader has gone, as in `show JOB | head`, ends without a traceback."""

from __future__ import annotations

import subprocess
import sys

_COMMAND = """
from seedance_temporal.cli.output import out
from seedance_temporal.cli.runtime import command

@command
async def run() -> int:
    for number in range(100_000):
        out.print(number)
    return 0

run()
"""


def test_gone_reader_ends_command_quietly() -> None:
    process = subprocess.Popen([sys.executable, "-c", _COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) != 0
    assert "never retrieved" not in said
    assert "BrokenPipe" not in said
