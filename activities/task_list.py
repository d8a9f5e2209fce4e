"""Reading the account's list of tasks, for all jobs that look for one.

LIST allows one request a second for the whole account. So the lister, one workflow per route, reads it once for
everybody who asked before it began; jobs ask it by a signal, and are answered by one.

A server takes the signals of one workflow one after another, so hundreds of jobs that ask at once would hold the lister
up for minutes: a worker collects their questions, and an activity carries the answers out.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal import contract
from seedance_temporal.contract import Queues
from seedance_temporal.identity import is_safety_identifier
from seedance_temporal.ledger.decisions import Decision, decide_at
from seedance_temporal.ledger.facts import Attempt, Listing
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings

_PAGE_SIZE = 500
# Questions are collected for so long, and go out so many at a time: some 150 kB in one signal.
_COLLECT_SECONDS = 0.2
_MOST_AT_ONCE = 500
# Signals to jobs, each to another one.
_ANSWERS_SIDE_BY_SIDE = 20
# So much of a text is compared with what is looked for, which is shorter.
_LONGEST_WORD = 200


class Wanted(BaseModel):
    """What a job wants to know of the next listing.

    Attributes:
        job_id: Who asks; None where nobody waits for an answer.
        attempt, safety_identifier: What is looked for.
        model: Of the request. A task of it without an identifier could be the one; so could any, for an endpoint.
        service_tier: A listing shows the tasks of one tier.
        since: Unix seconds: no task of the attempt can be older.
    """

    model_config = ConfigDict(frozen=True)

    job_id: str | None
    attempt: int
    safety_identifier: str
    model: str
    service_tier: str
    since: float


class ListerInput(BaseModel):
    """The lister's argument; what is wanted is carried over at continue-as-new."""

    model_config = ConfigDict(frozen=True)

    route: str
    wanted: tuple[Wanted, ...] = ()


class ListPageInput(BaseModel):
    model_config = ConfigDict(frozen=True)

    page: int
    service_tier: str


class ListedTask(BaseModel):
    """What matters of a listed task; whose it is, only its identifier tells. ``created_at`` is Unix seconds."""

    model_config = ConfigDict(frozen=True)

    id: str
    safety_identifier: str | None
    model: str | None
    created_at: float | None


class Page(BaseModel):
    """One page, and how many tasks match in all.

    Attributes:
        asked_at: Just before the request, by the worker's clock.
        key: Fingerprint of the API key that read it.
    """

    model_config = ConfigDict(frozen=True)

    tasks: tuple[ListedTask, ...]
    total: int
    asked_at: datetime
    key: str = ""


class Answer(BaseModel):
    """What a listing says to a job that asked for it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    listing: Listing


class AnswerJobsInput(BaseModel):
    model_config = ConfigDict(frozen=True)

    answers: tuple[Answer, ...]


class AskListerInput(BaseModel):
    """Which attempt is looked for; without one, only whether LIST echoes identifiers."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int | None = None


class TaskListActivities:
    """Reads pages for the lister, and asks it for jobs."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings
        self._questions = _Questions(settings.ark_route)

    @activity.defn
    async def list_page(self, input: ListPageInput) -> Page:
        """One page of the account's tasks.

        Raises:
            ApplicationError: The provider did not answer as it should; to be repeated.
        """
        try:
            page = await self._ark.list(input.page, _PAGE_SIZE, input.service_tier)
        except (ArkError, httpx.HTTPError) as error:
            raise ApplicationError(
                f"the provider did not list its tasks: {error!r}", type="ProviderUnavailable"
            ) from None
        key = self._settings.key_fingerprint
        tasks = tuple(_listed(task) for task in page.items if isinstance(task.get("id"), str))
        if any(is_safety_identifier(task.safety_identifier or "") for task in tasks):
            await self._ledger.note_identifiers_listed(self._settings.ark_route, key)
        return Page(tasks=tasks, total=page.total, asked_at=page.asked_at, key=key)

    @activity.defn
    async def answer_jobs(self, input: AnswerJobsInput) -> None:
        """Tells jobs what a listing says. Repeated as a whole: a job that hears the same twice is none the wiser."""
        client = activity.client()
        side_by_side = asyncio.Semaphore(_ANSWERS_SIDE_BY_SIDE)

        async def tell(answer: Answer) -> None:
            async with side_by_side:
                try:
                    await client.get_workflow_handle(answer.job_id).signal(contract.SIGNAL_LISTED, answer.listing)
                except RPCError as error:
                    # The job has ended meanwhile: nobody is left who could want it.
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise

        await asyncio.gather(*map(tell, input.answers))

    @activity.defn
    async def ask_lister(self, input: AskListerInput) -> Decision:
        """Asks for the next listing, where the attempt is still unknown; comes back with what the ledger says."""
        facts = await self._ledger.read(input.job_id)
        look = decide_at(facts, self._settings)
        attempt = facts.attempt(input.attempt) if input.attempt is not None else None
        if input.attempt is None:
            await self._questions.ask(_for_the_echo())
        elif look.next == "recover" and look.attempt == input.attempt and attempt is not None:
            await self._questions.ask(self._wanted(attempt))
        return look

    def _wanted(self, attempt: Attempt) -> Wanted:
        assert attempt.claim is not None
        assert attempt.claimed_at is not None
        return Wanted(
            job_id=attempt.claim.job_id,
            attempt=attempt.number,
            safety_identifier=attempt.claim.safety_identifier,
            model=attempt.claim.request.model,
            service_tier=attempt.claim.request.service_tier or "default",
            since=attempt.claimed_at.timestamp() - self._settings.seedance_clock_skew_seconds,
        )


class _Questions:
    """The questions of one worker to the lister of its route, a moment's together."""

    def __init__(self, route: str) -> None:
        self._route = route
        self._open: list[tuple[Wanted, asyncio.Future[None]]] = []
        self._messenger: asyncio.Task[None] | None = None

    async def ask(self, wanted: Wanted) -> None:
        """Comes back when the lister has the question.

        Raises:
            RPCError: It does not have it.
        """
        heard = asyncio.get_running_loop().create_future()
        self._open.append((wanted, heard))
        if self._messenger is None or self._messenger.done():
            self._messenger = asyncio.create_task(self._deliver(activity.client()))
        await heard

    async def _deliver(self, client: Client) -> None:
        while self._open:
            await asyncio.sleep(_COLLECT_SECONDS)
            some, self._open = self._open[:_MOST_AT_ONCE], self._open[_MOST_AT_ONCE:]
            problem: Exception | None = None
            try:
                await self._signal(client, [wanted for wanted, _ in some])
            except Exception as error:
                problem = error
            for _, heard in some:
                if heard.done():  # its activity was cancelled meanwhile
                    continue
                if problem is None:
                    heard.set_result(None)
                else:
                    heard.set_exception(problem)

    async def _signal(self, client: Client, wanted: list[Wanted]) -> None:
        await client.start_workflow(
            contract.LISTER,
            ListerInput(route=self._route),
            id=contract.lister_id(self._route),
            task_queue=Queues(self._route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=contract.SIGNAL_WANTED,
            start_signal_args=wanted,
            static_summary=f"LIST for all jobs of {self._route} that look for a task",
        )


def _for_the_echo() -> Wanted:
    now = datetime.now(UTC).timestamp()
    return Wanted(job_id=None, attempt=0, safety_identifier="", model="", service_tier="default", since=now)


def _listed(task: dict[str, object]) -> ListedTask:
    identifier, model, created_at = (task.get(name) for name in ("safety_identifier", "model", "created_at"))
    return ListedTask(
        id=str(task["id"]),
        safety_identifier=identifier[:_LONGEST_WORD] if isinstance(identifier, str) and identifier else None,
        model=model[:_LONGEST_WORD] if isinstance(model, str) else None,
        created_at=_seconds(created_at),
    )


def _seconds(value: object) -> float | None:
    """A point in time; None for what is none. What compares with nothing would make a task look old."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
