"""Every activity call of a run, with its queue, time-out, patience and summary."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.common import Priority, RetryPolicy
from temporalio.exceptions import ActivityError, CancelledError, RetryState
from temporalio.types import MethodAsyncSingleParam, ParamType, ReturnType, SelfType

with workflow.unsafe.imports_passed_through():
    from activities.create import CreateActivities, CreateInput, CreateResult
    from activities.gate import GateActivities, ReportCreateInput
    from activities.ledger import (
        EndInput,
        EndResult,
        LedgerActivities,
        OutcomeInput,
        ReadLedgerInput,
        ReadLedgerResult,
    )
    from activities.limits import LimitActivities, QuotaInput, QuotaResult
    from activities.places import AskInput, PlaceActivities
    from activities.poll import CancelResult, GetTaskInput, Observation, PollActivities
    from activities.recover import (
        AbsentInput,
        AskLaterInput,
        IdentifyInput,
        IdentifyResult,
        RecoverActivities,
        ResolveInput,
    )
    from activities.references import ReferenceActivities, ReferencesInput, ReferencesResult
    from activities.store import StoreActivities, StoreInput
    from activities.task_list import AskListerInput, TaskListActivities
    from seedance_temporal.contract import GenerateVideoInput, NamedTask, Queues, Resolve, ResolveAnswer
    from seedance_temporal.events import EventSource
    from seedance_temporal.gate_contract import GateReport, probe_queue
    from seedance_temporal.job import Attention, JobError, VideoResult
    from seedance_temporal.ledger.decisions import Decision
    from seedance_temporal.ledger.facts import Listing
    from seedance_temporal.places import PlaceRequest
    from seedance_temporal.reference_media import Medium
    from workflows import messages, policies
    from workflows.progress import Progress
    from workflows.waits import until


class Steps:
    """The activities of one run.

    Most that read or write the ledger, or GET, are repeated until they succeed; `identify_task`, `resolve_attempt` and
    `cancel_task` give up, because their caller asks again. The create, the check of references
    and the copy are only started here: the workflow listens to its inbox while they run.
    """

    def __init__(self, job: GenerateVideoInput, progress: Progress) -> None:
        self._job = job
        self._job_id = workflow.info().workflow_id
        self._queues = Queues(job.request.route)
        self._create_queue = self._queues.create_for(job.request.resolution)
        self._progress = progress
        self._on_ledger = workflow.ActivityConfig(
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
        )
        self._on_task = workflow.ActivityConfig(
            task_queue=self._queues.get,
            start_to_close_timeout=policies.OBSERVE_TIMEOUT,
            retry_policy=policies.OBSERVE_RETRY,
        )

    # Ledger

    async def read_ledger(self, *, with_context: bool) -> ReadLedgerResult:
        request, resubmit = self._job.request, self._job.resubmit
        input = ReadLedgerInput(
            job_id=self._job_id,
            request=request,
            resubmit=resubmit,
            with_context=with_context,
            continued=self._job.carried is not None,
            may_create=self._job.may_create,
        )
        return await self._insist(LedgerActivities.read_ledger, input, "read the ledger", self._on_ledger)

    async def reserve_quota(self, waits: int) -> QuotaResult:
        """Reserve quota for a create. ``waits``: how often the job has waited for a budget."""
        input = QuotaInput(job_id=self._job_id, request=self._job.request, waits=waits)
        summary = "do limits and budgets allow a create?"
        return await self._insist(LimitActivities.reserve_quota, input, summary, self._on_ledger)

    async def write_outcome(self, input: OutcomeInput) -> None:
        summary = f"write the outcome of attempt {input.claim.attempt}: {input.outcome.kind}"
        await self._insist(LedgerActivities.write_outcome, input, summary, self._on_ledger)

    async def write_end(self, error: JobError, source: EventSource, seen: Observation) -> EndResult:
        input = EndInput(
            job_id=self._job_id,
            error=error,
            source=source,
            usage=seen.usage,
            cost_usd=seen.cost_usd,
            cost_cny=seen.cost_cny,
            timeline=self._progress.timeline,
            may_create=self._job.may_create,
        )
        summary = f"write how attempt {error.attempt} ended: {error.code}"
        return await self._insist(LedgerActivities.write_end, input, summary, self._on_ledger)

    async def ask_lister(self, attempt: int) -> Decision:
        """Ask for the next listing of the account's tasks, and read the ledger."""
        input = AskListerInput(job_id=self._job_id, attempt=attempt)
        summary = f"ask the lister for attempt {attempt}"
        return await self._insist(TaskListActivities.ask_lister, input, summary, self._on_ledger)

    async def settle_absent(self, attempt: int, listings: tuple[Listing, ...]) -> Decision:
        input = AbsentInput(job_id=self._job_id, attempt=attempt, listings=listings)
        summary = f"do listings prove that attempt {attempt} created no task?"
        return await self._insist(RecoverActivities.settle_absent, input, summary, self._on_ledger)

    # Create

    async def check_references(self, count: int, interrupted: Callable[[], bool]) -> ReferencesResult | None:
        """Check the reference media; None where something interrupts that. Call an operator where it takes an hour.

        Raises:
            ActivityError: They could not be checked.
        """
        since = workflow.now()
        for tries_left in reversed(range(policies.REFERENCES_TRIES)):
            try:
                result = await self._check_references_once(count, interrupted)
            except ActivityError as error:
                if interrupted():
                    break
                if error.retry_state is not RetryState.TIMEOUT or not tries_left:
                    raise
                self._progress.need("references", messages.advice_on_references(since, messages.last_failure(error)))
            else:
                self._progress.clear("references")
                return result
        self._progress.clear("references")
        return None

    async def _check_references_once(self, count: int, interrupted: Callable[[], bool]) -> ReferencesResult:
        check = workflow.start_activity_method(
            ReferenceActivities.check_references,
            ReferencesInput(job_id=self._job_id, request=self._job.request),
            task_queue=self._queues.references,
            schedule_to_close_timeout=policies.PATIENCE,
            heartbeat_timeout=policies.REFERENCES_HEARTBEAT,
            retry_policy=policies.REFERENCES_RETRY,
            summary=f"check {count} reference{'s' if count > 1 else ''}: reachable, format, limits",
        )
        await until(lambda: check.done() or interrupted())
        if not check.done():
            check.cancel()
        return await check

    async def ask_for_place(self, queue: str, request: PlaceRequest, *, again: bool) -> None:
        input = AskInput(queue=queue, request=request, again=again)
        await self._insist(PlaceActivities.ask_for_place, input, "ask for a place at the provider", self._on_ledger)

    def start_create(
        self,
        attempt: int,
        refusals: int,
        media: tuple[Medium, ...],
        doubt: str,
        passing: int,
        *,
        placed: bool,
        is_probe: bool,
    ) -> workflow.ActivityHandle[CreateResult]:
        """Start the one activity that can send a paid POST; as the probe, where its queue is held."""
        return workflow.start_activity_method(
            CreateActivities.create_task,
            CreateInput(
                job_id=self._job_id,
                request=self._job.request,
                attempt=attempt,
                refusals=refusals,
                submitted_at=workflow.info().start_time,
                warnings=self._progress.warnings,
                media=media,
                timeline=self._progress.timeline,
                doubt=doubt,
                passing=passing,
                placed=placed,
            ),
            task_queue=probe_queue(self._create_queue) if is_probe else self._create_queue,
            start_to_close_timeout=timedelta(seconds=self._progress.context.create_seconds) + policies.CREATE_MARGIN,
            retry_policy=policies.CREATE_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"POST create: attempt {attempt}, paid at most once",
        )

    async def report_create(self, report: GateReport) -> bool:
        """Report a create to the gate of its queue; return whether the queue is held after a refusal.

        Raises:
            ActivityError: The gate cannot be reached.
        """
        return await workflow.execute_activity_method(
            GateActivities.report_create,
            ReportCreateInput(queue=self._create_queue, report=report),
            task_queue=self._queues.workflows,
            schedule_to_close_timeout=policies.REPORT_WITHIN,
            retry_policy=policies.REPORT_RETRY,
            summary=f"report to the gate of {self._create_queue}: {report.answer}",
        )

    # Task

    async def identify_task(self, named: NamedTask) -> IdentifyResult:
        """Find out whether a task is one of this job. Fails after a few tries: the inbox asks again later."""
        return await workflow.execute_activity_method(
            RecoverActivities.identify_task,
            IdentifyInput(job_id=self._job_id, attempt=named.attempt, task_id=named.task_id, source=named.source),
            task_queue=self._queues.get,
            start_to_close_timeout=policies.OBSERVE_TIMEOUT,
            retry_policy=policies.IDENTIFY_RETRY,
            priority=policies.ASKED_FOR,
            summary=f"GET {named.task_id}: is it the task of attempt {named.attempt}?",
        )

    async def resolve_attempt(self, resolution: Resolve) -> ResolveAnswer:
        """Write an operator's resolution. Fails after a few tries, because the operator waits."""
        return await workflow.execute_activity_method(
            RecoverActivities.resolve_attempt,
            ResolveInput(job_id=self._job_id, resolution=resolution, timeline=self._progress.timeline),
            task_queue=self._queues.get,
            start_to_close_timeout=policies.RESOLVE_TIMEOUT,
            retry_policy=policies.RESOLVE_RETRY,
            priority=policies.ASKED_FOR,
            summary=f"an operator's resolution of attempt {resolution.attempt}: {resolution.action}",
        )

    async def get_task(self, input: GetTaskInput) -> Observation:
        options: workflow.ActivityConfig = {
            **self._on_task,
            "priority": policies.ASKED_FOR if input.announced else policies.AS_THE_JOB,
        }
        return await self._insist(PollActivities.get_task, input, f"GET {input.task_id}", options)

    async def cancel_task(self, input: GetTaskInput) -> CancelResult:
        """Cancel a task that is queued. Fails after a few tries: the next poll sends it again."""
        return await workflow.execute_activity_method(
            PollActivities.cancel_task,
            input,
            task_queue=self._queues.get,
            schedule_to_close_timeout=policies.CANCEL_WITHIN,
            start_to_close_timeout=policies.OBSERVE_TIMEOUT,
            retry_policy=policies.CANCEL_RETRY,
            priority=policies.ASKED_FOR,
            summary=f"GET, and DELETE if queued: {input.task_id}",
        )

    def start_copy(
        self,
        input: GetTaskInput,
        within: timedelta,
        retry: RetryPolicy = policies.COPY_RETRY,
        priority: Priority = policies.AS_THE_JOB,
    ) -> workflow.ActivityHandle[VideoResult]:
        return workflow.start_activity_method(
            StoreActivities.store_video,
            StoreInput(
                request=self._job.request,
                job_id=self._job_id,
                attempt=input.attempt,
                task_id=input.task_id,
                warnings=self._progress.warnings,
                timeline=self._progress.timeline,
            ),
            task_queue=self._queues.transfer,
            schedule_to_close_timeout=within,
            start_to_close_timeout=policies.COPY_TIMEOUT,
            heartbeat_timeout=policies.COPY_HEARTBEAT,
            retry_policy=retry,
            priority=priority,
            summary=f"copy MP4 to {messages.bucket_of(self._progress.context.folder)}, verified, and write the record",
        )

    async def why_not_stored(self) -> str | None:
        """Return the last failure of the copy; None where it has not failed, or Temporal does not say."""
        try:
            return await workflow.execute_activity_method(
                StoreActivities.why_not_stored,
                task_queue=self._queues.workflows,
                schedule_to_close_timeout=policies.ASK_TEMPORAL_WITHIN,
                retry_policy=policies.ASK_TEMPORAL_RETRY,
                summary="why is the video not stored?",
            )
        except ActivityError:
            return None

    async def ask_later(self, named: tuple[NamedTask, ...]) -> None:
        """Have tasks asked for after the end of this run."""
        await self._insist(
            RecoverActivities.ask_later,
            AskLaterInput(job_id=self._job_id, route=self._job.request.route, named=named),
            "have named tasks asked for after the end",
            self._on_ledger,
        )

    async def learn_whether_identifiers_are_listed(self) -> None:
        """Ask for one listing, now that the account has a task of this job: recovery relies on listed identifiers."""
        try:
            await workflow.execute_activity_method(
                TaskListActivities.ask_lister,
                AskListerInput(job_id=self._job_id),
                task_queue=self._queues.workflows,
                start_to_close_timeout=policies.LEDGER_TIMEOUT,
                retry_policy=policies.IDENTIFIERS_LISTED_RETRY,
                summary="ask the lister: are identifiers listed?",
            )
        except ActivityError as error:
            self._progress.note("lister_unavailable", "list", str(error.cause))

    async def _insist(
        self,
        activity: MethodAsyncSingleParam[SelfType, ParamType, ReturnType],
        input: ParamType,
        summary: str,
        options: workflow.ActivityConfig,
    ) -> ReturnType:
        """Execute an activity until it succeeds. Raise an Attention where it keeps failing, and go on.

        Temporal retries an activity, and its workflow learns nothing of it. So an activity that fails for
        :data:`policies.PATIENCE` comes back with its last failure, and is scheduled again at once. One that meets a
        damaged object of the ledger comes back immediately, and is scheduled again after pauses that grow.

        Raises:
            ActivityError: It failed in a way that cannot pass.
        """
        config: workflow.ActivityConfig = {**options, "summary": summary}
        since = began = workflow.now()
        raised: set[Attention] = set()
        damage_pause = policies.DAMAGE_PAUSE
        while True:
            # What an operator's retries leave of the hour, or they could keep the step silent.
            left = began + policies.PATIENCE - workflow.now()
            config["schedule_to_close_timeout"] = max(left, policies.ONE_TRY)
            step = workflow.start_activity_method(activity, input, **config)
            await self._progress.until(step.done)
            if not step.done():
                # It waits for its next try, or takes long: begin it anew.
                step.cancel()
            try:
                answer = await step
            except ActivityError as error:
                if isinstance(error.cause, CancelledError):
                    continue
                damaged = messages.damage(error)
                if damaged is None and error.retry_state is not RetryState.TIMEOUT:
                    raise
                began = workflow.now()
                # Without a failure, no worker has tried it: the step itself does not fail.
                if (reason := messages.last_failure(error)) is not None:
                    part = messages.failing_part(reason)
                    if self._progress.attention != part:
                        raised.add(part)
                    self._progress.need(part, messages.advice_on_step(summary, since, reason))
                if damaged is not None:
                    await self._progress.until(lambda: False, damage_pause, f"{summary}, once more")
                    damage_pause = min(2 * damage_pause, policies.MOST_DAMAGE_PAUSE)
                continue
            # Not those of a create that is never sent: the ledger between two creates can be read well.
            self._progress.clear(*raised)
            return answer
