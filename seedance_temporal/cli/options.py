"""The options that choose jobs, shared by several commands."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer


def moment(text: str) -> datetime:
    """Read a time, or a date as its first moment; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date or time; give one as 2026-11-22 or 2026-11-22T14:30Z") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


UserOption = Annotated[str | None, typer.Option("--user", help="Only this user's jobs.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Only jobs of this model id.")]
RouteOption = Annotated[str | None, typer.Option("--route", help="Only jobs of this route, such as byteplus.")]
SinceOption = Annotated[
    datetime | None,
    typer.Option("--since", metavar="TIME", parser=moment, help="Only jobs started at this time or later; UTC."),
]
UntilOption = Annotated[
    datetime | None,
    typer.Option("--until", metavar="TIME", parser=moment, help="Only jobs started before it; UTC."),
]
