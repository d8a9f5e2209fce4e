"""The inbox of a run: the signals that have arrived, and are not handled yet.

Handlers never raise. They may come at any time, repeated, and once more after a Reset. A handler that names a task
stays until it is known whether the task is one of the job, also while the run waits before a create, copies a video, or
is about to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from seedance_temporal.contract import (
        Carried,
        NamedTask,
        Resolve,
        ResolveAnswer,
    )
    from seedance_temporal.events import EventName
    from seedance_temporal.ledger.facts import Listing
    from seedance_temporal.provider.task import RUNNING, TERMINAL, is_task_id, known_status
    from workflows import messages, policies
    from workflows.cancel import Cancel
    from workflows.progress import Progress
    from workflows.steps import Steps
    from workflows.waits import Pauses, history_is_long, until


class Inbox:
    """Callbacks, listings, and requests of callers and operators.

    Attributes:
        ledger_changed: Whether the ledger may hold facts that the run has not read.
        ledger_was_read: Whether the run has read the ledger at all; before that, no task can be identified.
        creating: The attempt whose create is running; its answer names its task anyway.
        listings: Those that have arrived and are not handled yet.
        listed: The tasks that listings showed, by attempt; also one whose id cannot be used.
        cancel: The request to end the job.
        answers: Those to resolutions, by their ids.
    """

    def __init__(self, steps: Steps, progress: Progress, carried: Carried) -> None:
        self._steps = steps
        self._progress = progress
        self._began = carried.started_at or workflow.now()
        self._callbacks = carried.callbacks
        self._open: set[tuple[int, str]] = set()
        self._awaited: set[tuple[int, str]] = set()
        self._identified: set[tuple[int, str]] = set()
        self._resolving = 0
        self._one_resolution = asyncio.Lock()
        self._ends_announced: dict[str, str] = {}
        self._fruitless_callbacks = 0
        self._patient: set[tuple[int, str]] = set()
        # Named tasks that provider or bucket have not been asked for since then, and why not.
        self._unasked = {
            (named.attempt, named.task_id): (named.unasked_since, "") for named in carried.named if named.unasked_since
        }
        self._closed = False
        self.ledger_changed = False
        self.ledger_was_read = False
        self.creating: int | None = None
        self.listings: list[Listing] = []
        self.listed = dict(carried.listed)
        self.cancel = Cancel(steps, progress, carried)
        self.answers: dict[str, ResolveAnswer] = {}
        self._unanswered = {(named.attempt, named.task_id): named for named in carried.named}
        # The tasks that operators named, and until when each is asked for.
        self._vouched = {
            key: named.asked_until or workflow.now()
            for key, named in self._unanswered.items()
            if named.source == "operator"
        }
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def interrupts(self) -> bool:
        """Whether to stop preparing a create: a cancel was requested, or the ledger has changed."""
        return self.cancel.requested or self.ledger_changed

    @property
    def asked(self) -> set[tuple[int, str]]:
        """The tasks in question, by attempt, that were named for another one than that being created."""
        return {(attempt, task_id) for attempt, task_id in self._awaited if attempt != self.creating}

    @property
    def is_idle(self) -> bool:
        """Whether no handler has an answer to give, and no task is being asked for."""
        return workflow.all_handlers_finished() and not self._asking

    @property
    def trouble(self) -> str:
        """Advice on a cancel, or a question for a task, that the provider has not served for an hour; or nothing."""
        unasked = [reason for since, reason in self._failed if workflow.now() - since >= policies.PATIENCE]
        return self.cancel.trouble or "".join(unasked[:1])

    @property
    def unchecked(self) -> str:
        """Which of the tasks that were named could not be checked so far, and why; empty where all could."""
        waiting = (f"Task {task_id} was named, and has not been checked so far." for _, task_id in self._unasked)
        return "".join(reason for _, reason in self._failed[:1]) or next(waiting, "")

    @property
    def _failed(self) -> list[tuple[datetime, str]]:
        """Since when named tasks could not be asked for, and why; the oldest first."""
        return sorted((since, reason) for since, reason in self._unasked.values() if reason)

    async def await_named_tasks(self) -> bool:
        """Wait until each task that was named is identified, or was asked for after every pause.

        Call this before every step that cannot be undone: a claim, an absence, an end. Returns ``ledger_changed``.
        """
        self.ask_again()
        if self._asking:
            # They begin now, also those that a new run has just taken over.
            await asyncio.sleep(0)
        # Also for those that are asked for later: an outage can be over.
        self._awaited |= self._open
        self._patient.clear()
        if self._awaited or self._resolving:
            purpose = "stop waiting for tasks that were named"
            await until(lambda: not (self._awaited or self._resolving), policies.LISTEN_AT_MOST, purpose)
        await until(lambda: not self._resolving)
        return self.ledger_changed

    def ask_again(self) -> None:
        """Ask once more for the tasks that could not be identified so far, by this run or the one before."""
        for named in self.take_unanswered():
            self._begin(self._ask_unless_known(named, again=True))

    def carry(self, carried: Carried) -> Carried:
        """Add what the next run needs: a callback that came while provider or bucket were away does not come again."""
        return carried.model_copy(
            update={
                "cancel_requested": self.cancel.requested,
                "cancel_fails_since": self.cancel.fails_since,
                "named": self.take_unanswered(),
                "listed": self.listed,
                "callbacks": self._callbacks,
            }
        )

    def take_unanswered(self) -> tuple[NamedTask, ...]:
        """Remove and return the tasks that are still in question."""
        unanswered, self._unanswered = tuple(self._unanswered.values()), {}
        return unanswered

    def why_it_may_exist(self, attempt: int) -> str:
        """Say which task a listing showed for an attempt, or was named and is not checked; empty where none is.

        GET can be behind, so its "not yet" is no answer to an operator who named the task.
        """
        if attempt in self.listed:
            return f"A listing showed task {self.listed[attempt]}."
        vouched = sorted(self._vouched.keys() & (self._open | self._unanswered.keys()))
        doubts = dict.fromkeys(vouched, "") | {key: reason for key, (_, reason) in self._unasked.items()}
        checked = (
            reason or f"Task {key[1]} was named, and is being checked for some minutes."
            for key, reason in doubts.items()
            if key[0] == attempt
        )
        return next(checked, "")

    async def close(self) -> None:
        """Ask for no more tasks, because the run is over, and wait for the handlers."""
        self._closed = True
        await until(lambda: self.is_idle)

    def reopen(self) -> None:
        """Go on: a last answer named a task that is the job's."""
        self._closed = False

    # Callbacks and listings

    async def callback(self, args: Sequence[Any]) -> None:
        """Take in a callback, which may be forged, repeated, late or nonsense: only a GET counts."""
        try:
            named: NamedTask | None = NamedTask.model_validate(args[0])
        except (ValidationError, IndexError):
            named = None
        if named is None or not is_task_id(named.task_id):
            self._progress.note("signal_ignored", "callback")
            return
        if named.source == "ledger":
            self.ledger_changed = True
            return
        self._progress.note(
            "callback_received", "callback", named.status[:40], task_id=named.task_id, attempt=named.attempt
        )
        status = known_status(named.status)
        if status in TERMINAL:
            self._announce_end(named.task_id, status)
        if status == RUNNING and named.task_id == self._progress.task_id:
            # Only shown: with callbacks, the next poll can be the one after the end.
            self._progress.move_on(status)
        await self._identify(named)

    def _announce_end(self, task_id: str, status: str) -> None:
        """Note an end; made-up ones never push out that of the task that is followed."""
        self._ends_announced[task_id] = status
        if len(self._ends_announced) > policies.MOST_CALLBACKS:
            del self._ends_announced[next(name for name in self._ends_announced if name != self._progress.task_id)]

    async def listing(self, args: Sequence[Any]) -> None:
        """Take in an answer of the lister. It counts once a GET, or the ledger's own rules, prove it."""
        try:
            listing = Listing.model_validate(args[0])
        except (ValidationError, IndexError):
            return
        if len(self.listings) < policies.MOST_LISTINGS:
            self.listings.append(listing)
        if listing.task_id is not None:
            self.listed[listing.attempt] = listing.task_id or "without an id"
        if listing.task_id is not None and is_task_id(listing.task_id):
            listed = NamedTask(task_id=listing.task_id, status="", attempt=listing.attempt, source="list")
            await self._identify(listed)

    def calls_for_poll(self, task_id: str) -> bool:
        """Say whether to poll a task before its time."""
        return self.end_is_announced(task_id) or self.ledger_changed

    def end_is_announced(self, task_id: str) -> bool:
        """Say whether a callback announced the end of a task, and callbacks have been right often enough."""
        return task_id in self._ends_announced and self._fruitless_callbacks < policies.MOST_FRUITLESS_CALLBACKS

    def take_announced_end(self, task_id: str) -> str | None:
        """Remove the announcement, because the provider is asked now; return the status that it named."""
        if not self.end_is_announced(task_id):
            return None
        self._fruitless_callbacks += 1
        return self._ends_announced.pop(task_id)

    async def resolve(self, args: Sequence[Any]) -> None:
        """Write an operator's resolution of an attempt whose outcome is unknown: one after the other."""
        try:
            resolution = Resolve.model_validate(args[0])
        except (ValidationError, IndexError):
            self._progress.note("signal_ignored", "operator")
            return
        if resolution.task_id is not None and not is_task_id(resolution.task_id):
            # Not kept: the timeline is part of what activities get, and must stay small.
            self.answers[resolution.id] = ResolveAnswer(accepted=False, message="That is no task id.")
            self._progress.note("signal_ignored", "operator")
            return
        self._resolving += 1
        async with self._one_resolution:
            self.answers[resolution.id] = answer = await self._write_resolution(resolution)
        self._resolving -= 1
        event: EventName = "resolution_accepted" if answer.accepted else "resolution_refused"
        self._progress.note(
            event, "operator", resolution.action, task_id=resolution.task_id, attempt=resolution.attempt
        )
        self.ledger_changed = answer.accepted or self.ledger_changed

    async def _write_resolution(self, resolution: Resolve) -> ResolveAnswer:
        if resolution.action == "not_created" and (doubt := self.why_it_may_exist(resolution.attempt)):
            return ResolveAnswer(accepted=False, message=f"It may have been created. {doubt}")
        try:
            answer = await self._steps.resolve_attempt(resolution)
        except ActivityError as error:
            answer = ResolveAnswer(accepted=False, message=messages.not_resolved(error, resolution.action))
        if resolution.task_id is not None and not answer.accepted:
            # GET can be away, or behind.
            named = NamedTask(task_id=resolution.task_id, status="", attempt=resolution.attempt, source="operator")
            self._begin(self._identify(named))
        return answer

    # Identifying tasks

    def _begin(self, asking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(asking)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _identify(self, named: NamedTask) -> None:
        """Find out whether a named task is one of the job, and have the ledger say so if it is.

        "The provider does not know it" can mean "not yet": such a task is asked for again, with growing pauses, and
        once more when it is named again. Only another identifier closes a task id for good.
        """
        key = named.attempt, named.task_id
        if named.source == "operator":
            self._vouched[key] = workflow.now() + policies.IDENTIFY_LATER
        if key in self._patient and self._accepts(named):
            self._patient.discard(key)
        elif not self._is_known(named) and self._accepts(named):
            await self._ask_unless_known(named)

    def _is_known(self, named: NamedTask) -> bool:
        key = named.attempt, named.task_id
        known = self._open | self._identified | self._unanswered.keys()
        return named.task_id == self._progress.task_id or key in known

    async def _ask_unless_known(self, named: NamedTask, *, again: bool = False) -> None:
        if self._is_known(named):
            return
        key = named.attempt, named.task_id
        if not again:
            self._unasked.setdefault(key, (workflow.now(), ""))
        self._open.add(key)
        self._awaited.add(key)
        try:
            await until(lambda: (self.ledger_was_read and self.creating != named.attempt) or self._closed)
            await self._ask_until_known(named, again=again)
        finally:
            if key not in self._unanswered:
                self._unasked.pop(key, None)
            for keys in (self._awaited, self._open, self._patient):
                keys.discard(key)

    def _accepts(self, named: NamedTask) -> bool:
        """Limit the GETs that a leaked callback URL can cause; the limit grows with time.

        A listing names only tasks that show our identifier, and an operator is trusted.
        """
        if named.source != "callback":
            return True
        if workflow.info().get_current_history_length() >= policies.MOST_EVENTS_OF_CALLBACKS:
            return False
        allowed = policies.MOST_CALLBACKS + (workflow.now() - self._began) // policies.ONE_MORE_CALLBACK
        if self._callbacks >= allowed or len(self._open) >= policies.MOST_CALLBACKS:
            return False
        self._callbacks += 1
        return True

    async def _ask_until_known(self, named: NamedTask, *, again: bool) -> None:
        key, not_yet = (named.attempt, named.task_id), named.not_yet
        pauses = Pauses(policies.IDENTIFY_LATER, not_yet=not_yet, again=again)
        was_patient, later = False, named.asked_until or workflow.now()
        if 0 < not_yet <= len(policies.IDENTIFY_PAUSES):
            # The run before asked, and had no time for the pause after that.
            await self._pause(key, policies.IDENTIFY_PAUSES[not_yet - 1], is_patient=False)
        while named.task_id != self._progress.task_id:
            # A step that fails for a day keeps a new run from taking over; the next step has the task asked for.
            if self._closed or (was_patient and history_is_long()):
                since, _ = self._unasked.get(key, (None, ""))
                found = {"not_yet": not_yet, "unasked_since": since, "asked_until": later}
                source = {"source": "operator"} if key in self._vouched else {}
                self._unanswered[key] = named.model_copy(update=found | source)
                return
            answer = await self._ask(named)
            if answer in {"ours", "known", "other"}:
                return
            not_yet += answer == "not_yet"
            pause = pauses.after(answer)
            if pause == policies.IDENTIFY_LATER:
                later = workflow.now() + pause
            if pause is None:
                # A question that came early, before a step that cannot be undone, is not the last one. Nor is one
                # after which an operator named the task.
                later = max(later, self._vouched.get(key, later))
                pause = later - workflow.now()
            if pause <= timedelta(0):
                self._progress.note("task_not_found", named.source, task_id=named.task_id, attempt=named.attempt)
                return
            if was_patient := workflow.now() + pause == later:
                # Hold nothing up any longer.
                self._awaited.discard(key)
                self._patient.add(key)
            await self._pause(key, pause, is_patient=was_patient)

    async def _pause(self, key: tuple[int, str], pause: timedelta, *, is_patient: bool) -> None:
        await until(
            lambda: self._closed or (is_patient and key not in self._patient),
            pause,
            "ask again whether the provider shows the task",
        )
        self._patient.discard(key)

    async def _ask(self, named: NamedTask) -> str:
        """Ask the provider once; a task that it shows is this job's, or another's, for good."""
        attempt, task_id, source = named.attempt, named.task_id, named.source
        try:
            answer = (await self._steps.identify_task(named)).answer
        except ActivityError as error:
            since, _ = self._unasked.get((attempt, task_id), (workflow.now(), ""))
            self._unasked[attempt, task_id] = since, messages.not_checked(task_id, error)
            self._progress.note("task_not_checked", source, str(error.cause), task_id=task_id, attempt=attempt)
            return "unanswered"
        self._unasked.pop((attempt, task_id), None)
        if answer in {"ours", "known", "other"}:
            self._identified.add((attempt, task_id))
            if answer == "ours":
                self._progress.note("task_found", source, task_id=task_id, attempt=attempt)
            # "known" can be the answer to a second try, whose first one wrote it.
            self.ledger_changed = self.ledger_changed or answer != "other"
        return answer
