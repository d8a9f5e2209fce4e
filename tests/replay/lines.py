"""The lines of the workflows that replays run, so that a way through them without a recorded history is noticed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.replay.histories import ROOT

Line = tuple[str, int]
"""A file below the root, and a number."""


@contextmanager
def noted(seen: set[Line], folder: Path) -> Iterator[None]:
    """Note each line of a folder's files that this thread runs."""
    inside, root = f"{folder}/", f"{ROOT}/"

    def on_line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            seen.add((frame.f_code.co_filename.removeprefix(root), frame.f_lineno))
        return on_line

    def on_call(frame: FrameType, event: str, _: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(inside) else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_of(folder: Path) -> dict[Line, str]:
    """Return the lines in the functions of a folder's files, with their text."""
    found = dict[Line, str]()
    for file in sorted(folder.glob("*.py")):
        text = file.read_text()
        lines = text.splitlines()
        for code in _functions(compile(text, str(file), "exec")):
            for _, _, number in code.co_lines():
                # The first line is that of the signature, and runs where the function is made.
                if number is not None and number != code.co_firstlineno:
                    found[str(file.relative_to(ROOT)), number] = lines[number - 1].strip()
    return found


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Return the code of all functions within a code, but not of modules and classes."""
    if code.co_flags & inspect.CO_OPTIMIZED:
        yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _functions(constant)
