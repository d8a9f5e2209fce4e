"""The lister: one workflow per route that reads the account's tasks for all jobs that look for theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic import ValidationError

    from activities.task_list import (
        Answer,
        AnswerJobsInput,
        ListedTask,
        ListerInput,
        ListPageInput,
        Page,
        TaskListActivities,
        Wanted,
    )
    from seedance_temporal import contract
    from seedance_temporal.contract import Queues
    from seedance_temporal.ledger.facts import Listing
    from workflows import policies


@workflow.defn(name=contract.LISTER)
class ListTasks:
    """Serves all who asked before a listing began with that listing; ends when nobody has asked for a while."""

    @workflow.init
    def __init__(self, lister: ListerInput) -> None:
        self._queues = Queues(lister.route)
        self._wanted = {(wanted.job_id, wanted.attempt): wanted for wanted in lister.wanted}

    @workflow.run
    async def run(self, lister: ListerInput) -> None:
        """Lists for as long as somebody asks."""
        while await self._somebody_asks():
            if workflow.info().is_continue_as_new_suggested():
                wanted = tuple(self._wanted.values())
                workflow.continue_as_new(ListerInput(route=lister.route, wanted=wanted))
            asked, self._wanted = list(self._wanted.values()), {}
            for tier in sorted({wanted.service_tier for wanted in asked}):
                await self._serve(tier, [wanted for wanted in asked if wanted.service_tier == tier])

    async def _somebody_asks(self) -> bool:
        try:
            await workflow.wait_condition(
                lambda: bool(self._wanted), timeout=policies.LISTER_IDLE, timeout_summary="nobody asks any more"
            )
        except TimeoutError:
            return False
        return True

    async def _serve(self, tier: str, asked: list[Wanted]) -> None:
        """One listing, and an answer to each job that asked for it."""
        began = workflow.now()
        pages = [await self._page(1, tier)]
        # What is younger need not be shown. A clock of a worker that is ahead makes nothing older than it can be.
        asked_at = min(pages[0].asked_at, workflow.now()).timestamp()
        while pages[-1].tasks and sum(len(page.tasks) for page in pages) < pages[-1].total:
            if len(pages) == policies.MOST_PAGES:
                break
            pages.append(await self._page(len(pages) + 1, tier))
        tasks = {task.id: task for page in pages for task in page.tasks}
        older = [task for task in tasks.values() if task.created_at is not None and task.created_at <= asked_at]
        complete = len(older) >= pages[0].total
        keys = {page.key for page in pages}
        # A fleet whose key is being exchanged can read one listing with two keys, which proves nothing.
        key = min(keys) if len(keys) == 1 else ""
        answers = tuple(
            Answer(
                job_id=wanted.job_id,
                listing=Listing(
                    attempt=wanted.attempt,
                    safety_identifier=wanted.safety_identifier,
                    began_at=began,
                    complete=complete,
                    task_id=_found(wanted, tasks.values()),
                    unmarked=any(_could_be(wanted, task) for task in tasks.values()),
                    key=key,
                ),
            )
            for wanted in asked
            if wanted.job_id is not None
        )
        for first in range(0, len(answers), policies.ANSWERS_AT_ONCE):
            await self._answer(answers[first : first + policies.ANSWERS_AT_ONCE])

    async def _answer(self, answers: tuple[Answer, ...]) -> None:
        await workflow.execute_activity_method(
            TaskListActivities.answer_jobs,
            AnswerJobsInput(answers=answers),
            task_queue=self._queues.workflows,
            start_to_close_timeout=policies.ANSWER_TIMEOUT,
            retry_policy=policies.LIST_RETRY,
            summary=f"tell {len(answers)} jobs what it says of their attempts",
        )

    async def _page(self, page: int, tier: str) -> Page:
        return await workflow.execute_activity_method(
            TaskListActivities.list_page,
            ListPageInput(page=page, service_tier=tier),
            task_queue=self._queues.list,
            start_to_close_timeout=policies.LIST_TIMEOUT,
            retry_policy=policies.LIST_RETRY,
            summary=f"LIST: page {page}",
        )

    @workflow.signal(name=contract.SIGNAL_WANTED)
    async def wanted(self, *args: Any) -> None:
        """Jobs ask for the next listing. Takes anything and never raises: a failing signal would block all of them."""
        for said in args:
            try:
                wanted = Wanted.model_validate(said)
            except ValidationError:
                continue
            self._wanted[wanted.job_id, wanted.attempt] = wanted


def _found(wanted: Wanted, tasks: Iterable[ListedTask]) -> str | None:
    return next((task.id for task in tasks if task.safety_identifier == wanted.safety_identifier), None)


def _could_be(wanted: Wanted, task: ListedTask) -> bool:
    """Whether a task without an identifier could be the one that is looked for."""
    same_model = wanted.model.startswith("ep-") or task.model in {None, wanted.model}
    young = task.created_at is None or task.created_at >= wanted.since
    return task.safety_identifier is None and same_model and young
