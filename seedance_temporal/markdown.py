"""Markdown for the Temporal UI, which may hold what others wrote."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What others wrote must not become a link, a picture or a table.
_MARKUP = re.compile(r"([\\`*_\[\]<>|#!~])")


def plain(text: str) -> str:
    """A text as it stands, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def code(text: str) -> str:
    """A command, to be copied."""
    return f"```\n{text}\n```"


def table(rows: Mapping[str, str]) -> str:
    """Two columns; a row without a value is left out."""
    return "\n".join(["| | |", "| -- | -- |", *(f"| {name} | {value} |" for name, value in rows.items() if value)])


def money(usd: float | None, tokens: int | None) -> str:
    """What something costs; empty where that is not known."""
    words = [] if usd is None else [f"{usd:.4f} USD"]
    return ", ".join(words if tokens is None else [*words, f"{tokens:,} tokens"])
