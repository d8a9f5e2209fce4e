"""Show what the polls of a task say."""

from __future__ import annotations

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.poll import Observation
    from seedance_temporal.events import EventSource
    from seedance_temporal.job import Attention
    from workflows import messages
    from workflows.progress import Progress

# A poll that shows a task which goes on, or has its video, settles these.
SETTLED_BY_POLL: tuple[Attention, ...] = ("account", "credentials", "task_gone", "ledger_damaged", "provider")


class Polls:
    """The polls of one task in one run.

    Attributes:
        count: How many there were.
        refused: How often in a row the provider refused key or account.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.count = 0
        self.refused = 0

    def show(self, seen: Observation, how: EventSource) -> None:
        """Show a task that goes on."""
        self.refused = self.refused + 1 if seen.attention in {"account", "credentials"} else 0
        if seen.attention is not None:
            self._progress.need(seen.attention, messages.advice_on_task(seen))
            return
        self._progress.show_status(seen.status, how)
        self._progress.move_on(seen.status)
        self._progress.clear(*SETTLED_BY_POLL)
