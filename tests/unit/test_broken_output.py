"""A command whose output nobody takes ends without a traceback: `show JOB | head`, a full disk, an old encoding."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_COMMAND = """
import typer

from seedance_temporal.cli.output import out, print_json
from seedance_temporal.cli.runtime import command

@command
async def run() -> int:
    for number in range(100_000):
        out.print(number)
    return 0

@command
async def run_json() -> int:
    for number in range(100_000):
        print_json({"number": number})
    return 0

@command
async def run_short() -> int:
    print_json({"prompt": "a"})
    out.print("Ein Wörtchen: 动画 \\ud800")
    return 0

typer.run(NAME)
"""


def _run(name: str, **given: object) -> subprocess.Popen[bytes]:
    code = _COMMAND.replace("NAME", name)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, **given)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("name", ["run", "run_json"])
def test_gone_reader_ends_command_quietly(name: str) -> None:
    process = _run(name, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() in {b"0\n", b"{\n"}
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) != 0
    assert said == ""


@pytest.mark.parametrize("name", ["run", "run_json", "run_short"])
def test_full_disk_is_said_in_one_sentence(name: str) -> None:
    with open("/dev/full", "wb") as full:
        _, said = _run(name, stdout=full).communicate(timeout=60)
    assert said.decode().count("\n") == 1
    assert said.startswith(b"The output cannot be written: No space left on device. What was submitted goes on")


def test_old_encoding_loses_no_output() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    shown, said = _run("run_short", stdout=subprocess.PIPE, env=environment).communicate()
    assert said == b""
    assert b"Ein W\\xf6rtchen: \\u52a8\\u753b \\ud800" in shown


@pytest.mark.parametrize("words", [["--help"], ["submit", "--help"], ["models"]])
def test_full_disk_hides_no_traceback_in_help(words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        ran = subprocess.run(
            [sys.executable, "starter.py", *words], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert ran.returncode == 1
    assert b"Traceback" not in ran.stderr
    assert b"No space left on device" in ran.stderr


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2), (0,)])
def test_closed_streams_are_no_failure(closed: tuple[int, ...]) -> None:
    def close() -> None:
        for stream in closed:
            os.close(stream)

    words = ["check", "-"] if 0 in closed else ["models"]
    ran = subprocess.run(
        [sys.executable, "starter.py", *words], capture_output=True, timeout=60, check=False, preexec_fn=close
    )
    assert ran.returncode == (2 if 0 in closed else 0)
    assert b"Traceback" not in ran.stderr
    assert (b"standard input is closed" in ran.stderr) == (0 in closed)
