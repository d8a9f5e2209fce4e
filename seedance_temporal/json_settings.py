"""Settings that are given as JSON: how their text is read, and the budgets of labels."""

from __future__ import annotations

import json
from collections import Counter
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, model_validator

from seedance_temporal.labels import name_problem, value_problem
from seedance_temporal.urls import printable

# Of a file with rows of models.
_MOST_FILE_CHARACTERS = 1_000_000
_MOST_BUDGETS = 100
_Usd = Annotated[float, Field(gt=0, le=1_000_000_000, allow_inf_nan=False)]


class LabelBudget(BaseModel, frozen=True, extra="forbid", strict=True):
    """The most that all jobs with a label may cost together, in a UTC day and a UTC month; None: no limit."""

    usd_per_day: _Usd | None = None
    usd_per_month: _Usd | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.usd_per_day is None and self.usd_per_month is None:
            raise ValueError("limits nothing: give usd_per_day, usd_per_month, or both")
        return self


def check_budgets(budgets: dict[str, LabelBudget]) -> dict[str, LabelBudget]:
    """Return budgets by label, unchanged; raise ValueError where one is of no label that a request can have."""
    if len(budgets) > _MOST_BUDGETS:
        raise ValueError(f"holds {len(budgets)} labels; {_MOST_BUDGETS} are the most")
    for label in budgets:
        name, equals, value = label.partition("=")
        shown = printable(label[:100])
        if not equals:
            raise ValueError(f"{shown!r} is no label: write name=value, such as project=alpha")
        if problem := name_problem(name) or value_problem(value):
            part = "name" if name_problem(name) else "value"
            raise ValueError(f"{shown!r} is no label of a request: its {part} {problem}")
    return budgets


def decode(text: str, *, or_file: bool) -> object:
    """Decode the JSON of a setting, or of the file that it names; raise ValueError with a sentence where it is none."""
    try:
        is_file = or_file and not text.startswith("{")
        return json.loads(_content_of(text) if is_file else text, object_pairs_hook=_named_once)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _content_of(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MOST_FILE_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ValueError(f"is neither a JSON object nor a file that can be read: {reason}") from None
    if len(text) > _MOST_FILE_CHARACTERS:
        raise ValueError(f"names a file of more than {_MOST_FILE_CHARACTERS:,} characters")
    return text


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; refuse a name that is given twice, of which the last would win silently."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"names {name!r} more than once")
    return dict(pairs)
