"""The options and arguments that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from typer import Argument, Option

from seedance_temporal.cli.safe_open import ANY_PATH
from seedance_temporal.provider.models import ROUTES


def moment(text: str) -> datetime:
    """Read a time, or a date as its first moment; UTC where it names no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no date or time; give one as 2026-11-22 or 2026-11-22T14:30Z") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def route(text: str) -> str:
    """Read the name of a route."""
    if text not in ROUTES:
        raise typer.BadParameter(f"there is no route {text!r}; there are {', '.join(ROUTES)}")
    return text


def require_order(since: datetime | None, until: datetime | None) -> None:
    """Refuse a span of time that holds nothing."""
    if since is not None and until is not None and since >= until:
        raise typer.BadParameter(f"--since {since:%Y-%m-%dT%H:%M} is not before --until {until:%Y-%m-%dT%H:%M}")


JsonOption = Annotated[bool, Option("--json", help="One JSON document on stdout.")]
AnyPathOption = Annotated[
    bool, Option(ANY_PATH, help="Take local files from outside the folder of the request as well.")
]
RequestArgument = Annotated[str, Argument(metavar="FILE|-", help="The request as JSON; - reads standard input.")]
JobArgument = Annotated[str, Argument(metavar="JOB", help="The job id, its hash, or the first digits.")]

UserOption = Annotated[str | None, Option("--user", help="Only this user's jobs.")]
ModelOption = Annotated[str | None, Option("--model", help="Only jobs of this model id.")]
RouteOption = Annotated[
    str | None, Option("--route", metavar="ROUTE", parser=route, help="Only jobs of this route, such as byteplus.")
]
SinceOption = Annotated[
    datetime | None,
    Option("--since", metavar="TIME", parser=moment, help="Only jobs started at this time or later; UTC."),
]
UntilOption = Annotated[
    datetime | None,
    Option("--until", metavar="TIME", parser=moment, help="Only jobs started before it; UTC."),
]
