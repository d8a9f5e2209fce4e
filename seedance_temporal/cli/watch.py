"""``watch``: all open jobs of a user or of a batch, refreshed in place."""

from __future__ import annotations

import asyncio
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from typer import Argument, Option

from seedance_temporal.cli.live import table_of
from seedance_temporal.cli.options import UserOption
from seedance_temporal.cli.output import DONE, SHOW, out, print_table
from seedance_temporal.cli.pause import holds_of
from seedance_temporal.cli.report_table import exposure
from seedance_temporal.cli.runtime import command
from seedance_temporal.client import VideoJobs
from seedance_temporal.errors import InvalidRequest, Problem
from seedance_temporal.gate_contract import Hold
from seedance_temporal.job import JobState
from seedance_temporal.reports.figures import accounts_of, figures
from seedance_temporal.urls import printable

# The visibility store lags by about as much.
_EVERY_SECONDS = 2.0


@command
async def watch(
    results: Annotated[
        Path | None, Argument(metavar="[RESULTS]", help="Only the jobs of a batch, by its results file.")
    ] = None,
    user: UserOption = None,
    once: Annotated[bool, Option("--once", help="Show them once, and end.")] = False,
) -> int:
    """Show all open jobs until none is open, those that need an operator first. Ctrl-C does not stop the jobs."""
    jobs = await VideoJobs.connect()
    draws = out.is_terminal and not once
    printed: set[object] | None = None
    with Live(console=out, auto_refresh=False, vertical_overflow="crop") if draws else nullcontext() as live:
        while True:
            # Read each time: a batch that is still submitting adds to it.
            job_ids = job_ids_of(results) if results is not None else None
            found = await jobs.list(user=user, job_ids=job_ids, is_open=True, limit=None)
            holds = await holds_of(jobs)
            states: set[object] = {(job.job_id, job.phase, job.attention, job.task_id) for job in found}
            states |= set(map(str, holds))
            if live is not None:
                live.update(_shown(found, holds), refresh=True)
            elif states != printed:
                print_table(_shown(found, holds))
                printed = states
            if once or not found:
                return DONE
            await asyncio.sleep(_EVERY_SECONDS)


def _shown(found: list[JobState], holds: list[Hold]) -> RenderableType:
    held = [Text(printable(str(hold)), style="yellow") for hold in holds]
    if not found:
        return Group(Text("No job is open."), *held)
    waiting = sum(job.attention is not None for job in found)
    count = f"{len(found):,} open"
    if waiting:
        count += f", {waiting:,} of them need an operator; for advice: {SHOW} JOB"
    if can_cost := exposure(figures(accounts_of(found))):
        count += f"; {can_cost}"
    return Group(Text(count), *held, table_of(found))


def job_ids_of(results: Path) -> set[str]:
    """Read the ids of jobs from a batch's results file. Lines of invalid requests have none.

    Raises:
        InvalidRequest: The file cannot be read, or is no results file.
    """
    try:
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {str(line["job_id"]) for line in lines if line.get("job_id")}
    except OSError as error:
        problem = f"{results} cannot be read: {error.strerror}"
    except (ValueError, AttributeError, RecursionError):
        problem = f"{results} is no results file: each of its lines must be a JSON object"
    raise InvalidRequest([Problem(at="RESULTS", problem=problem)])
