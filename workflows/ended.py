"""The end of a job without a video."""

from __future__ import annotations

from dataclasses import dataclass

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.poll import Observation
    from seedance_temporal.events import EventSource
    from seedance_temporal.job import JobError
    from seedance_temporal.ledger.decisions import Decision


@dataclass(eq=False)
class Ended(Exception):
    """The job is to end without a video, unless the ledger shows a task of it by now."""

    error: JobError
    how: EventSource
    spent: Observation | Decision | None = None
