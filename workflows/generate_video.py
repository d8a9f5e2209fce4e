"""The workflow of one video: read the ledger, create, poll, store.

::

    run ─ _generate ─ _proceed ─┬─ claim: _create ─── references, quota, then one POST by Sending
                                ├─ recover: _recover ─ Search for the task of a lost answer
                                ├─ adopt: _follow ─── poll, until the task ends ─┬─ _store by Copying
                                └─ stored, ended: return the video, or fail      └─ _end

Each step returns the decision that follows, so a run can begin anywhere. Nothing in here does I/O. The bucket's ledger
holds all that is known of a job: the run reads it, does the next step, and reads it again where it is in doubt.
Signals only leave entries in the inbox: so they may come at any time, repeated, and once more after a Reset.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from activities.poll import GetTaskInput, Observation
    from seedance_temporal import contract
    from seedance_temporal.contract import CancelOutcome, Carried, GenerateVideoInput, ResolveAnswer
    from seedance_temporal.events import EventSource
    from seedance_temporal.gate_contract import SIGNAL_PROBE
    from seedance_temporal.job import Attention, JobError, JobState, VideoResult, phase_of
    from seedance_temporal.ledger.decisions import Decision
    from seedance_temporal.provider.task import SUCCEEDED
    from workflows import messages
    from workflows.copying import Copying
    from workflows.creating import Creating
    from workflows.ended import Ended
    from workflows.inbox import Inbox
    from workflows.polls import SETTLED_BY_POLL, Polls
    from workflows.progress import Progress
    from workflows.search import Search
    from workflows.steps import Steps
    from workflows.waits import history_is_long, until, wait_is_flooded


@workflow.defn(name=contract.WORKFLOW)
class GenerateVideo:
    """Generate one video, pay for it at most once, and store it."""

    @workflow.init
    def __init__(self, job: GenerateVideoInput) -> None:
        # Handlers can run before the run's first step, so all that they touch is made here.
        carried = job.carried or Carried()
        self._job = job
        self._job_id = workflow.info().workflow_id
        self._progress = Progress(job.request, carried)
        self._steps = Steps(job, self._progress)
        self._inbox = Inbox(self._steps, self._progress, carried)
        self._creating = Creating(job, carried, self._steps, self._inbox, self._progress, self)
        self._copying = Copying(self._steps, self._progress)
        self._polls = Polls(self._progress, carried)

    @workflow.run
    async def run(self, job: GenerateVideoInput) -> VideoResult:
        """Generate the video in an asyncio task of its own.

        A cancel of the run then only leaves a request in the inbox. It cannot interrupt a create, whose answer would be
        lost.
        """
        video = asyncio.create_task(self._generate_and_listen())
        while not video.done():
            try:
                await workflow.wait_condition(video.done)
            except asyncio.CancelledError:
                self._inbox.cancel.request("temporal")
        return video.result()

    async def _generate_and_listen(self) -> VideoResult:
        """Generate the video, and hear out all handlers; go on where a last answer names a task of this job."""
        while True:
            video = asyncio.create_task(self._generate())
            await until(video.done)
            if isinstance(video.exception(), workflow.ContinueAsNewError):
                return video.result()
            await self._creating.place.give_up()
            await self._inbox.close()
            while unanswered := self._inbox.take_unanswered():
                await self._steps.ask_later(unanswered)
                await self._inbox.close()
            if not self._inbox.ledger_changed:
                return video.result()
            self._inbox.reopen()

    async def _generate(self) -> VideoResult:
        try:
            decision = await self.read_ledger(with_context=True)
        finally:
            self._inbox.ledger_was_read = True
            self._inbox.ask_again()
        while True:
            self._progress.show_second_task(decision.second_task, decision.unknown_attempt)
            try:
                following = await self._proceed(decision)
            except Ended as end:
                # A callback may just have named a task of this job.
                if not await self._inbox.await_named_tasks():
                    raise self._failure(end, decision) from None
                following = await self.read_ledger()
            if isinstance(following, VideoResult):
                return following
            decision = following

    async def _proceed(self, decision: Decision) -> VideoResult | Decision:
        """Do the next step; return the stored video, or the decision that follows."""
        if decision.next != "claim":
            # Nothing is to be created any more, so what kept a create from leaving needs no operator. The step itself
            # clears the Attentions of its own, which a run before this one can have raised.
            own: tuple[Attention, ...] = ("unknown_create",) if decision.next == "recover" else SETTLED_BY_POLL
            self._progress.clear_all_but("second_task", *own)
        match decision.next:
            case "stored":
                assert decision.result is not None
                self._progress.set_attempt(decision.attempt)
                return await self._stored(decision.result, "ledger")
            case "ended":
                assert decision.error is not None
                raise Ended(decision.error, "ledger", decision)
            case "adopt":
                return await self._follow(decision)
            case "recover":
                return await self._recover(decision)
            case "claim":
                return await self._creating.create(decision)

    async def read_ledger(self, *, with_context: bool = False) -> Decision:
        self._inbox.ledger_changed = False
        answer = await self._steps.read_ledger(with_context=with_context)
        if answer.context is not None:
            self._progress.begin(answer.context)
        return answer.decision

    # Recovering

    async def _recover(self, decision: Decision) -> Decision:
        """Search for the task of an attempt whose outcome is unknown. Spend nothing, however long it takes."""
        attempt = decision.attempt
        self._progress.enter("recovering")
        self._progress.set_attempt(attempt)
        search = Search(self._steps, self._inbox, self._progress)
        if decision.recovery is None:
            # The create has just lost its answer: a listing from before it is about another attempt, or too old.
            self._inbox.listings.clear()
        while decision.next == "recover":
            await self.continue_as_new_where_long()
            decision = await search.step(decision)
            if decision.next != "recover" or self._inbox.listings:
                continue
            if await self._inbox.await_named_tasks():
                decision = await self.read_ledger()
                continue
            assert decision.recovery is not None
            if decision.recovery.needs_operator and search.was_answered:
                self._progress.need("unknown_create", *search.advice(self._job_id, decision.attempt, decision.recovery))
            await self._progress.wait(
                lambda: bool(self._inbox.listings) or self._inbox.ledger_changed,
                search.wait_seconds(decision.recovery),
                "callback or listing, or ask for one",
            )
            if self._inbox.ledger_changed:
                decision = await self.read_ledger()
        self._progress.clear("unknown_create")
        self._progress.note("attempt_settled", "ledger", decision.next, task_id=decision.task_id, attempt=attempt)
        return decision

    # Following the task

    async def _follow(self, decision: Decision) -> VideoResult | Decision:
        """Poll the task until it has ended; return the stored video, or the decision that follows."""
        assert decision.task_id is not None
        task_id = decision.task_id
        self._progress.set_task(decision.attempt, task_id)
        self._progress.enter("queued")
        # A cancel was answered for the task before this one.
        self._inbox.cancel.outcome = None
        task = GetTaskInput(job_id=self._job_id, request=self._job.request, attempt=decision.attempt, task_id=task_id)
        # Only a task that this run created needs a wait before its first poll.
        seconds = self._creating.take_seconds_until_poll()
        polls, cancelling = self._polls.begin(), False
        while True:
            await self.continue_as_new_where_long()
            announced = await self._next_poll(task_id, seconds, cancel_sent=cancelling and self._inbox.cancel.pending)
            cancelling = self._inbox.cancel.pending
            if cancelling:
                await self._inbox.cancel.send(task)
            elif announced == SUCCEEDED and not self._creating.place.may_be_held:
                video = await self._copying.copy_at_once(task, lambda: self._inbox.cancel.pending)
                if video is not None:
                    self._progress.show_status(SUCCEEDED, "copy")
                    return await self._copied(video)
            # The poll reads the ledger first.
            self._inbox.ledger_changed = False
            is_due = announced is not None or (cancelling and not self._inbox.cancel.pending)
            poll = {"polls": polls.count, "refused": polls.refused, "announced": is_due}
            seen = await self._steps.get_task(task.model_copy(update=poll))
            how: EventSource = "callback" if announced else "poll"
            self._progress.show_second_task(seen.second_task)
            if seen.next != "wait":
                return await self._conclude(task, seen, how)
            polls.show(seen, how, self._inbox.trouble)
            seconds = seen.wait_seconds

    async def _conclude(self, task: GetTaskInput, seen: Observation, how: EventSource) -> VideoResult | Decision:
        """Do what follows from a poll after which the task is not polled again."""
        if seen.next == "already_stored":
            assert seen.result is not None
            return await self._stored(seen.result, "ledger")
        if seen.next == "already_ended":
            # Another run wrote that, and another attempt may have followed since.
            self._progress.clear_all_but("second_task")
            return await self.read_ledger()
        await self._creating.place.free()
        if seen.next == "write_end":
            assert seen.error is not None
            self._progress.show_status(seen.status, how)
            return await self._end(seen.error, how, seen)
        self._progress.clear(*SETTLED_BY_POLL)
        self._progress.show_status(SUCCEEDED, how)
        return await self._store(task, seen)

    async def _next_poll(self, task_id: str, seconds: float, *, cancel_sent: bool) -> str | None:
        """Wait for a reason to poll; return the end that a callback announced. A cancel that was sent is no reason."""
        if seconds > 0:
            await self._progress.wait(
                lambda: (
                    self._inbox.calls_for_poll(task_id)
                    or (self._inbox.cancel.pending and not cancel_sent)
                    or wait_is_flooded()
                ),
                seconds,
                "callback, or poll",
            )
        return self._inbox.take_announced_end(task_id)

    # Storing

    async def _store(self, task: GetTaskInput, seen: Observation) -> VideoResult | Decision:
        """Copy the video into the bucket while its URL lives."""
        self._progress.enter("storing")
        # Too late for a cancel: the video is paid for.
        self._inbox.cancel.outcome = "running_will_finish"
        copied = await self._copying.copy(task, timedelta(seconds=seen.copy_within))
        if isinstance(copied, JobError):
            return await self._end(copied, "copy", seen)
        return await self._copied(copied)

    async def _copied(self, video: VideoResult) -> VideoResult:
        await self._creating.place.free()
        if not self._progress.context.identifiers_listed:
            await self._steps.learn_whether_identifiers_are_listed()
        return await self._stored(video, "copy")

    # Ending

    async def _stored(self, result: VideoResult, how: EventSource) -> VideoResult:
        self._inbox.cancel.outcome = "running_will_finish"
        self._progress.clear_all_but("second_task")
        while await self._inbox.await_named_tasks():
            self._progress.show_second_task((await self.read_ledger()).second_task)
        self._progress.note("stored", how, result.video_uri, task_id=result.task_id, attempt=self._progress.attempt)
        self._progress.show_stored(result)
        return result

    async def _end(self, error: JobError, how: EventSource, seen: Observation) -> Decision:
        """Write how a task ended without a video; read the ledger where another attempt or task follows by itself."""
        ended = await self._steps.write_end(error, how, seen)
        if not ended.continues:
            raise Ended(ended.error, how, seen)
        self._progress.note("job_continues", "ledger", ended.error.code, attempt=ended.error.attempt)
        self._progress.clear_all_but("second_task")
        return await self.read_ledger()

    def _failure(self, end: Ended, decision: Decision) -> ApplicationError:
        """Show how the job ended; return the error that ends the run, by the failure's own name and sentence."""
        error = messages.in_view_of_attempts(end.error, decision)
        self._inbox.cancel.outcome = "cancelled" if error.failure_class == "cancelled" else "already_closed"
        self._progress.clear_all_but("second_task")
        self._progress.note("ended", end.how, error.summary, task_id=error.task_id, attempt=error.attempt)
        self._progress.show_ended(error, phase_of(error), end.spent)
        return ApplicationError(error.message, error, type=error.failure_class, non_retryable=True)

    async def continue_as_new_where_long(self) -> None:
        if history_is_long():
            await self._inbox.close()
            carried = Carried(status_unknown_since=self._polls.unknown_since)
            carried = self._progress.carry(self._inbox.carry(self._creating.carry(carried)))
            # Lists show the memo.
            memo = {**workflow.memo(), contract.MEMO_STARTED_AT: carried.started_at}
            workflow.continue_as_new(self._job.model_copy(update={"carried": carried}), memo=memo)

    # Handlers: they never raise, because a failing one would block the run for good

    @workflow.signal(name=contract.SIGNAL_TASK_CHANGED)
    async def task_changed(self, *args: Any) -> None:
        await self._inbox.callback(args)

    @workflow.signal(name=contract.SIGNAL_LISTED)
    async def listed(self, *args: Any) -> None:
        await self._inbox.listing(args)

    @workflow.signal(name=contract.SIGNAL_PLACE_GRANTED)
    async def place_granted(self, *_: Any) -> None:
        self._creating.place.grant()

    @workflow.signal(name=contract.SIGNAL_RETRY)
    async def retry(self, *_: Any) -> None:
        self._progress.retry()

    @workflow.signal(name=contract.SIGNAL_CANCEL)
    async def cancel(self, *_: Any) -> None:
        self._inbox.cancel.request("caller")

    @workflow.signal(name=SIGNAL_PROBE)
    async def probe(self, *_: Any) -> None:
        self._creating.gate.ask()

    @workflow.signal(name=contract.SIGNAL_RESOLVE)
    async def resolve(self, *args: Any) -> None:
        await self._inbox.resolve(args)

    @workflow.query(name=contract.QUERY_STATE)
    def state(self) -> JobState:
        return self._progress.state()

    @workflow.query(name=contract.QUERY_CANCEL)
    def cancel_outcome(self) -> CancelOutcome | None:
        return self._inbox.cancel.outcome

    @workflow.query(name=contract.QUERY_RESOLUTION)
    def resolution(self, resolution_id: str) -> ResolveAnswer | None:
        return self._inbox.answers.get(resolution_id)
