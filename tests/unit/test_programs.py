"""The files of the product: their length, and the help of those that are programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# The child that looks at one file, and the first step of the compose file.
_INTERNAL = {"seedance_temporal/media/probe.py", "deploy/create_bucket.py"}
_MOST_LINES = 400


def _programs() -> list[list[str]]:
    files = [*ROOT.glob("*.py"), *ROOT.glob("dev/**/*.py"), *ROOT.glob("seedance_temporal/**/*.py")]
    names = [file.relative_to(ROOT) for file in files if '__name__ == "__main__"' in file.read_text()]
    commands = []
    for name in sorted(names):
        module = ".".join(name.with_suffix("").parts).removesuffix(".__main__")
        if name.as_posix() not in _INTERNAL:
            commands.append([name.as_posix()] if name.parent == Path() else ["-m", module])
    return commands


def test_no_file_of_the_product_is_too_long() -> None:
    """A newcomer reads a file in one go."""
    rooms = [*ROOT.glob("*.py")]
    for room in ("activities", "deploy", "dev", "seedance_temporal", "workers", "workflows"):
        rooms += ROOT.glob(f"{room}/**/*.py")
    lines = {file.relative_to(ROOT).as_posix(): len(file.read_text().splitlines()) for file in rooms}
    assert len(lines) > 120
    assert {name: count for name, count in lines.items() if count > _MOST_LINES} == {}


@pytest.mark.parametrize("command", _programs(), ids=" ".join)
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--no-such-option", 2)])
def test_program_explains_its_use(command: list[str], word: str, code: int) -> None:
    ran = subprocess.run(
        [sys.executable, *command, word], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert ran.returncode == code, ran.stderr
    said = ran.stdout if code == 0 else ran.stderr
    assert said.lower().lstrip().startswith("usage"), said
    assert word in said
