"""The options by which several commands choose jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer


def moment(text: str) -> datetime:
    """A date, which means its first moment, or a time; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date and no time, such as 2026-11-22 or 2026-11-22T14:30Z") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


UserOption = Annotated[str | None, typer.Option("--user", help="Only this user's jobs.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only jobs of this model, as requests name it.")]
RouteOption = Annotated[str | None, typer.Option("--route", help="Only jobs of this route, such as byteplus.")]
SinceOption = Annotated[
    datetime | None,
    typer.Option("--since", metavar="TIME", parser=moment, help="Only jobs started then or later; UTC."),
]
UntilOption = Annotated[
    datetime | None, typer.Option("--until", metavar="TIME", parser=moment, help="Only jobs started before it; UTC.")
]
