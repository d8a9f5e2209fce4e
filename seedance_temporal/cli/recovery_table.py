"""The jobs of ``recover``: by their ledgers, by Temporal, and what was done with each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from seedance_temporal.cli.output import DONE, exit_code, plain
from seedance_temporal.job import JobState

if TYPE_CHECKING:
    from seedance_temporal.recovery import LedgerJob

# The progress of a job that is paid for, or may be.
PAID = {"task_known", "create_unknown"}
# Of a prompt in the table; --json has all of it.
_LONGEST_PROMPT = 60


@dataclass
class Row:
    """A job of the plan.

    Attributes:
        job: By its ledger.
        known: By Temporal, when the plan was made; None where Temporal has lost it.
        state: The last known one, of a run that goes on or was started.
        action: What was done with it.
        problem: Why it was not resubmitted.
    """

    job: LedgerJob
    known: JobState | None = None
    state: JobState | None = None
    action: str | None = None
    problem: str | None = None

    @property
    def runs(self) -> bool:
        return self.known is not None and not self.known.ended

    @property
    def is_open(self) -> bool:
        """Whether the job is not settled. Its end may be known to Temporal alone, as where it was cancelled early."""
        if self.job.progress == "not_created" and self.known is not None and self.known.ended:
            return self.known.error is not None and self.known.error.failure_class == "unsettled"
        return self.job.progress not in {"stored", "ended"}

    @property
    def is_followed(self) -> bool:
        is_paid = self.job.progress in PAID
        return self.action == "started" or (is_paid and (self.runs or self.action is not None))

    @property
    def code(self) -> int:
        """The exit code for how it ended, if it was followed. Where nothing was created, no video is missing."""
        if self.state is None or (self.state.error is not None and self.state.error.failure_class == "unsettled"):
            return DONE
        return exit_code(self.state)

    def document(self) -> dict[str, Any]:
        job, state = self.job, self.state or self.known
        return {
            "job_id": job.job_id,
            "progress": job.progress,
            "attempt": job.attempt,
            "task_id": job.task_id,
            "claimed_at": job.claimed_at.isoformat(),
            "may_be_billed": job.may_be_billed,
            "run": None if self.known is None else "open" if self.runs else "closed",
            "action": self.action,
            "phase": state.phase if state is not None else None,
            "attention": state.attention if state is not None else None,
            "error": state.error.model_dump(mode="json", by_alias=True) if state is not None and state.error else None,
            "problem": self.problem,
            "request": job.request.model_dump(mode="json", exclude_none=True),
        }


def table_of(rows: Sequence[Row]) -> Table:
    """Return jobs with their requests, as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("job", "by the ledger", "attempt", "claimed (UTC)", "run", "request"):
        table.add_column(column, overflow="fold")
    for row in rows:
        job, request = row.job, row.job.request
        run = "lost" if row.known is None else "open" if row.runs else "closed"
        more = job.task_id or ("an attempt before it may be billed" if job.may_be_billed else "")
        progress = job.progress.replace("_", " ") + (f" ({more})" if more else "")
        prompt = request.prompt or ""
        short = prompt if len(prompt) <= _LONGEST_PROMPT else f"{prompt[:_LONGEST_PROMPT]}…"
        wanted = f"{request.user_id}: {request.model}, {request.resolution}, {request.duration} s, {short!r}"
        cells = job.job_id, progress, str(job.attempt), f"{job.claimed_at:%Y-%m-%d %H:%M:%S}", run, wanted
        table.add_row(*map(plain, cells))
    return table


def how_ended(state: JobState) -> str:
    """Say how a job ended that was followed."""
    if state.error is not None and state.error.failure_class == "unsettled":
        return "without a task"
    return state.phase if state.ended else f"in need of an operator ({state.attention})"
