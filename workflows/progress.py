"""Show the state of a run in the state query, the search attributes, and the current details of Temporal's UI."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.ledger import RunContext
    from activities.poll import Observation
    from seedance_temporal import contract
    from seedance_temporal.contract import Carried
    from seedance_temporal.events import Event, EventName, EventSource
    from seedance_temporal.identity import hash_of_job, user_hash
    from seedance_temporal.job import Attention, JobDetail, JobError, JobState, Phase, VideoResult
    from seedance_temporal.ledger.decisions import Decision
    from seedance_temporal.metrics import ATTENTIONS_RAISED, CREATES, class_of
    from seedance_temporal.provider.billing import is_billed, tokens
    from seedance_temporal.provider.prices import UNKNOWN, Cost, cost_in
    from seedance_temporal.provider.task import QUEUED, rank
    from seedance_temporal.request import VideoRequest
    from seedance_temporal.urls import one_line
    from workflows.messages import advice_on_second_task, advice_on_unknown_attempt
    from workflows.ui_details import details
    from workflows.upserts import Upserts
    from workflows.waits import until

# The first and the newest events of a job explain most of it; a poll that shows nothing new only increases a count.
_FIRST_EVENTS = 20
_NEWEST_EVENTS = 80
# The timeline is handed to activities, whose arguments have 2 MB at most.
_LONGEST_DETAIL = 2_000


class Progress:
    """The state of a job, as callers and operators see it."""

    def __init__(self, request: VideoRequest, carried: Carried) -> None:
        self._job_id = workflow.info().workflow_id
        self._request = request
        self._user: str | None = None
        self._advice = carried.advice
        self._provider_status: str | None = None
        self._awaited: str | None = None
        self._continues_at: datetime | None = None
        self._expected_at: datetime | None = None
        self._waits_for: str | None = None
        self._billed: tuple[Cost, int | None] = (UNKNOWN, None)
        self._result: VideoResult | None = None
        self._error: JobError | None = None
        self._second_task: str | None = None
        self._unknown_attempt: int | None = None
        self._upserts = Upserts()
        self._retries = 0
        self._started_at = carried.started_at or workflow.info().start_time
        self.context = RunContext()
        self.timeline = carried.timeline
        self.warnings = carried.warnings
        self.phase: Phase = "checking"
        self.attention = carried.attention
        self.task_id: str | None = None
        self.attempt: int | None = None

    def begin(self, context: RunContext) -> None:
        """Take over what the worker knows of the job: search attributes, folder, estimates and warnings."""
        self.context = context
        self._upserts.known = context.search_attributes
        if context.search_attributes:
            shown = user_hash(self._request.user_id) if context.hash_users else self._request.user_id
            self._user = context.user or shown
        self._upserts.attributes(
            {
                contract.SEEDANCE_USER: self._user,
                contract.SEEDANCE_ROUTE: self._request.route,
                contract.SEEDANCE_MODEL: self._request.model,
                contract.SEEDANCE_PHASE: self.phase,
            }
        )
        estimates = {
            contract.MEMO_ESTIMATED_TOKENS: context.estimated_tokens,
            contract.MEMO_ESTIMATED_USD: context.estimated_usd,
            contract.MEMO_ESTIMATED_CNY: context.estimated_cny,
        }
        # A client that knows the prices has given them at the start, which costs no event.
        missing = {name: value for name, value in estimates.items() if value is not None}
        if any(workflow.memo().get(name) != value for name, value in missing.items()):
            self._upserts.memo(missing)
        self.warn(*context.warnings)

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs."""
        self._upserts.write()
        return carried.model_copy(
            update={
                "timeline": self.timeline,
                "started_at": self._started_at,
                "warnings": self.warnings,
                "attention": self.attention,
                "advice": self._advice,
            }
        )

    def warn(self, *warnings: str) -> None:
        """Add warnings that are not shown yet."""
        self.warnings = tuple(dict.fromkeys([*self.warnings, *warnings]))
        self._show()

    def note(
        self,
        event: EventName,
        source: EventSource,
        detail: str | None = None,
        *,
        task_id: str | None = None,
        attempt: int | None = None,
    ) -> None:
        """Add an event to the timeline; count an event that repeats the one before it."""
        detail = detail[:_LONGEST_DETAIL] if detail is not None else None
        new = Event(at=workflow.now(), event=event, source=source, task_id=task_id, attempt=attempt, detail=detail)
        earlier = self.timeline
        if earlier and (last := earlier[-1]).repeats(new):
            earlier, new = earlier[:-1], last.model_copy(update={"count": last.count + 1})
        first, newest = earlier[:_FIRST_EVENTS], (*earlier[_FIRST_EVENTS:], new)
        self.timeline = first + newest[-_NEWEST_EVENTS:]

    def count_create(self, outcome: str) -> None:
        """Count a create that a worker has started."""
        labels = {"route": self._request.route, "class": class_of(self._request.resolution), "outcome": outcome}
        CREATES.add(workflow.metric_meter(), **labels)

    def enter(self, phase: Phase) -> None:
        """Change the phase."""
        if phase != self.phase:
            self.phase = phase
            if phase not in {"queued", "running"}:
                self._expected_at = None
            self._upserts.attributes({contract.SEEDANCE_PHASE: phase})
        self._show()

    def move_on(self, status: str) -> None:
        """Show that the task is no longer queued, where its status says so.

        A status never goes back; an unknown one is shown as it is, and counts as running.
        """
        if self.phase == "queued" and rank(status) > rank(QUEUED):
            self.enter("running")

    def set_attempt(self, attempt: int | None) -> None:
        """Set the attempt that decides the job now."""
        if attempt != self.attempt:
            self.attempt = attempt
            self._upserts.memo({contract.MEMO_ATTEMPT: attempt})

    def set_task(self, attempt: int, task_id: str) -> None:
        """Set the task that the job follows now."""
        self._error = None
        self.set_attempt(attempt)
        self._name_task(task_id)
        if task_id == self._second_task:
            self._second_task = None
            self.clear("second_task")

    def show_status(self, status: str, source: EventSource) -> None:
        """Show the provider's status of the task that the job follows."""
        self._provider_status = status
        self.note("status", source, status, task_id=self.task_id, attempt=self.attempt)
        self._show()

    def expect(self, at: datetime | None, *, listed: bool = False) -> None:
        """Show when the provider should have the video of the task that the job follows.

        Args:
            listed: Whether lists show it, too, which costs a write of the memo.
        """
        self._expected_at = at
        if listed and (at is not None or contract.MEMO_EXPECTED_AT in workflow.memo()):
            self._upserts.memo({contract.MEMO_EXPECTED_AT: at.isoformat() if at is not None else None})
        self._show()

    async def wait(self, condition: Callable[[], bool], seconds: float, purpose: str, *, shown: bool = True) -> bool:
        """Wait for a condition, or for an operator's retry; return whether one of them came in time.

        Args:
            purpose: The awaited event and the next step; "in 40 s", or a time of day, follows it.
            shown: Whether the next step is a poll or a create, and so part of the state.
        """
        if shown:
            self._awaited, self._continues_at = purpose, workflow.now() + timedelta(seconds=seconds)
            self._show()
        met = await self.until(condition, timedelta(seconds=seconds), f"{purpose} in {seconds:.0f} s")
        self._awaited = self._continues_at = None
        self._show()
        return met

    async def wait_for(self, awaited: str, condition: Callable[[], bool], seconds: float, purpose: str) -> None:
        """Wait as :meth:`wait` does, and show a sentence about the budget or place that is waited for."""
        self._waits_for = awaited
        await self.wait(condition, seconds, purpose)
        self._waits_for = None
        self._show()

    async def until(
        self, condition: Callable[[], bool], within: timedelta | None = None, summary: str | None = None
    ) -> bool:
        """Wait as :func:`workflows.waits.until` does, or until an operator's retry, which counts as met."""
        retries = self._retries
        return await until(lambda: condition() or self._retries != retries, within, summary)

    @property
    def retries(self) -> int:
        """How often an operator asked this run to try at once."""
        return self._retries

    def retry(self) -> None:
        """Have what is waited for tried at once, for an operator: every wait ends."""
        self._retries += 1
        self.note("retry_requested", "operator")

    def need(self, attention: Attention, advice: str, *ways: str) -> None:
        """Raise an Attention, with advice for an operator, and the ways to settle it, each on a line of its own."""
        # Texts of others are part of the advice, and must not look like a way.
        self._advice = advice = "\n".join(map(one_line, (advice, *ways)))
        if attention != self.attention:
            self.attention = attention
            ATTENTIONS_RAISED.add(workflow.metric_meter(), route=self._request.route, kind=attention)
            self.note("attention_raised", "workflow", f"{attention}: {advice}")
            self._upserts.attributes({contract.SEEDANCE_ATTENTION: attention})
        self._show()

    def show_second_task(self, task_id: str | None, unknown_attempt: int | None = None) -> None:
        """Raise an Attention for a task that nobody follows, if there may be one, and no other Attention hides it."""
        self._second_task = task_id or self._second_task
        self._unknown_attempt = unknown_attempt or self._unknown_attempt
        # Only one Attention is shown, and one that keeps the job from going on is more urgent.
        if self.attention is not None:
            return
        if self._second_task is not None:
            self.need("second_task", advice_on_second_task(self._second_task))
        elif self._unknown_attempt is not None:
            self.need("second_task", advice_on_unknown_attempt(self._unknown_attempt))

    def clear_all_but(self, *kept: Attention) -> None:
        """Clear the current Attention, unless it is one of these; ``second_task`` outlives its cause and the job."""
        if self.attention is not None and self.attention not in kept:
            self.clear(self.attention)

    def clear(self, *attentions: Attention) -> None:
        """Clear the current Attention if it is one of these; show the second task that it hid."""
        if self.attention in attentions:
            self.note("attention_settled", "workflow", self.attention)
            self.attention = self._advice = None
            self._upserts.attributes({contract.SEEDANCE_ATTENTION: None})
            self.show_second_task(None)
            self._show()

    def show_stored(self, result: VideoResult) -> None:
        """Show that the video is stored."""
        self._result = result
        self._name_task(result.task_id)
        self.enter("stored")
        self._spend(result)
        self._show()

    def show_ended(self, error: JobError, phase: Phase, spent: Observation | Decision | None) -> None:
        """Show that the job ended without a video, and the usage and cost of its task."""
        self._error = error
        self.set_attempt(error.attempt)
        self._name_task(error.task_id)
        self.enter(phase)
        if is_billed(phase) and spent is not None:
            self._spend(spent)
        self._show()

    def _spend(self, spent: Observation | Decision | VideoResult) -> None:
        self._billed = cost_in(spent), tokens(spent.usage)
        shown: dict[Any, float | None] = {
            contract.SEEDANCE_TOKENS: tokens(spent.usage),
            contract.SEEDANCE_COST_USD: spent.cost_usd,
            contract.SEEDANCE_COST_CNY: spent.cost_cny,
        }
        self._upserts.attributes({key: value for key, value in shown.items() if value is not None})

    def state(self) -> JobState:
        """Return the answer to the state query."""
        cost, tokens = self._billed
        return JobState(
            job_id=self._job_id,
            request_hash=hash_of_job(self._job_id),
            phase=self.phase,
            attention=self.attention,
            task_id=self.task_id,
            attempt=self.attempt,
            result=self._result,
            error=self._error,
            user=self._user,
            route=self._request.route,
            model=self._request.model,
            started_at=self._started_at,
            expected_at=self._expected_at,
            tokens=tokens,
            cost_usd=cost.usd,
            cost_cny=cost.cny,
            estimated_tokens=self.context.estimated_tokens,
            estimated_usd=self.context.estimated_usd,
            estimated_cny=self.context.estimated_cny,
            detail=JobDetail(
                request=self._request,
                provider_status=self._provider_status,
                waits_for=self._waits_for,
                continues_at=self._continues_at,
                advice=self._advice,
                warnings=self.warnings,
                timeline=self.timeline,
            ),
        )

    def _show(self) -> None:
        """Renew the current details; needed after every change that they show."""
        shown = details(self.state(), awaited=self._awaited, folder=self.context.folder)
        workflow.set_current_details("\n\n".join(filter(None, [shown, self.context.about])))

    def _name_task(self, task_id: str | None) -> None:
        if task_id is not None and task_id != self.task_id:
            self.task_id = task_id
            self._upserts.attributes({contract.SEEDANCE_TASK_ID: task_id})
