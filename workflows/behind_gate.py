"""The part of a job that knows of its gate: it reports creates, and sends one as the probe where it is asked to."""

from __future__ import annotations

from typing import Literal

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from activities.create import CreateResult
    from seedance_temporal.contract import Carried
    from seedance_temporal.gate_contract import GateReport
    from workflows.progress import Progress
    from workflows.steps import Steps


class BehindGate:
    """Keep what the job knows of the gate of its queue.

    Attributes:
        holds: Whether a create of this job was refused for a reason that concerns every create, and the gate holds the
            queue: the next create waits there.
    """

    def __init__(self, steps: Steps, progress: Progress, carried: Carried) -> None:
        self._steps = steps
        self._progress = progress
        self._asked = carried.asked_to_probe
        self._is_probe = False
        self._retries = 0
        self.holds = carried.behind_gate

    def ask(self) -> None:
        """Have the next create, or the one that waits in the held queue, sent as the probe."""
        self._asked = True

    def begin_create(self) -> bool:
        """Begin a create; return whether it is the probe."""
        self._is_probe, self._asked = self.holds and self._asked, False
        self._retries = self._progress.retries
        return self._is_probe

    @property
    def wants_probe(self) -> bool:
        """Whether the create in the held queue is to be sent as the probe: the gate, or an operator, asked for it."""
        return self.holds and not self._is_probe and (self._asked or self._progress.retries != self._retries)

    async def report(self, result: CreateResult) -> None:
        """Report a create that was refused for all, or one that was sent behind the gate."""
        if result.needs_place:
            # It says nothing about the provider: with a place, the job is still to send the probe.
            self._asked = self._asked or self._is_probe
            return
        if not (result.for_all or self.holds):
            return
        answer: Literal["closed", "opened", "unclear"] = "unclear"
        if result.for_all:
            answer = "closed"
        elif result.kind == "created":
            answer = "opened"
        try:
            self.holds = await self._steps.report_create(
                GateReport(
                    job_id=workflow.info().workflow_id,
                    answer=answer,
                    why=result.message if result.for_all else "",
                    attention=result.attention,
                    reset_at=result.reset_at,
                )
            )
        except ActivityError:
            # Without the gate, the job waits for itself.
            self.holds = False

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs."""
        return carried.model_copy(update={"behind_gate": self.holds, "asked_to_probe": self._asked})
