"""``pause`` and ``unpause``: send no new creates of a route, and send them again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, get_args

from rich.console import Console
from typer import Option

from seedance_temporal.cli.options import JsonOption
from seedance_temporal.cli.options import route as read_route
from seedance_temporal.cli.output import DONE, out, plain, print_json
from seedance_temporal.cli.runtime import command
from seedance_temporal.client import VideoJobs
from seedance_temporal.gate_contract import Hold
from seedance_temporal.settings import Route
from seedance_temporal.temporal_ui import COMMAND

_RouteOption = Annotated[
    str, Option("--route", metavar="ROUTE", parser=read_route, help="The route, such as byteplus.")
]


@command
async def pause(
    route: _RouteOption,
    why: Annotated[str, Option(help="The reason, which show, list and watch repeat.")] = "",
    as_json: JsonOption = False,
) -> int:
    """Send no new creates of a route until unpause. Jobs wait, and all that is paid goes on."""
    jobs = await VideoJobs.connect()
    await jobs.pause(route, why=why)
    if as_json:
        print_json({"route": route, "paused": True})
    else:
        out.print(f"Paused. All that is paid goes on. To send creates again: {COMMAND} unpause --route {route}")
    return DONE


@command
async def unpause(route: _RouteOption, as_json: JsonOption = False) -> int:
    """End a pause: a worker of the route sends the waiting creates. What the provider has closed stays held."""
    jobs = await VideoJobs.connect()
    was_paused = any(hold.kind == "paused" for hold in await jobs.held(route))
    # Also without a pause: a gate that was terminated has left its rate, and the next one sets it back.
    await jobs.unpause(route)
    if as_json:
        print_json({"route": route, "paused": False, "was_paused": was_paused})
    elif was_paused:
        out.print("Unpaused. A worker of the route sends the waiting creates.")
    else:
        out.print(f"No pause of {route} was found. A rate that an ended gate left is set back.")
    return DONE


async def holds_of(jobs: VideoJobs, route: str | None = None) -> list[Hold]:
    """Return the holds of a route, by default of all: a pause is to be seen also where no job is open."""
    return [hold for each in ([route] if route else get_args(Route)) for hold in await jobs.held(each)]


def print_holds(holds: Iterable[Hold], say: Console) -> None:
    for hold in holds:
        say.print(f"[yellow]{plain(str(hold))}[/]")
