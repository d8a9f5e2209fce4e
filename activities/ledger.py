"""The attempt ledger: facts in the bucket that say what was claimed, what came of it, and what may happen next.

Temporal's history alone cannot keep a create from being repeated: a Reset runs it again, and a run that was deleted
is forgotten. So each fact is an object of its own, created once and never changed; one listing tells them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from temporalio import activity

from seedance_temporal.contract import Resubmit
from seedance_temporal.events import EventSource, Timeline
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError
from seedance_temporal.ledger.decisions import Decision, decide, decide_from
from seedance_temporal.ledger.facts import Claim, End, Fact, Outcome
from seedance_temporal.ledger.store import Ledger, written_by
from seedance_temporal.provider import rules as catalogue
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings


class ReadLedgerInput(Fact):
    job_id: str
    request: VideoRequest
    resubmit: Resubmit | None = None


class OutcomeInput(Fact):
    """An outcome that is known, and may not stand in the ledger yet, with the claim that it belongs to."""

    claim: Claim
    outcome: Outcome


class EndInput(Fact):
    job_id: str
    error: JobError
    source: EventSource = "ledger"
    usage: Usage | None = None
    cost_usd: float | None = None
    timeline: Timeline = ()


class EndResult(Fact):
    """The end that stands; ``again``: it is not the job's, because another attempt or task follows."""

    error: JobError
    again: bool = False


class LedgerActivities:
    """Reads and writes the ledger for the workflow.

    Args:
        search_attributes: The names that the namespace knows, found at the worker's start.
    """

    def __init__(self, ledger: Ledger, settings: Settings, search_attributes: Iterable[str] = ()) -> None:
        self._ledger = ledger
        self._settings = settings
        self._search_attributes = tuple(sorted(search_attributes))

    @activity.defn
    async def look(self, order: ReadLedgerInput) -> Decision:
        """What the bucket knows of the job, and so what comes next."""
        if order.job_id != job_id_of(order.request):
            return Decision(next="ended", attempt=0, error=_foreign_id(order))
        facts = await self._ledger.read(order.job_id)
        wish = order.resubmit
        answered = facts.attempt(wish.attempt) if wish is not None else None
        # A wish that answers no failure, or that was granted before, changes nothing.
        if wish is not None and answered is not None and answered.error is not None and answered.again is None:
            if answered.error.failure_class != "lost" or wish.accept_second_charge:
                await self._ledger.again(order.job_id, wish)
                facts = await self._ledger.read(order.job_id)
            elif decide(facts).next == "ended":
                return Decision(next="ended", attempt=wish.attempt, error=_second_charge(answered.error))
        endpoints = self._settings.seedance_endpoints
        estimated = catalogue.estimate(order.request, self._settings.prices, endpoints=endpoints)
        look = decide_from(facts, self._settings)
        decisive = facts.attempt(look.attempt)
        # Its claim holds what an earlier run was warned of, when it looked at the references.
        warned = decisive.claim.warnings if decisive is not None and decisive.claim is not None else ()
        return look.model_copy(
            update={
                "search_attributes": self._search_attributes,
                "hash_users": self._settings.seedance_hash_users,
                "folder": self._ledger.folder(order.job_id),
                "create_seconds": self._settings.seedance_create_timeout_seconds,
                "identifiers_listed": await self._ledger.identifiers_listed(
                    order.request.route, self._settings.key_fingerprint
                ),
                "estimated_tokens": estimated.tokens,
                "estimated_usd": estimated.usd,
                "warnings": tuple(dict.fromkeys([*catalogue.warnings(order.request, endpoints=endpoints), *warned])),
                "limited": self._settings.limited,
            }
        )

    @activity.defn
    async def write_outcome(self, order: OutcomeInput) -> None:
        """Writes an outcome that the create knows and could not write itself.

        The claim is written first, should it never have landed: otherwise its own write could land later, and stand
        there without an outcome. Where somebody else's claim stands, ours was never an attempt.
        """
        if await self._ledger.claim(order.claim):
            await self._ledger.settle(order.claim.job_id, order.claim.attempt, order.outcome)

    @activity.defn
    async def write_end(self, order: EndInput) -> EndResult:
        """Writes how the job's task ended; returns the end that stands.

        Asks for another attempt where the provider failed, or never began, and the setting has some left.
        """
        assert order.error.attempt is not None
        end = End(
            error=order.error,
            at=datetime.now(UTC),
            source=order.source,
            usage=order.usage,
            cost_usd=order.cost_usd,
            timeline=order.timeline,
            ledger=await self._ledger.objects(order.job_id),
            **written_by(),
        )
        error = (await self._ledger.end(order.job_id, order.error.attempt, end)).error
        facts = await self._ledger.read(order.job_id)
        spent = [attempt.again for attempt in facts.attempts if attempt.again is not None and attempt.again.automatic]
        # A live task of the job comes before another paid one.
        left = len(spent) < self._settings.seedance_automatic_resubmits and decide(facts).next == "ended"
        ended = facts.attempt(order.error.attempt)
        if left and ended is not None and ended.again is None and error.failure_class in {"expired", "provider"}:
            await self._ledger.again(order.job_id, Resubmit(attempt=order.error.attempt), automatic=True)
            return EndResult(error=error, again=True)
        # Where another attempt decides how the job ended, that is what is told.
        look = decide(facts)
        return EndResult(error=look.error or error, again=look.next != "ended")


def _foreign_id(order: ReadLedgerInput) -> JobError:
    return JobError(
        code="job_id_mismatch",
        message=f"The workflow id {order.job_id} is not the job id of its request, {job_id_of(order.request)}. "
        "Nothing was sent: the id is what keeps a request from being paid twice. Start it under the right id.",
        failure_class="invalid",
    )


def _second_charge(error: JobError) -> JobError:
    message = (
        f"Attempt {error.attempt} may have been billed, so another one can be a second charge: "
        f"it needs accept_second_charge. {error.message}"
    )
    return error.model_copy(update={"code": "second_charge_not_accepted", "message": message})
