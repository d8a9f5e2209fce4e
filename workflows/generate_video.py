"""The story of one video: ledger, create, wait, copy.

Nothing in here touches the outside world. What is known of a job stands in the bucket's ledger; the story asks it
what comes next, does that, and asks again where it is in doubt. Signals and updates leave notes, and the story reads
them: so they may come at any time, repeated, and once more after a Reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.create import CreateActivities, CreateInput, CreateResult
    from activities.ledger import EndInput, EndResult, LedgerActivities, OutcomeInput, ReadLedgerInput
    from activities.limits import LimitActivities, QuotaInput
    from activities.poll import GetTaskInput, Observation, PollActivities
    from activities.recover import AbsentInput, RecoverActivities, ResolveInput
    from activities.references import ReferenceActivities, ReferencesInput
    from activities.store import StoreActivities, StoreInput
    from activities.task_list import AskListerInput, TaskListActivities
    from seedance_temporal import contract
    from seedance_temporal.contract import (
        CancelAnswer,
        CancelOutcome,
        Carried,
        GenerateVideoInput,
        Queues,
        Resolve,
        ResolveAnswer,
        TaskChanged,
    )
    from seedance_temporal.events import EventName, EventSource
    from seedance_temporal.job import JobError, JobState, VideoResult, phase_of
    from seedance_temporal.ledger.decisions import Decision, other_key
    from seedance_temporal.ledger.facts import Listing
    from seedance_temporal.media.references import is_seen
    from seedance_temporal.provider.task import QUEUED, SUCCEEDED, TERMINAL, Usage, is_task_id, progress
    from seedance_temporal.reference_media import Medium
    from workflows import messages, policies
    from workflows.inbox import Inbox, Source
    from workflows.progress import Progress
    from workflows.steps import insist


@dataclass(eq=False)
class _Ended(Exception):
    """The job is to end without a video, unless a task of it came to light meanwhile."""

    error: JobError
    how: EventSource
    usage: Usage | None = None
    cost_usd: float | None = None


@workflow.defn(name=contract.WORKFLOW)
class GenerateVideo:
    """Generates one video, pays for it at most once, and stores it."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        # Handlers can run before the story's first step, so all that they touch is made here.
        carried = job.carried or Carried()
        self._job = job
        self._job_id = workflow.info().workflow_id
        self._queues = Queues(job.request.route)
        self._progress = Progress(job.request, carried.timeline)
        self._cancel_wished = carried.cancel_wished
        self._cancel_outcome: CancelOutcome | None = None
        self._ends_announced: set[str] = set()
        self._fruitless_callbacks = 0
        self._inbox = Inbox(self._job_id, self._queues, self._progress, self._can_identify)
        self._looked = False
        self._sending: int | None = None
        self._resolving = 0
        self._second_task: str | None = None
        self._not_sent_since: datetime | None = None
        self._listings: list[Listing] = []
        self._lister_heard = False
        self._unanswered = 0
        self._proofs: list[Listing] = []
        self._doubt: str | None = None
        self._echo_known = False
        self._media: tuple[Medium, ...] | None = None
        self._ledger_changed = False

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        """The story, in a task of its own: a cancel only leaves a wish, and never loses what a create returns."""
        story = asyncio.create_task(self._story())
        story.add_done_callback(lambda _: self._inbox.close())

        def over() -> bool:
            # Handlers have answers to give, also where the story has ended.
            return story.done() and workflow.all_handlers_finished()

        while not over():
            try:
                await workflow.wait_condition(over)
            except asyncio.CancelledError:
                self._wish_to_cancel("temporal")
        return story.result()

    async def _story(self) -> VideoResult:
        try:
            look = await self._look()
        finally:
            self._looked = True
        while True:
            self._note_second_task(look.second_task)
            try:
                following = await self._go_on(look)
            except _Ended as end:
                # A task that was named just now decides, too: it may be paid for.
                if not await self._ledger_has_news():
                    self._fail(end)
                following = await self._look()
            if isinstance(following, VideoResult):
                return following
            look = following

    async def _go_on(self, look: Decision) -> VideoResult | Decision:
        """Do what the ledger says comes next.

        Returns:
            The stored video, or what the ledger says then.

        Raises:
            _Ended: There is nothing left to do.
        """
        if look.next == "stored":
            assert look.result is not None
            self._progress.tries(look.attempt)
            return await self._stored(look.result, "ledger")
        if look.next == "ended":
            assert look.error is not None
            raise _Ended(look.error, "ledger", look.usage, look.cost_usd)
        if look.next == "adopt":
            return await self._follow(look)
        if look.next == "recover":
            return await self._recover(look)
        return await self._create(look)

    async def _look(self) -> Decision:
        """What the ledger says comes next."""
        self._ledger_changed = False
        look = await insist(
            self._progress,
            LedgerActivities.look,
            ReadLedgerInput(job_id=self._job_id, request=self._job.request, resubmit=self._job.resubmit),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary="read the ledger: what is known of this job",
        )
        self._progress.register(look.search_attributes, hash_users=look.hash_users)
        self._progress.folder = look.folder
        self._progress.expect(look.estimated_tokens, look.estimated_usd)
        self._progress.warn(*look.warnings)
        self._echo_known = look.identifiers_listed
        return look

    async def _ledger_has_news(self) -> bool:
        """Whether the ledger holds more than was last read of it, once all that has arrived is identified.

        Asked before every act that cannot be taken back: a claim, an absence, an end.
        """
        await self._inbox.emptied()
        await workflow.wait_condition(lambda: not self._resolving)
        return self._ledger_changed

    # Creating

    async def _create(self, look: Decision) -> Decision:
        """Sends a create, if it is still wanted. Comes back with what the ledger says then."""
        refusals = 0
        while look.next == "claim":
            if not self._job.may_create:
                raise _Ended(messages.unsettled(look.attempt), "workflow")
            if self._cancel_wished:
                # What led here can be a look of long ago, that a Reset brought back together with the wish.
                look = await self._look()
                if look.next != "claim":
                    break
                raise _Ended(messages.cancelled_before_create(), "caller")
            if self._ledger_changed:
                look = await self._look()
                continue
            if self._media is None:
                self._media = await self._check_references()
                continue
            if look.limited:
                await self._allow()
            if await self._ledger_has_news():
                look = await self._look()
                continue
            if self._cancel_wished:
                continue
            self._progress.enter("creating")
            report = await self._send(look, refusals)
            if report.claim is not None and report.outcome is not None and not report.written:
                await self._write_outcome(OutcomeInput(claim=report.claim, outcome=report.outcome))
            if report.attention not in {"account", "credentials"}:
                self._progress.settle("account", "credentials")
            if report.kind not in {"not_sent", "conflict"}:
                self._not_sent_since = None
                self._progress.settle("storage", "provider")
            if report.kind == "impossible":
                assert report.error is not None
                raise _Ended(report.error, "workflow")
            if report.kind == "created":
                assert report.outcome is not None
                self._progress.note("task_created", "create", task_id=report.outcome.task_id, attempt=look.attempt)
                return Decision(
                    next="adopt",
                    attempt=look.attempt,
                    task_id=report.outcome.task_id,
                    look_again_after=report.look_again_after,
                )
            if report.kind == "unknown":
                self._progress.note("outcome_unknown", "create", report.message, attempt=look.attempt)
                return Decision(next="recover", attempt=look.attempt)
            if report.kind == "refused":
                self._progress.note("refused", "create", report.message, attempt=look.attempt)
            else:
                refusals += 1
                await self._wait_before_creating(report)
            look = await self._look()
        return look

    async def _check_references(self) -> tuple[Medium, ...] | None:
        """Looks at the reference media, once in a run, and ends it where nothing can be created with them.

        Returns:
            What they are; None where a cancel, or a task of the job, came in between.
        """
        count = sum(map(is_seen, self._job.request.references))
        if not count:
            return ()
        self._progress.enter("checking")
        check = workflow.start_activity_method(
            ReferenceActivities.check_references,
            ReferencesInput(job_id=self._job_id, request=self._job.request),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.REFERENCES_TIMEOUT,
            heartbeat_timeout=policies.REFERENCES_HEARTBEAT,
            retry_policy=policies.REFERENCES_RETRY,
            summary=f"check {count} reference{'s' if count > 1 else ''}: reachable, format, limits",
        )
        await workflow.wait_condition(lambda: check.done() or self._cancel_wished or self._ledger_changed)
        if not check.done():
            check.cancel()
        try:
            report = await check
        except ActivityError as error:
            if self._cancel_wished or self._ledger_changed:
                return None
            raise _Ended(messages.unreachable(error), "references") from None
        self._progress.warn(*report.warnings)
        if report.error is not None:
            raise _Ended(report.error, "references")
        self._progress.note("references_checked", "references", messages.media(report.media))
        return report.media

    async def _allow(self) -> None:
        """Ends the run where the limits leave no room for this create. Asked before each claim, and counted once."""
        allowance = await insist(
            self._progress,
            LimitActivities.allow,
            QuotaInput(job_id=self._job_id, request=self._job.request),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary="do the limits per request, user and day allow a create?",
        )
        if allowance.error is not None:
            raise _Ended(allowance.error, "ledger")

    async def _send(self, look: Decision, refusals: int) -> CreateResult:
        """The one activity that can reach the provider with a paid POST, and what its end means."""
        self._sending = look.attempt
        try:
            report = await self._create_report(look, refusals)
            if report.outcome is not None and report.outcome.kind == "created":
                # Before the inbox hears of it: a callback can name the same task.
                assert report.outcome.task_id is not None
                self._progress.follows(look.attempt, report.outcome.task_id)
            return report
        finally:
            self._sending = None

    async def _create_report(self, look: Decision, refusals: int) -> CreateResult:
        create = workflow.start_activity_method(
            CreateActivities.create_task,
            CreateInput(
                job_id=self._job_id,
                request=self._job.request,
                attempt=look.attempt,
                refusals=refusals,
                submitted_at=workflow.info().start_time,
                warnings=self._progress.warnings,
                media=self._media or (),
                timeline=self._progress.timeline,
            ),
            task_queue=self._queues.create,
            start_to_close_timeout=timedelta(seconds=look.create_seconds) + policies.CREATE_MARGIN,
            retry_policy=policies.CREATE_RETRY,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"POST create: attempt {look.attempt}, paid at most once",
        )
        await workflow.wait_condition(lambda: create.done() or self._cancel_wished or self._ledger_changed)
        if not create.done():
            # Withdraws it where no worker has started it; one under way is not disturbed by this, and awaited.
            create.cancel()
        try:
            return await create
        except ActivityError as error:
            if error.started_event_id == 0:
                return CreateResult(kind="not_sent", message="withdrawn before a worker started it")
            return CreateResult(kind="unknown", message=f"{error.message}: {error.cause}")

    async def _wait_before_creating(self, report: CreateResult) -> None:
        """Nothing was created. The next claim waits, longer where a person is needed."""
        self._progress.enter("waiting")
        self._progress.note(
            "not_sent", "create", report.message, attempt=report.claim.attempt if report.claim else None
        )
        if report.attention is not None:
            self._progress.need(report.attention, f"{report.message}. Fix that; the job then continues by itself.")
        elif report.kind == "not_sent":
            self._not_sent_since = since = self._not_sent_since or workflow.now()
            if workflow.now() - since >= policies.PATIENCE:
                code = report.outcome.code if report.outcome is not None else ""
                self._progress.need(messages.part_of_create(code), messages.advice_on_create(since, report.message))
        seconds = report.look_again_after
        if report.kind == "conflict":
            seconds = policies.CONFLICT_WAIT.total_seconds()
        await self._wait(
            lambda: self._cancel_wished or self._ledger_changed, seconds, "nothing was created; create again"
        )

    async def _write_outcome(self, order: OutcomeInput) -> None:
        await insist(
            self._progress,
            LedgerActivities.write_outcome,
            order,
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary=f"write down what came of attempt {order.claim.attempt}: {order.outcome.kind}",
        )

    # Recovering

    async def _recover(self, look: Decision) -> Decision:
        """Looks for the task of an attempt whose outcome is unknown. Spends nothing, however long it takes."""
        self._lister_heard, self._unanswered = False, 0
        self._progress.enter("recovering")
        attempt = look.attempt
        self._progress.tries(attempt)
        while look.next == "recover":
            self._continue_as_new_if_suggested()
            look = await self._search(look)
            if look.next != "recover" or self._listings:
                continue
            if await self._ledger_has_news():
                look = await self._look()
                continue
            seconds = look.look_again_after
            # A claim can be old already when its search begins: the first listing, due in seconds, may show its task.
            if look.recovery_over and (self._lister_heard or self._unanswered > 1):
                doubt = look.doubt or self._doubt
                self._progress.need("unknown_create", messages.advice_on_unknown(self._job_id, look.attempt, doubt))
            elif self._unanswered and not look.recovery_over:
                seconds *= policies.LISTING_PATIENCE
            await self._wait(
                lambda: bool(self._listings) or self._ledger_changed,
                seconds,
                "callback or listing, or ask for one",
            )
            if self._ledger_changed:
                look = await self._look()
        self._progress.settle("unknown_create")
        self._progress.note("attempt_settled", "ledger", look.next, task_id=look.task_id, attempt=attempt)
        # What recovery answers does not hold the time that a create may take.
        return await self._look() if look.next == "claim" else look

    async def _search(self, look: Decision) -> Decision:
        """Follows one trace: a listing that came, or else a question to the lister."""
        if not self._listings:
            self._unanswered += 1
            return await self._ask_lister(look.attempt)
        listing = self._listings.pop(0)
        if listing.attempt != look.attempt:
            return look
        self._lister_heard, self._unanswered = True, 0
        if listing.task_id is not None:
            return look  # it is in the inbox
        if look.key and listing.key != look.key:
            self._doubt = other_key(look.key, listing.key)
        elif look.key:
            self._doubt = None
        self._progress.note(
            "not_listed", "list", None if listing.complete else "incomplete listing", attempt=look.attempt
        )
        if listing.complete:
            self._proofs = [*self._proofs, listing][-policies.MOST_LISTINGS :]
        if len(self._proofs) > 1 and not await self._ledger_has_news():
            return await self._settle_absent(look.attempt)
        return look

    async def _ask_lister(self, attempt: int) -> Decision:
        """Asks for the next listing of the account's tasks; comes back with what the ledger says."""
        return await insist(
            self._progress,
            TaskListActivities.ask_lister,
            AskListerInput(job_id=self._job_id, attempt=attempt),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary=f"ask the lister: attempt {attempt}",
        )

    async def _settle_absent(self, attempt: int) -> Decision:
        proofs = tuple(listing for listing in self._proofs if listing.attempt == attempt)
        return await insist(
            self._progress,
            RecoverActivities.settle_absent,
            AbsentInput(job_id=self._job_id, attempt=attempt, listings=proofs),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary=f"is it proved that no task came of attempt {attempt}?",
        )

    # Following the task

    async def _follow(self, look: Decision) -> VideoResult | Decision:
        """Waits for the task to end: a callback, or the timer, and then a look.

        Returns:
            The stored video; or what the ledger says where another attempt follows by itself.
        """
        assert look.task_id is not None
        self._progress.follows(look.attempt, look.task_id)
        self._progress.enter("queued")
        # A cancel was answered for the task before this one.
        self._cancel_outcome = None
        if look.task_id == self._second_task:
            self._second_task = None
            self._progress.settle("second_task")
        order = GetTaskInput(job_id=self._job_id, request=self._job.request, attempt=look.attempt, task_id=look.task_id)
        seconds, looks = look.look_again_after, 0
        while True:
            self._continue_as_new_if_suggested()
            how = await self._next_look(look.task_id, seconds)
            cancelling = self._cancel_pending()
            if cancelling:
                await self._cancel_task(order)
            seen = await self._get(order.model_copy(update={"looks": looks, "hinted": how == "callback" or cancelling}))
            looks += 1
            self._note_second_task(seen.second_task)
            if seen.next == "stored":
                assert seen.result is not None
                return await self._stored(seen.result, "ledger")
            if seen.next == "ended":
                # Another run wrote that, and may have been followed by another attempt since.
                return await self._look()
            if seen.next == "end":
                assert seen.error is not None
                self._progress.seen(seen.status, how)
                ended = await self._write_end(seen.error, how, seen.usage, seen.cost_usd)
                return await self._after_end(ended, how, seen)
            if seen.next == "store":
                self._progress.settle("account", "credentials", "task_gone")
                self._progress.seen(SUCCEEDED, how)
                return await self._store(order, seen)
            seconds = seen.look_again_after
            self._take_in(seen, how)

    async def _next_look(self, task_id: str, seconds: float) -> EventSource:
        """Waits until there is reason to look; how it came."""
        if seconds > 0:
            await self._wait(
                lambda: self._end_is_announced(task_id) or self._ledger_changed or self._cancel_pending(),
                seconds,
                "callback, or look again",
            )
        self._ledger_changed = False
        if self._end_is_announced(task_id):
            self._ends_announced.discard(task_id)
            self._fruitless_callbacks += 1
            return "callback"
        return "poll"

    def _end_is_announced(self, task_id: str) -> bool:
        return task_id in self._ends_announced and self._fruitless_callbacks < policies.MOST_FRUITLESS_CALLBACKS

    def _take_in(self, seen: Observation, how: EventSource) -> None:
        """Notes a look at a task that goes on."""
        if seen.attention is not None:
            self._progress.need(seen.attention, messages.advice_on_task(seen))
            return
        self._progress.settle("account", "credentials", "task_gone")
        self._note_second_task(None)
        self._progress.seen(seen.status, how)
        # A status never goes back; an unknown one is shown as it is, and counts as running.
        if self._progress.phase == "queued" and progress(seen.status) > progress(QUEUED):
            self._progress.enter("running")

    async def _get(self, order: GetTaskInput) -> Observation:
        return await insist(
            self._progress,
            PollActivities.get_task,
            order,
            task_queue=self._queues.get,
            start_to_close_timeout=policies.OBSERVE_TIMEOUT,
            retry_policy=policies.OBSERVE_RETRY,
            summary=f"GET {order.task_id}: how is it?",
        )

    def _note_second_task(self, task_id: str | None) -> None:
        # Only one Attention can stand. What keeps the job from going on is more urgent; this is said again after it.
        self._second_task = task_id or self._second_task
        if self._second_task is not None and self._progress.attention is None:
            self._progress.need(
                "second_task",
                f"Task {self._second_task} came of this job as well, and may be billed; its video is not stored. "
                "The provider keeps it for 24 hours: fetch it there if it is wanted.",
            )

    async def _cancel_task(self, order: GetTaskInput) -> None:
        """Cancels the task if it is queued. A running one is billed, and so its video is stored."""
        report = await insist(
            self._progress,
            PollActivities.cancel_task,
            order,
            task_queue=self._queues.get,
            start_to_close_timeout=policies.OBSERVE_TIMEOUT,
            retry_policy=policies.OBSERVE_RETRY,
            summary=f"GET, and DELETE if queued: {order.task_id}",
        )
        self._cancel_outcome = report.outcome
        self._progress.note("cancel_answered", "poll", f"{report.outcome}, {report.status}", task_id=order.task_id)

    async def _write_end(
        self, error: JobError, how: EventSource, usage: Usage | None, cost_usd: float | None
    ) -> EndResult:
        return await insist(
            self._progress,
            LedgerActivities.write_end,
            EndInput(
                job_id=self._job_id,
                error=error,
                source=how,
                usage=usage,
                cost_usd=cost_usd,
                timeline=self._progress.timeline,
            ),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.LEDGER_TIMEOUT,
            retry_policy=policies.LEDGER_RETRY,
            summary=f"write down how attempt {error.attempt} ended: {error.code}",
        )

    async def _after_end(self, ended: EndResult, how: EventSource, seen: Observation) -> Decision:
        if not ended.again:
            raise _Ended(ended.error, how, seen.usage, seen.cost_usd)
        self._progress.note("job_continues", "ledger", ended.error.code, attempt=ended.error.attempt)
        return await self._look()

    # Storing

    async def _store(self, order: GetTaskInput, seen: Observation) -> VideoResult | Decision:
        """Copies the video into the bucket while its URL lives."""
        self._progress.enter("storing")
        # Too late for a cancel: the video is paid for.
        self._cancel_outcome = "running_will_finish"
        within = max(timedelta(seconds=seen.copy_within), policies.COPY_AT_LEAST)
        url_dies = workflow.now() + within
        # An hour after it was ready, which can be long ago: a backlog that is stored at once needs nobody.
        at_risk = max(url_dies - policies.URL_LIFE + policies.COPY_AT_RISK, workflow.now() + policies.COPY_GRACE)
        while True:
            try:
                result = await self._copy(order, url_dies, at_risk)
                break
            except ActivityError as error:
                reason = error.cause
                conflict = isinstance(reason, ApplicationError) and reason.type == "ObjectConflict"
                if reason is None or not conflict or workflow.now() + policies.CONFLICT_PAUSE >= url_dies:
                    ended = await self._write_end(messages.lost(order, error), "copy", seen.usage, seen.cost_usd)
                    return await self._after_end(ended, "copy", seen)
                self._progress.need("object_conflict", messages.advice_on_conflict(reason, url_dies))
            pause = policies.CONFLICT_PAUSE.total_seconds()
            await self._wait(lambda: False, pause, "whether the other object is gone", shown=False)
        if not self._echo_known:
            await self._learn_of_the_echo()
        return await self._stored(result, "copy")

    async def _copy(self, order: GetTaskInput, url_dies: datetime, at_risk: datetime) -> VideoResult:
        """Copies once, repeated by Temporal until the URL is dead; raises an Attention where that takes long."""
        copy = workflow.start_activity_method(
            StoreActivities.store_video,
            StoreInput(
                request=self._job.request,
                job_id=self._job_id,
                attempt=order.attempt,
                task_id=order.task_id,
                warnings=self._progress.warnings,
                timeline=self._progress.timeline,
            ),
            task_queue=self._queues.transfer,
            # At least one try: a wait before it can have ended late.
            schedule_to_close_timeout=max(url_dies - workflow.now(), policies.COPY_AT_LEAST),
            start_to_close_timeout=policies.COPY_TIMEOUT,
            heartbeat_timeout=policies.COPY_HEARTBEAT,
            retry_policy=policies.COPY_RETRY,
            summary=f"copy MP4 to {messages.bucket_of(self._progress.folder)}, verified, and write the record",
        )
        patience = (at_risk - workflow.now()).total_seconds()
        in_time = patience > 0 and await self._wait(
            copy.done, patience, "the copy, or it counts as at risk", shown=False
        )
        # An object in the way is why it is at risk, and says more.
        if not in_time and self._progress.attention != "object_conflict":
            self._progress.need("video_at_risk", messages.advice_on_risk(order.task_id, url_dies))
        return await copy

    async def _learn_of_the_echo(self) -> None:
        """Has a listing read once, now that the account has a task of ours: recovery relies on what it shows."""
        try:
            await workflow.execute_activity_method(
                TaskListActivities.ask_lister,
                AskListerInput(job_id=self._job_id),
                task_queue=self._queues.workflows,
                start_to_close_timeout=policies.LEDGER_TIMEOUT,
                retry_policy=policies.ECHO_RETRY,
                summary="ask the lister: are identifiers shown?",
            )
        except ActivityError as error:
            self._progress.note("lister_unavailable", "list", str(error.cause))

    # Endings

    async def _stored(self, result: VideoResult, how: EventSource) -> VideoResult:
        self._cancel_outcome = "running_will_finish"
        self._settle_all()
        while await self._ledger_has_news():
            self._note_second_task((await self._look()).second_task)
        self._note_second_task(None)
        self._progress.note("stored", how, result.video_uri, task_id=result.task_id, attempt=self._progress.attempt)
        self._progress.stored(result)
        return result

    def _fail(self, end: _Ended) -> NoReturn:
        """Ends the run by the failure's own name and sentence."""
        error = end.error
        self._cancel_outcome = "cancelled" if error.failure_class == "cancelled" else "already_closed"
        self._settle_all()
        self._progress.note("ended", end.how, error.summary, task_id=error.task_id, attempt=error.attempt)
        self._progress.ended(error, phase_of(error), end.usage, end.cost_usd)
        raise ApplicationError(error.message, error, type=error.failure_class, non_retryable=True) from None

    def _settle_all(self) -> None:
        """A job that has ended needs nobody; a second task is still there."""
        self._progress.settle(
            "unknown_create", "account", "credentials", "task_gone", "video_at_risk", "object_conflict"
        )

    def _continue_as_new_if_suggested(self) -> None:
        # What callbacks named is identified first, and updates are answered: the next run knows nothing of them.
        if workflow.all_handlers_finished() and workflow.info().is_continue_as_new_suggested():
            carried = Carried(timeline=self._progress.timeline, cancel_wished=self._cancel_wished)
            workflow.continue_as_new(self._job.model_copy(update={"carried": carried}))

    # Waiting, and what ends a wait

    async def _wait(self, condition: Callable[[], bool], seconds: float, what: str, *, shown: bool = True) -> bool:
        """Waits for something; False where it did not come in time.

        Args:
            condition: Ends the wait.
            seconds: Ends it as well.
            what: Is waited for, and what is done when the time is over; "in 40 s", or a time of day, follows it.
            shown: Whether what is done then is a look or a create, and so part of the state.
        """
        self._progress.waits(what if shown else None, seconds)
        came = True
        try:
            await workflow.wait_condition(condition, timeout=seconds, timeout_summary=f"{what} in {seconds:.0f} s")
        except TimeoutError:
            came = False
        self._progress.waits(None)
        return came

    def _cancel_pending(self) -> bool:
        return self._cancel_wished and self._cancel_outcome is None

    def _wish_to_cancel(self, by: EventSource) -> None:
        if not self._cancel_wished:
            self._cancel_wished = True
            self._progress.note("cancel_requested", by)

    def _can_identify(self, attempt: int) -> bool:
        """Whether the ledger was read, and no create of this attempt is under way, whose answer names its task."""
        return self._looked and self._sending != attempt

    async def _name(self, named: TaskChanged, source: Source) -> None:
        if named.task_id != self._progress.task_id and await self._inbox.identify(named, source):
            self._ledger_changed = True

    @workflow.signal(name=contract.SIGNAL_TASK_CHANGED)
    async def task_changed(self, *args: Any) -> None:
        """A callback came. It may be forged, repeated, late or nonsense: it is noted, and the story looks itself.

        Takes anything and never raises, because a signal that fails would block the run for good.
        """
        try:
            hint: TaskChanged | None = TaskChanged.model_validate(args[0])
        except (ValidationError, IndexError):
            hint = None
        if hint is None or not is_task_id(hint.task_id):
            self._progress.note("signal_ignored", "callback")
            return
        self._progress.note(
            "callback_received", "callback", hint.status[:40], task_id=hint.task_id, attempt=hint.attempt
        )
        if hint.status in TERMINAL and len(self._ends_announced) < policies.MOST_HINTS:
            self._ends_announced.add(hint.task_id)
        await self._name(hint, "callback")

    @workflow.signal(name=contract.SIGNAL_LISTED)
    async def listed(self, *args: Any) -> None:
        """The lister answers. What it says is proved by a GET, or by the ledger's own rules, before it counts."""
        try:
            listing = Listing.model_validate(args[0])
        except (ValidationError, IndexError):
            return
        if len(self._listings) < policies.MOST_LISTINGS:
            self._listings.append(listing)
        if listing.task_id is not None and is_task_id(listing.task_id):
            await self._name(TaskChanged(task_id=listing.task_id, status="", attempt=listing.attempt), "list")

    @workflow.update(name=contract.UPDATE_CANCEL)
    async def cancel(self) -> CancelAnswer:
        """Asks for the end of the job; answers within 10 seconds with what came of it so far."""
        self._wish_to_cancel("caller")
        await self._wait_quietly(lambda: self._cancel_outcome is not None, policies.CANCEL_ANSWER)
        return CancelAnswer(outcome=self._cancel_outcome or "requested")

    @workflow.update(name=contract.UPDATE_RESOLVE)
    async def resolve(self, word: Resolve) -> ResolveAnswer:
        """Takes an operator's word on an attempt whose outcome is unknown."""
        self._resolving += 1
        try:
            answer = await workflow.execute_activity_method(
                RecoverActivities.resolve_attempt,
                ResolveInput(job_id=self._job_id, resolve=word, timeline=self._progress.timeline),
                task_queue=self._queues.get,
                start_to_close_timeout=policies.RESOLVE_TIMEOUT,
                retry_policy=policies.RESOLVE_RETRY,
                summary=f"an operator's word on attempt {word.attempt}: {word.action}",
            )
        except ActivityError as error:
            return ResolveAnswer(accepted=False, message=f"Nothing was written: {error.cause}")
        finally:
            self._resolving -= 1
        outcome: EventName = "resolution_accepted" if answer.accepted else "resolution_refused"
        self._progress.note(outcome, "operator", word.action, task_id=word.task_id, attempt=word.attempt)
        self._ledger_changed = answer.accepted or self._ledger_changed
        return answer

    @resolve.validator
    def _check_word(self, word: Resolve) -> None:
        """Refuses what is no word: a handler that fails, or cannot be called, would block the run for good."""
        if not isinstance(word, Resolve):
            raise ApplicationError("resolve takes an attempt and an action", type="invalid_word")

    @staticmethod
    async def _wait_quietly(condition: Callable[[], bool], timeout: timedelta) -> None:
        try:
            await workflow.wait_condition(condition, timeout=timeout, timeout_summary="the answer to a cancel is due")
        except TimeoutError:
            return

    @workflow.query(name=contract.QUERY_STATE)
    def state(self) -> JobState:
        """The job as it is now, with its story so far."""
        return self._progress.state()
