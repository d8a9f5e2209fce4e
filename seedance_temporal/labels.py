"""The labels of a request: names and values of the backend's own, such as ``project`` and ``alpha``."""

from __future__ import annotations

import re

MOST_LABELS = 16
_NAME = re.compile(r"[a-z0-9_.-]{1,63}")
_MOST_VALUE = 128


def name_problem(name: str) -> str | None:
    """Return what is wrong with the name of a label; None where nothing is."""
    if _NAME.fullmatch(name):
        return None
    return "is no name of a label: use 1 to 63 of the characters a to z, 0 to 9, dot, hyphen and underscore"


def value_problem(value: str) -> str | None:
    """Return what is wrong with the value of a label; None where nothing is."""
    if not value.strip():
        return "must not be blank"
    if value != value.strip():
        return "begins or ends with white space; take it away: another spelling would be another label"
    if not value.isprintable():
        return "holds a character that cannot be printed; take it out"
    if len(value) > _MOST_VALUE:
        return f"has {len(value)} characters; shorten it to {_MOST_VALUE}"
    return None
