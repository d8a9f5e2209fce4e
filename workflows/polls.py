"""Show what the polls of a task say, and call an operator where they say it for too long."""

from __future__ import annotations

from typing import Self

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.poll import Observation
    from seedance_temporal.contract import Carried
    from seedance_temporal.events import EventSource
    from seedance_temporal.job import Attention
    from seedance_temporal.provider.task import QUEUED, RUNNING
    from workflows import messages
    from workflows.progress import Progress
    from workflows.waits import patience_ends

# A poll that shows a task which goes on, or has its video, settles these.
SETTLED_BY_POLL: tuple[Attention, ...] = ("account", "credentials", "task_gone", "ledger_damaged", "provider")


class Polls:
    """The polls of one run.

    Attributes:
        count: How many there were of the task that is followed.
        refused: How often in a row the provider refused key or account.
        unknown_since: Since when the task has a status that is not known.
    """

    def __init__(self, progress: Progress, carried: Carried) -> None:
        self._progress = progress
        self.count = 0
        self.refused = 0
        self.unknown_since = carried.status_unknown_since

    def begin(self) -> Self:
        """Begin with a task."""
        self.count = self.refused = 0
        return self

    def show(self, seen: Observation, how: EventSource, trouble: str) -> None:
        """Show a task that goes on. ``trouble``: advice on what else the provider does not serve."""
        self.count += 1
        self.refused = self.refused + 1 if seen.attention in {"account", "credentials"} else 0
        if seen.attention is not None:
            self._progress.need(seen.attention, messages.advice_on_task(seen))
            return
        self._progress.expect(seen.expected_at)
        self._progress.show_status(seen.status, how)
        self._progress.move_on(seen.status)
        if seen.status in {QUEUED, RUNNING}:
            self.unknown_since = None
        else:
            self.unknown_since = self.unknown_since or workflow.now()
        advice, since = trouble, self.unknown_since
        if since is not None and patience_ends(since, seen.wait_seconds):
            advice = messages.advice_on_status(seen.status, since)
        lasts = bool(since or advice)
        self._progress.clear(*(each for each in SETTLED_BY_POLL if each != "provider" or not lasts))
        if advice:
            self._progress.need("provider", advice)
