"""Draw running jobs on a terminal: one that is followed, or many in a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rich import box
from rich.console import RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from seedance_temporal.job import JobState
from seedance_temporal.provider.prices import estimate_in
from seedance_temporal.urls import printable


class LiveJob:
    """One job, drawn several times a second.

    Attributes:
        job: Its last state; None before the first.
    """

    def __init__(self) -> None:
        self.job: JobState | None = None
        self._since = datetime.now(UTC)
        self._spinner = Spinner("dots")

    def __rich__(self) -> RenderableType:
        words = Text("  ").join(self._words())
        lines = Table.grid(padding=(0, 1))
        lines.add_row(self._spinner, words)
        if self.job is not None and self.job.detail is not None and self.job.detail.advice:
            lines.add_row("", Text(printable(self.job.detail.advice, keep="\n"), style="yellow"))
        return lines

    def _words(self) -> Iterable[Text]:
        yield Text(since(self._since))
        if self.job is None:
            return
        yield Text(self.job.phase, style="bold")
        if self.job.attempt is not None and self.job.attempt > 1:
            yield Text(f"attempt {self.job.attempt}")
        if self.job.task_id is not None:
            yield Text(printable(self.job.task_id))
        detail = self.job.detail
        if detail is not None and detail.provider_status is not None:
            yield Text(printable(f"provider: {detail.provider_status}"))
        if detail is not None and detail.continues_at is not None:
            yield Text(f"continues in {_seconds_until(detail.continues_at):.0f} s")
        if self.job.expected_at is not None:
            yield Text(f"expected in {_seconds_until(self.job.expected_at):.0f} s")
        if estimate := estimate_in(self.job).rounded():
            yield Text(f"at most {estimate}")


def since(at: datetime) -> str:
    """Return the time since then, in hours, minutes and seconds."""
    return str(timedelta(seconds=max(0, int((datetime.now(UTC) - at).total_seconds()))))


def _seconds_until(at: datetime) -> float:
    return max(0.0, (at - datetime.now(UTC)).total_seconds())


def table_of(jobs: Sequence[JobState]) -> Table:
    """Return a table of open jobs: first those that need an operator, then by age."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("needs", style="yellow", no_wrap=True)
    table.add_column("phase", style="bold", no_wrap=True)
    table.add_column("for", justify="right", no_wrap=True)
    table.add_column("expected in", justify="right", no_wrap=True)
    table.add_column("at most", justify="right", no_wrap=True)
    table.add_column("task", no_wrap=True)
    table.add_column("job", no_wrap=True, overflow="ellipsis")
    for job in sorted(jobs, key=lambda job: (job.attention is None, job.started_at)):
        most = estimate_in(job).rounded()
        # Lists do not renew an estimate, and one that is over says nothing.
        left = _seconds_until(job.expected_at) if job.expected_at is not None else 0.0
        expected = str(timedelta(seconds=int(left))) if left else ""
        cells = (job.attention or "", job.phase, since(job.started_at), expected, most, job.task_id or "", job.job_id)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table
