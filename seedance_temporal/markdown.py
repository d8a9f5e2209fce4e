"""Markdown for the Temporal UI, which may hold what others wrote.

The UI sets tables without space between their columns, and does not wrap blocks of code: so both are lists here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

COMMAND = "python starter.py"
# What others wrote must not become a link or a picture.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#!~])")
_COMMAND_AT_THE_END = re.compile(rf"{re.escape(COMMAND)} [\w -]+\Z")


def plain(text: str) -> str:
    """A text as it stands, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def said(text: str) -> str:
    """A text that may end with a command of ours, which is then shown as one."""
    command = _COMMAND_AT_THE_END.search(text)
    return plain(text) if command is None else f"{plain(text[: command.start()])} `{command[0]}`"


def rows(values: Mapping[str, str]) -> str:
    """A list of names and values; what has no value is left out."""
    return "\n".join(f"- **{name}**: {value}" for name, value in values.items() if value)


def money(usd: float | None, tokens: int | None) -> str:
    """What something costs; empty where that is not known."""
    words = [] if usd is None else [f"{usd:.4f} USD"]
    return ", ".join(words if tokens is None else [*words, f"{tokens:,} tokens"])
