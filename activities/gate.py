"""Report creates to the gate of their queue, and set the rates that the gate decides on."""

from __future__ import annotations

import asyncio

import httpx
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal.connection import is_unknown_workflow
from seedance_temporal.contract import Queues
from seedance_temporal.gate import is_held, set_rate, signal_gate
from seedance_temporal.gate_contract import SIGNAL_REPORTED, GateReport, gate_id
from seedance_temporal.job import Shape
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings

# A gate that has a worker holds its queue within a second; after fifteen, it does not.
_HELD_TRIES = 75
_HELD_EVERY_SECONDS = 0.2
# These answers do not change when the call is repeated.
_NOT_ALLOWED = {RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED}
# No task has this id. GET is free, and is refused with 401 as a create is.
_NO_TASK = "cgt-20000101000000-none"


class ReportCreateInput(Shape):
    """The report of a job, and the queue of its create."""

    queue: str
    report: GateReport


class CreateRateInput(Shape):
    """The rate to set.

    Attributes:
        share: Of the configured rate; None gives the queue back to the workers' own rate.
        why: Shown with the queue's configuration.
    """

    queue: str
    share: float | None
    why: str = ""


class GateActivities:
    """The calls of jobs to a gate, and of a gate to Temporal and the provider."""

    def __init__(self, ark: Ark, settings: Settings) -> None:
        queues = Queues(settings.ark_route)
        self._ark = ark
        self._settings = settings
        self._per_minute = {
            queues.create: settings.seedance_creates_per_minute,
            queues.create_4k: settings.seedance_creates_per_minute_4k,
        }

    @activity.defn
    async def report_create(self, input: ReportCreateInput) -> bool:
        """Report a create to the gate; return whether the queue is held after a refusal."""
        client, settings = activity.client(), self._settings
        report = input.report.model_copy(update={"probe_seconds": settings.seedance_probe_seconds})
        if report.answer != "closed":
            try:
                await client.get_workflow_handle(gate_id(input.queue)).signal(SIGNAL_REPORTED, report)
            except RPCError as error:
                if not is_unknown_workflow(error):  # a gate that has opened has ended
                    raise
            return False
        gate = await signal_gate(client, settings.ark_route, input.queue, SIGNAL_REPORTED, report)
        for _ in range(_HELD_TRIES):
            # One that may not set rates has failed.
            if (await gate.describe()).status is not WorkflowExecutionStatus.RUNNING:
                return False
            if await is_held(client, input.queue):
                return True
            await asyncio.sleep(_HELD_EVERY_SECONDS)
        return False

    @activity.defn
    async def set_create_rate(self, input: CreateRateInput) -> None:
        """Set the rate of a queue of creates.

        Raises:
            ApplicationError: ``RateNotAllowed``: Temporal does not let this worker set rates.
        """
        # Only queues of creates ramp; a probe queue is held, or not.
        per_second = input.share and input.share * self._per_minute[input.queue] / 60
        try:
            await set_rate(activity.client(), input.queue, per_second, input.why)
        except RPCError as error:
            if error.status not in _NOT_ALLOWED:
                raise
            message = f"Temporal does not let this worker set the rate of {input.queue}: {error.message}"
            raise ApplicationError(message, type="RateNotAllowed", non_retryable=True) from None

    @activity.defn
    async def is_key_accepted(self) -> bool:
        """Ask the provider by a free call whether it accepts the API key.

        Raises:
            httpx.HTTPError: No answer.
        """
        try:
            await self._ark.get(_NO_TASK)
        except ArkError as error:
            return error.status != httpx.codes.UNAUTHORIZED
        return True
