"""The gate of a queue of creates: it holds the queue by its rate while no create can succeed, or while it is paused.

Jobs wait in the queue, and do nothing. One of those that were refused tries again from time to time, through a queue
of its own; when its create is taken, the rate of the queue rises step by step.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.gate import CreateRateInput, GateActivities
    from seedance_temporal.contract import Queues
    from seedance_temporal.gate_contract import (
        GATE,
        MEMO_HOLD,
        SIGNAL_PAUSE,
        SIGNAL_PROBE,
        SIGNAL_REPORTED,
        SIGNAL_UNPAUSE,
        Closing,
        GateInput,
        GateReport,
        GateState,
        Hold,
        Pause,
        probe_queue,
    )
    from seedance_temporal.identity import is_job_id
    from workflows import policies
    from workflows.waits import history_is_long, until


@workflow.defn(name=GATE)
class CreateGate:
    """Hold a queue of creates, probe, and open it again; end when it is open."""

    @workflow.init
    def __init__(self, gate: GateInput) -> None:
        state = gate.state
        self._route, self._queue = gate.route, gate.queue
        self._queues = Queues(gate.route)
        self._pause = state.pause
        self._closing = state.closing
        self._ramp = state.ramp
        self._step_ends = state.step_ends
        self._unproven = state.unproven
        self._refused = state.refused
        self._probers = list(state.probers)
        self._probe_seconds = state.probe_seconds
        self._shares = dict(state.shares)
        self._probing: str | None = None
        self._changes = 0
        self._problem = ""
        self._not_allowed = 0
        self._opened_at = workflow.now()

    @workflow.run
    async def run(self, gate: GateInput) -> None:
        """Do what the state asks for, until the queue is open at its configured rate."""
        while True:
            if history_is_long():
                workflow.continue_as_new(GateInput(route=self._route, queue=self._queue, state=self._state()))
            changes = self._changes
            self._show()
            if not await self._are_rates_set():
                await self._change(changes, self._pause_until_rate(), "try again to set the rate")
                continue
            if self._changes != changes:
                continue
            if self._pause is not None:
                self._step_ends = None  # no create tries the rate of the step
                await self._change(changes)
            elif self._closing is not None:
                if not await self._change(changes, self._closing.probe_at - workflow.now(), "probe"):
                    await self._probe()
            elif self._ramp is not None:
                # A time: signals do not prolong the step.
                step = timedelta(seconds=policies.RAMP_STEP * self._probe_seconds)
                self._step_ends = self._step_ends or workflow.now() + step
                if not await self._change(changes, self._step_ends - workflow.now(), "raise the rate"):
                    self._raise_rate()
            else:
                return

    async def _change(self, changes: int, within: timedelta | None = None, then: str | None = None) -> bool:
        """Wait for a signal; return whether one came in time."""
        return await until(lambda: self._changes != changes, within, then)

    # Rates

    async def _are_rates_set(self) -> bool:
        """Set the rates that are not set yet; return False where Temporal does not let the worker do it for now.

        Raises:
            ActivityError: Temporal does not, and the gate has held nothing yet: it fails, and jobs wait for themselves.
        """
        was = self._problem
        try:
            await self._set_rates()
        except ActivityError as error:
            refusal = error.cause
            # A gate that fails later would leave behind the rate that it set last, for good.
            if not isinstance(refusal, ApplicationError) or refusal.type != "RateNotAllowed" or self._holds_nothing_yet:
                raise
            self._problem = refusal.message
            self._not_allowed += 1
        else:
            self._problem, self._not_allowed = "", 0
        if self._problem != was:
            self._show()
        return not self._problem

    @property
    def _holds_nothing_yet(self) -> bool:
        return not self._shares and (self._pause is not None or self._closing is not None)

    def _pause_until_rate(self) -> timedelta:
        longest = policies.RATE_NOT_ALLOWED_LONGEST_PAUSE
        # A power of hundreds would not be a time any more.
        pause: timedelta = policies.RATE_NOT_ALLOWED_PAUSE * 2 ** min(self._not_allowed - 1, 20)
        return min(pause, longest)

    async def _set_rates(self) -> None:
        """Set the rates that are not set yet.

        Raises:
            ActivityError: Temporal does not let the worker set rates.
        """
        share = None
        if self._pause is not None or self._closing is not None:
            share = 0.0
        elif self._ramp is not None:
            share = policies.RAMP[self._ramp]
        # A pause holds the probe as well.
        of_probes = 0.0 if self._pause is not None else None
        why = self._pause.why if self._pause is not None else str(self._hold() or "")
        for queue, wanted in ((self._queue, share), (probe_queue(self._queue), of_probes)):
            if queue in self._shares and self._shares[queue] == wanted:
                continue
            await workflow.execute_activity_method(
                GateActivities.set_create_rate,
                CreateRateInput(queue=queue, share=wanted, why=why),
                task_queue=self._queues.workflows,
                start_to_close_timeout=policies.SET_RATE_TIMEOUT,
                retry_policy=policies.SET_RATE_RETRY,
                summary=f"{queue}: {'the configured rate' if wanted is None else f'{wanted:.0%} of the rate'}",
            )
            self._shares[queue] = wanted

    def _raise_rate(self) -> None:
        assert self._ramp is not None
        self._ramp, self._step_ends = self._ramp + 1, None
        if self._ramp == len(policies.RAMP):
            self._ramp, self._unproven, self._refused = None, None, 0
            self._probers.clear()

    def _open(self) -> None:
        """Begin the ramp."""
        self._closing, self._ramp, self._opened_at = None, 0, workflow.now()
        self._step_ends = None

    # Probes

    async def _probe(self) -> None:
        """Have one job send its create; the next one where that job does not. Without any, open at the lowest rate."""
        assert self._closing is not None
        if self._closing.attention == "credentials" and not await self._is_key_accepted():
            self._wait_longer()
            return
        while self._closing is not None and self._pause is None and self._probers:
            self._probing = prober = self._probers[0]
            self._show()
            if await self._ask(prober):
                purpose = f"the create of {prober} is not answered: ask another job"
                await until(
                    lambda: self._probing is None or self._pause is not None or self._closing is None,
                    policies.PROBE_GRACE,
                    purpose,
                )
            answered = self._probing is None
            self._probing = None
            if self._pause is not None or (answered and prober in self._probers):
                return  # refused again
            if not answered and prober in self._probers:  # not where the create of another job was taken meanwhile
                self._probers.remove(prober)
        if self._closing is not None and self._pause is None:
            # Whichever create comes first then says whether the provider takes any.
            self._unproven = self._closing.since
            self._open()

    async def _is_key_accepted(self) -> bool:
        try:
            return await workflow.execute_activity_method(
                GateActivities.is_key_accepted,
                task_queue=self._queues.get,
                schedule_to_close_timeout=policies.KEY_ACCEPTED_WITHIN,
                retry_policy=policies.KEY_ACCEPTED_RETRY,
                summary="GET, which is free: is the API key accepted?",
            )
        except ActivityError:
            return False

    async def _ask(self, job_id: str) -> bool:
        """Ask a job to probe; return False where it has ended."""
        try:
            await workflow.get_external_workflow_handle(job_id).signal(SIGNAL_PROBE)
        except ApplicationError:
            return False
        return True

    def _wait_longer(self) -> None:
        if self._closing is None:  # the create of a job was taken while the key was tried
            return
        self._refused += 1
        self._closing = self._closing.model_copy(update={"probe_at": self._next_probe()})

    def _next_probe(self) -> datetime:
        # A power of years would not be a number any more, and a handler must not raise.
        times = min(2 ** min(self._refused, policies.LONGEST_PROBE_PAUSE), policies.LONGEST_PROBE_PAUSE)
        return workflow.now() + timedelta(seconds=self._probe_seconds * times)

    # State

    def _state(self) -> GateState:
        return GateState(
            pause=self._pause,
            closing=self._closing,
            ramp=self._ramp,
            step_ends=self._step_ends,
            unproven=self._unproven,
            refused=self._refused,
            probers=tuple(self._probers),
            probe_seconds=self._probe_seconds,
            shares=self._shares,
        )

    def _hold(self) -> Hold | None:
        if self._pause is not None:
            pause = self._pause
            return Hold(queue=self._queue, kind="paused", why=pause.why, since=pause.since, by=pause.by)
        if self._closing is not None:
            return Hold(
                queue=self._queue,
                kind="closed",
                why=self._closing.why,
                since=self._closing.since,
                prober=next(iter(self._probers), None),
                probe_at=self._closing.probe_at if self._probing is None else None,
            )
        if self._ramp is not None or self._problem:
            return Hold(queue=self._queue, kind="ramping", since=self._opened_at)
        return None

    def _show(self) -> None:
        """Show the hold in the memo, which is read without a worker, and in Temporal's UI."""
        hold = self._hold()
        if hold is not None:
            hold = hold.model_copy(update={"problem": self._problem})
        if hold != workflow.memo_value(MEMO_HOLD, None, type_hint=Hold):
            workflow.upsert_memo({MEMO_HOLD: hold})
        workflow.set_current_details(str(hold or "Creates are not held."))

    # Handlers: they never raise, because a failing one would block the run for good

    @workflow.signal(name=SIGNAL_REPORTED)
    async def reported(self, *args: Any) -> None:
        """Take in how the create of a job went."""
        try:
            report = GateReport.model_validate(args[0])
        except (ValidationError, IndexError):
            return
        # Temporal takes no signal to an absurd id: the gate would fail its task for ever.
        if not is_job_id(report.job_id):
            return
        self._changes += 1
        answers_probe = report.job_id == self._probing
        if answers_probe:
            self._probing = None
        self._probers = [job_id for job_id in self._probers if job_id != report.job_id]
        if report.answer == "opened":
            self._refused, self._unproven = 0, None
            self._probers.clear()
            if self._closing is not None:
                self._open()
        elif report.answer == "closed":
            # At the end: the next probe is that of another job, whose request can be of another model.
            self._probers = [*self._probers, report.job_id][: policies.MOST_PROBERS]
            self._close(report, answers_probe=answers_probe)

    def _close(self, report: GateReport, *, answers_probe: bool) -> None:
        closing, since = self._closing, self._unproven
        # Where no job was left to probe, the queue was opened, and its first create was the probe.
        self._refused += answers_probe or since is not None
        self._ramp, self._unproven, self._probe_seconds = None, None, report.probe_seconds
        probe_at = closing.probe_at if closing is not None and not answers_probe else self._next_probe()
        self._closing = Closing(
            why=report.why,
            attention=report.attention,
            since=closing.since if closing is not None else since or workflow.now(),
            probe_at=report.reset_at or probe_at,
        )

    @workflow.signal(name=SIGNAL_PAUSE)
    async def pause(self, *args: Any) -> None:
        """Hold all creates, also probes."""
        try:
            self._pause = Pause.model_validate(args[0])
        except (ValidationError, IndexError):
            self._pause = Pause(since=workflow.now())
        self._changes += 1

    @workflow.signal(name=SIGNAL_UNPAUSE)
    async def unpause(self, *_: Any) -> None:
        """Hold no more than the provider does."""
        self._pause = None
        self._changes += 1
