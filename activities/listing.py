"""Reading the account's list of tasks, for all jobs that look for one.

LIST allows one request a second for the whole account. So the lister, one workflow per route, reads it once for
everybody who asked before it began; jobs ask it by a signal, and are answered by one.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError

from activities.ark import Ark, ArkError
from activities.facts import Attempt, Look, look_by
from activities.ledger import Ledger
from seedance_temporal import job as names
from seedance_temporal.job import Queues
from seedance_temporal.settings import Settings

_PAGE_SIZE = 500
# What our identifiers look like: one that LIST shows proves that it echoes them.
_OURS = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}")


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


class PageOrder(BaseModel):
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
    """One page, and how many tasks match in all."""

    model_config = ConfigDict(frozen=True)

    tasks: tuple[ListedTask, ...]
    total: int


class AskOrder(BaseModel):
    """Which attempt is looked for; without one, only whether LIST echoes identifiers."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int | None = None


class ListingActivities:
    """Reads pages for the lister, and asks it for jobs."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings

    @activity.defn
    async def list_page(self, order: PageOrder) -> Page:
        """One page of the account's tasks.

        Raises:
            ApplicationError: The provider did not answer as it should; to be repeated.
        """
        try:
            page = await self._ark.list(order.page, _PAGE_SIZE, order.service_tier)
        except (ArkError, httpx.HTTPError) as error:
            raise ApplicationError(
                f"the provider did not list its tasks: {error!r}", type="ProviderUnavailable"
            ) from None
        tasks = tuple(_listed(task) for task in page.items if isinstance(task.get("id"), str))
        if any(_OURS.fullmatch(task.safety_identifier or "") for task in tasks):
            await self._ledger.note_echo(self._settings.ark_route)
        return Page(tasks=tasks, total=page.total)

    @activity.defn
    async def ask_lister(self, order: AskOrder) -> Look:
        """Asks for the next listing, where the attempt is still unknown; comes back with what the ledger says."""
        facts = await self._ledger.read(order.job_id)
        look = look_by(facts, self._settings)
        attempt = facts.attempt(order.attempt) if order.attempt is not None else None
        if order.attempt is None:
            await self._ask(_for_the_echo())
        elif look.next == "recover" and look.attempt == order.attempt and attempt is not None:
            await self._ask(self._wanted(attempt))
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

    async def _ask(self, wanted: Wanted) -> None:
        route = self._settings.ark_route
        await activity.client().start_workflow(
            names.LISTER,
            ListerInput(route=route),
            id=names.lister_id(route),
            task_queue=Queues(route).workflows,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=names.SIGNAL_WANTED,
            start_signal_args=[wanted],
            static_summary=f"LIST for all jobs of {route} that look for a task",
        )


def _for_the_echo() -> Wanted:
    now = datetime.now(UTC).timestamp()
    return Wanted(job_id=None, attempt=0, safety_identifier="", model="", service_tier="default", since=now)


def _listed(task: dict[str, object]) -> ListedTask:
    identifier, model, created_at = (task.get(name) for name in ("safety_identifier", "model", "created_at"))
    return ListedTask(
        id=str(task["id"]),
        safety_identifier=identifier if isinstance(identifier, str) and identifier else None,
        model=model if isinstance(model, str) else None,
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
