"""Read the account's list of tasks, for all jobs that search for one.

LIST allows one request a second for the whole account. So the lister, one workflow per route, reads it once for all
jobs that asked before it began; jobs ask it by a signal, and are answered by one.

Hundreds of jobs that ask at once would block the lister with their signals: they are sent together, and an activity
sends the answers.
"""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime

import httpx
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from activities.batches import Batches
from seedance_temporal import contract
from seedance_temporal.contract import Queues
from seedance_temporal.identity import is_safety_identifier
from seedance_temporal.job import Shape
from seedance_temporal.ledger.decisions import Decision, decide_at
from seedance_temporal.ledger.facts import Attempt, Claim, Listing
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings

_PAGE_SIZE = 500
# Signals that are sent at once, each to another job.
_ANSWERS_SIDE_BY_SIDE = 20
# Identifiers and model names are shorter; of a longer text, only so much is compared.
_LONGEST_TEXT = 200
# With one of these, LIST of one model says that the key does not name it.
_REFUSED = {httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND}


class ListingRequest(Shape):
    """A request of a job for the next listing.

    Attributes:
        job_id: The job; None where no job waits for an answer.
        attempt, safety_identifier: The attempt to find, and the identifier of its task.
        model: The model of the request. A task of this model without an identifier could be the attempt's; for an
            endpoint, a task of any model could.
        service_tier: A listing shows the tasks of one tier.
        since: Unix seconds: no task of the attempt can be older.
    """

    job_id: str | None
    attempt: int
    safety_identifier: str
    model: str
    service_tier: str
    since: float


class ListerInput(Shape):
    """The lister's argument; requests are carried over at continue-as-new."""

    route: str
    requested: tuple[ListingRequest, ...] = ()


class ListPageInput(Shape):
    """The page to read; ``model`` is given where the API key shows the tasks of one model or endpoint at a time."""

    page: int
    service_tier: str
    model: str = ""


class ListedTask(Shape):
    """The needed fields of a listed task; only its identifier shows its owner.

    Attributes:
        created_at: Unix seconds.
        is_other: Whether it is not known to be of the model that was asked for: LIST may not heed that.
    """

    id: str
    safety_identifier: str | None
    model: str | None
    created_at: float | None
    is_other: bool = False


class Page(Shape):
    """One page, and the number of tasks on all pages.

    Attributes:
        asked_at: The time just before the request, by the worker's clock.
        key: Fingerprint of the API key that read it.
    """

    tasks: tuple[ListedTask, ...]
    total: int
    asked_at: datetime
    key: str = ""


class Answer(Shape):
    """The answer to a job that asked for a listing."""

    job_id: str
    listing: Listing


class AnswerJobsInput(Shape):
    answers: tuple[Answer, ...]


class AskListerInput(Shape):
    """The attempt to find; without one, only whether LIST shows identifiers is asked."""

    job_id: str
    attempt: int | None = None


class TaskListActivities:
    """Read pages for the lister, and ask it for listings for jobs."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings
        self._requests = Batches(self._request_listings)

    @activity.defn
    async def list_page(self, input: ListPageInput) -> Page:
        """Read one page of the account's tasks.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the provider gave no usable answer. Retryable.
                ``ModelNeeded``: the API key is Custom, and shows the tasks of one model at a time.
                ``ModelHidden``: the API key is Custom, and does not show the tasks of this model.
        """
        try:
            page = await self._ark.list(input.page, _PAGE_SIZE, input.service_tier, input.model)
        except (ArkError, httpx.HTTPError) as error:
            if isinstance(error, ArkError) and error.needs_model and not input.model:
                raise ApplicationError(str(error), type="ModelNeeded", non_retryable=True) from None
            problem = f"the provider did not list its tasks: {error!r}"
            if isinstance(error, ArkError) and input.model and error.status in _REFUSED:
                raise ApplicationError(problem, type="ModelHidden", non_retryable=True) from None
            raise ApplicationError(problem, type="ProviderUnavailable") from None
        key = self._settings.key_fingerprint
        asked = self._settings.rules.behind(input.model) if input.model else None
        tasks = tuple(_listed(task, asked) for task in page.items if isinstance(task.get("id"), str))
        if any(is_safety_identifier(task.safety_identifier or "") and not task.is_other for task in tasks):
            await self._ledger.note_identifiers_listed(self._settings.ark_route, key, input.model)
        return Page(tasks=tasks, total=page.total, asked_at=page.asked_at, key=key)

    @activity.defn
    async def answer_jobs(self, input: AnswerJobsInput) -> None:
        """Signal a listing to the jobs that asked for it. Repeated as a whole: a second signal changes nothing."""
        client = activity.client()
        side_by_side = asyncio.Semaphore(_ANSWERS_SIDE_BY_SIDE)

        async def signal(answer: Answer) -> None:
            async with side_by_side:
                try:
                    await client.get_workflow_handle(answer.job_id).signal(contract.SIGNAL_LISTED, answer.listing)
                except RPCError as error:
                    # The job has ended meanwhile, or its run takes no more signals, and the next one asks again.
                    if error.status not in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
                        raise

        await asyncio.gather(*map(signal, input.answers))

    @activity.defn
    async def ask_lister(self, input: AskListerInput) -> Decision:
        """Ask for the next listing, where the attempt is still unknown; return the decision by the ledger."""
        facts = await self._ledger.read(input.job_id)
        decision = decide_at(facts, self._settings)
        if input.attempt is None:
            newest = facts.attempts[-1].claim if facts.attempts else None
            await self._requests.send(_whether_identifiers_are_listed(newest))
        elif (decision.next, decision.attempt) == ("recover", input.attempt):
            attempt = facts.attempt(input.attempt)
            assert attempt is not None
            await self._requests.send(_for_attempt(attempt, self._settings.seedance_clock_skew_seconds))
        return decision

    async def _request_listings(self, client: Client, requests: list[ListingRequest]) -> None:
        route = self._settings.ark_route
        await client.start_workflow(
            contract.LISTER,
            ListerInput(route=route),
            id=contract.lister_id(route),
            task_queue=Queues(route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=contract.SIGNAL_LISTING_REQUESTED,
            start_signal_args=requests,
            static_summary=f"LIST for all jobs of {route} that search for a task",
        )


def _whether_identifiers_are_listed(claim: Claim | None) -> ListingRequest:
    now = datetime.now(UTC).timestamp()
    model = claim.request.model if claim is not None else ""
    return ListingRequest(job_id=None, attempt=0, safety_identifier="", model=model, service_tier="default", since=now)


def _for_attempt(attempt: Attempt, skew: float) -> ListingRequest:
    claim, claimed_at = attempt.claim, attempt.claimed_at
    assert claim is not None
    assert claimed_at is not None
    return ListingRequest(
        job_id=claim.job_id,
        attempt=attempt.number,
        safety_identifier=claim.safety_identifier,
        model=claim.request.model,
        service_tier=claim.request.service_tier or "default",
        since=claimed_at.timestamp() - skew,
    )


def _listed(task: dict[str, object], asked: str | None) -> ListedTask:
    identifier, model, created_at = (task.get(name) for name in ("safety_identifier", "model", "created_at"))
    return ListedTask(
        id=str(task["id"]),
        safety_identifier=identifier[:_LONGEST_TEXT] if isinstance(identifier, str) and identifier else None,
        model=model[:_LONGEST_TEXT] if isinstance(model, str) else None,
        created_at=_seconds(created_at),
        is_other=asked is not None and model != asked,
    )


def _seconds(value: object) -> float | None:
    """Return a point in time; None where the value is none, such as NaN, with which every task would seem old."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
