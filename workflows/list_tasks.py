"""The lister: one workflow per route that reads the account's tasks for all jobs that search for one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.task_list import (
        Answer,
        AnswerJobsInput,
        ListedTask,
        ListerInput,
        ListingRequest,
        ListPageInput,
        Page,
        TaskListActivities,
    )
    from seedance_temporal import contract
    from seedance_temporal.contract import Queues
    from seedance_temporal.identity import is_safety_identifier
    from seedance_temporal.ledger.facts import Listing
    from seedance_temporal.urls import one_line
    from workflows import messages, policies
    from workflows.waits import history_is_long, until


_SUMMARY_LETTERS = 100


@workflow.defn(name=contract.LISTER)
class ListTasks:
    """Answer all requests that came before a listing began with that listing; end after a while without requests."""

    @workflow.init
    def __init__(self, lister: ListerInput) -> None:
        self._queues = Queues(lister.route)
        self._requested = {(request.job_id, request.attempt): request for request in lister.requested}
        self._failing_since: dict[tuple[str, str], datetime] = {}
        self._told: set[tuple[str | None, int]] = set()

    @workflow.run
    async def run(self, lister: ListerInput) -> None:
        """Read listings for as long as jobs request them."""
        bytes_before = workflow.info().get_current_history_size()
        while await self._is_requested():
            if history_is_long(bytes_before):
                workflow.continue_as_new(ListerInput(route=lister.route, requested=self._carried()))
            requests, self._requested = list(self._requested.values()), {}
            for tier in sorted({request.service_tier for request in requests}):
                await self._serve(tier, "", [request for request in requests if request.service_tier == tier])

    async def _is_requested(self) -> bool:
        return await until(lambda: bool(self._requested), policies.LISTER_IDLE, "end without requests")

    def _carried(self) -> tuple[ListingRequest, ...]:
        """Return the requests for the next run. Jobs over that many ask again after their own pause."""
        return tuple(self._requested.values())[: policies.MOST_WAITING]

    async def _serve(self, tier: str, model: str, requests: list[ListingRequest]) -> None:
        """Read one listing, and answer each job that requested it; keep the requests where that fails.

        A Custom key shows the tasks of one model at a time, so each model then has a listing of its own.
        """
        began = workflow.now()
        try:
            answers = await self._list(tier, model, requests)
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == "ModelNeeded":
                for each in sorted({request.model for request in requests if request.model}):
                    await self._serve(tier, each, [request for request in requests if request.model == each])
                return
            self._keep(requests)
            await self._tell(tier, model, self._failing_since.setdefault((tier, model), began), error)
            if isinstance(error.cause, ApplicationError) and error.cause.type == "ModelHidden":
                # It will not be shown soon. A job that still searches asks again after its own pause.
                for request in requests:
                    self._requested.pop((request.job_id, request.attempt), None)
            return
        self._failing_since.pop((tier, model), None)
        self._told -= {(request.job_id, request.attempt) for request in requests}
        try:
            await self._answer_all(answers)
        except ActivityError:
            self._keep(requests)

    def _keep(self, requests: Iterable[ListingRequest]) -> None:
        for request in requests:
            self._requested.setdefault((request.job_id, request.attempt), request)

    async def _tell(self, tier: str, model: str, since: datetime, error: ActivityError) -> None:
        """Tell each job that waits, once, why there is no listing: its operator must know. Its request is kept."""
        reason = messages.last_failure(error)
        if reason is None:
            return  # no worker has tried it
        untold = {
            key: request
            for key, request in self._requested.items()
            if key not in self._told and request.service_tier == tier and model in {"", request.model}
        }
        problem = messages.reason_of(reason)
        answers = [
            Answer(
                job_id=request.job_id,
                listing=Listing(
                    attempt=request.attempt,
                    safety_identifier=request.safety_identifier,
                    began_at=since,
                    complete=False,
                    task_id=None,
                    unmarked=False,
                    problem=problem,
                ),
            )
            for request in untold.values()
            if request.job_id is not None
        ]
        with suppress(ActivityError):
            await self._answer_all(answers)
            self._told |= untold.keys()

    async def _list(self, tier: str, model: str, requests: list[ListingRequest]) -> list[Answer]:
        """Read one listing; return the answers to the jobs that requested it."""
        began = workflow.now()
        pages = [await self._page(1, tier, model)]
        # Younger tasks need not be listed. The earlier clock counts, because a worker's clock can be ahead.
        asked_at = min(pages[0].asked_at, workflow.now()).timestamp()
        while pages[-1].tasks and sum(len(page.tasks) for page in pages) < pages[-1].total:
            fills_history = workflow.info().get_current_history_size() >= policies.MOST_LISTING_BYTES
            if fills_history or len(pages) == policies.MOST_PAGES:
                break
            pages.append(await self._page(len(pages) + 1, tier, model))
        tasks = {task.id: task for page in pages for task in page.tasks}
        older = [task for task in tasks.values() if task.created_at is not None and task.created_at <= asked_at]
        complete = len(older) >= pages[0].total
        keys = {page.key for page in pages}
        # A fleet whose key is being exchanged can read one listing with two keys, which proves nothing.
        key = min(keys) if len(keys) == 1 else ""
        # Nobody knows what LIST shows of a model that the key no longer names: nothing, or tasks of other models.
        is_blind = bool(model) and not any(
            is_safety_identifier(task.safety_identifier or "") and not task.is_other for task in tasks.values()
        )
        return [
            Answer(
                job_id=request.job_id,
                listing=Listing(
                    attempt=request.attempt,
                    safety_identifier=request.safety_identifier,
                    began_at=began,
                    complete=complete,
                    task_id=_found(request, tasks.values()),
                    unmarked=any(_could_be(request, task) for task in tasks.values()),
                    key=key,
                    is_blind=is_blind,
                ),
            )
            for request in requests
            if request.job_id is not None
        ]

    async def _answer_all(self, answers: Sequence[Answer]) -> None:
        for first in range(0, len(answers), policies.ANSWERS_AT_ONCE):
            await self._answer(tuple(answers[first : first + policies.ANSWERS_AT_ONCE]))

    async def _answer(self, answers: tuple[Answer, ...]) -> None:
        await workflow.execute_activity_method(
            TaskListActivities.answer_jobs,
            AnswerJobsInput(answers=answers),
            task_queue=self._queues.workflows,
            schedule_to_close_timeout=policies.LIST_WITHIN,
            start_to_close_timeout=policies.ANSWER_TIMEOUT,
            retry_policy=policies.LIST_RETRY,
            summary=f"answer {len(answers)} jobs",
        )

    async def _page(self, page: int, tier: str, model: str) -> Page:
        return await workflow.execute_activity_method(
            TaskListActivities.list_page,
            ListPageInput(page=page, service_tier=tier, model=model),
            task_queue=self._queues.list,
            schedule_to_close_timeout=policies.LIST_WITHIN,
            start_to_close_timeout=policies.LIST_TIMEOUT,
            retry_policy=policies.LIST_RETRY,
            summary=f"LIST: page {page}{f' of {one_line(model)}' if model else ''}"[:_SUMMARY_LETTERS],
        )

    @workflow.signal(name=contract.SIGNAL_LISTING_REQUESTED)
    async def listing_requested(self, *args: Any) -> None:
        """Accept requests for the next listing. Never raise: a failing signal would block all jobs."""
        for arg in args:
            try:
                request = ListingRequest.model_validate(arg)
            except ValidationError:
                continue
            self._requested[request.job_id, request.attempt] = request


def _found(request: ListingRequest, tasks: Iterable[ListedTask]) -> str | None:
    return next((task.id for task in tasks if task.safety_identifier == request.safety_identifier), None)


def _could_be(request: ListingRequest, task: ListedTask) -> bool:
    """Return whether a task without an identifier could be the requested one."""
    same_model = request.model.startswith("ep-") or task.model in {None, request.model}
    young = task.created_at is None or task.created_at >= request.since
    return task.safety_identifier is None and same_model and young
