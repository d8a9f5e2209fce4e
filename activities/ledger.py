"""The attempt ledger: facts in the bucket about each claim, its outcome and its end.

Temporal's history alone cannot prevent a second create: a Reset runs it again, and a run that was deleted is forgotten.
So each fact is an object of its own, created once and never changed; one listing shows them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from temporalio import activity

from activities.counted import count_billed
from seedance_temporal.contract import Queues, Resubmit
from seedance_temporal.events import EventSource, Timeline
from seedance_temporal.identity import job_id_of
from seedance_temporal.job import JobError, Shape, phase_of
from seedance_temporal.ledger.decisions import Decision, decide, decide_at
from seedance_temporal.ledger.facts import Attempt, Claim, End, Outcome
from seedance_temporal.ledger.settling import settle
from seedance_temporal.ledger.store import Ledger, written_by
from seedance_temporal.places import places_in
from seedance_temporal.provider.billing import is_billed
from seedance_temporal.provider.prices import cost_in
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import summary_and_details


class ReadLedgerInput(Shape):
    """What is asked for.

    Attributes:
        continued: The run continues another one as new.
        may_create: The run may claim an attempt.
    """

    job_id: str
    request: VideoRequest
    resubmit: Resubmit | None = None
    with_context: bool = False
    continued: bool = False
    may_create: bool = True


class RunContext(Shape):
    """The settings and estimates that a run needs, fetched once.

    Attributes:
        search_attributes: The names that the namespace knows.
        hash_users: Whether users are shown as hashes.
        user: The name of the user in Temporal's list; None where the worker's release knows none.
        folder: The start of the names of all objects of the job, as ``gs://…/``.
        create_seconds: The total time that a create may take.
        identifiers_listed: Whether LIST is known to show our identifiers.
        estimated_tokens, estimated_usd, estimated_cny: The most that an attempt should cost, where that is known.
        warnings: Parts of the request that are allowed, and still likely to disappoint, in sentences.
        limited: Whether limits are set, so that a quota entry must be reserved before a create.
        capped: Whether a create needs a place.
        about: The request in Markdown, for a continued run: Temporal's UI shows only for the first run what it was
            started with.
    """

    search_attributes: tuple[str, ...] = ()
    hash_users: bool = False
    user: str | None = None
    folder: str | None = None
    create_seconds: float = 0
    identifiers_listed: bool = False
    estimated_tokens: int | None = None
    estimated_usd: float | None = None
    estimated_cny: float | None = None
    warnings: tuple[str, ...] = ()
    limited: bool = False
    capped: bool = False
    about: str = ""


class ReadLedgerResult(Shape):
    """The decision by the ledger, and the run's context where it was asked for."""

    decision: Decision
    context: RunContext | None = None


class OutcomeInput(Shape):
    """An outcome that may not be in the ledger yet, with its claim."""

    claim: Claim
    outcome: Outcome


class EndInput(Shape):
    job_id: str
    error: JobError
    source: EventSource = "ledger"
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    timeline: Timeline = ()
    may_create: bool = True


class EndResult(Shape):
    """The end in the ledger; ``continues``: the job goes on with another attempt or task."""

    error: JobError
    continues: bool = False


class LedgerActivities:
    """Read and write the ledger for the workflow. ``search_attributes``: the names that the namespace knows."""

    def __init__(self, ledger: Ledger, settings: Settings, search_attributes: Iterable[str] = ()) -> None:
        self._ledger = ledger
        self._settings = settings
        self._search_attributes = tuple(sorted(search_attributes))

    @activity.defn
    async def read_ledger(self, input: ReadLedgerInput) -> ReadLedgerResult:
        """Read the ledger, and decide the next step. Grant the resubmit that the input asks for."""
        # Only a create could be paid twice. A run that only follows a task can have a newer worker's request, without
        # the fields that are new.
        if input.may_create and input.job_id != job_id_of(input.request):
            return ReadLedgerResult(decision=Decision(next="ended", attempt=0, error=_foreign_id(input)))
        facts = await self._ledger.read(input.job_id)
        decision = decide_at(facts, self._settings)
        resubmit = input.resubmit
        failed = facts.attempt(resubmit.attempt) if resubmit is not None else None
        # A resubmit of an attempt that did not fail, or that was granted before, changes nothing.
        if resubmit is not None and failed is not None and failed.error is not None and failed.resubmit_grant is None:
            if failed.error.failure_class != "lost" or resubmit.accept_second_charge:
                await self._ledger.grant_resubmit(input.job_id, resubmit)
                facts = await self._ledger.read(input.job_id)
                decision = decide_at(facts, self._settings)
            elif decision.next == "ended":
                decision = Decision(next="ended", attempt=resubmit.attempt, error=_second_charge(failed.error))
        if not input.with_context:
            return ReadLedgerResult(decision=decision)
        context = await self._context(input, facts.attempt(decision.attempt))
        return ReadLedgerResult(decision=decision, context=context)

    async def _context(self, input: ReadLedgerInput, attempt: Attempt | None) -> RunContext:
        settings = self._settings
        estimated = settings.rules.estimate(input.request)
        # The claim holds the warnings of an earlier run, which has checked the references.
        job_id, request = input.job_id, input.request
        about = ""
        if input.continued:
            about = summary_and_details(job_id, request, settings.rules, hash_users=settings.seedance_hash_users)[1]
        listed = await self._ledger.identifiers_listed(request.route, settings.key_fingerprint, request.model)
        claimed = attempt.claim.warnings if attempt is not None and attempt.claim is not None else ()
        return RunContext(
            search_attributes=self._search_attributes,
            hash_users=settings.seedance_hash_users,
            user=settings.shown_user(request.user_id),
            folder=self._ledger.folder(input.job_id),
            create_seconds=settings.seedance_create_timeout_seconds,
            identifiers_listed=listed,
            estimated_tokens=estimated.tokens,
            estimated_usd=estimated.usd,
            estimated_cny=estimated.cny,
            warnings=tuple(dict.fromkeys([*settings.rules.warnings(input.request), *claimed])),
            limited=settings.limited,
            capped=places_in(Queues(request.route).create_for(request.resolution), settings) is not None,
            about=about,
        )

    @activity.defn
    async def write_outcome(self, input: OutcomeInput) -> None:
        """Write an outcome that the create could not write itself.

        Write the claim first: its own write may still be under way, and would leave a claim without an outcome. Where
        another run's claim exists, ours was never an attempt.
        """
        if await self._ledger.claim(input.claim):
            await self._ledger.write_outcome(input.claim.job_id, input.claim.attempt, input.outcome)
            if input.outcome.kind == "refused":
                await settle(self._ledger, input.claim.job_id, self._settings)

    @activity.defn
    async def write_end(self, input: EndInput) -> EndResult:
        """Write how the job's task ended; return the end that counts. A video that was verified is not given up.

        Grant another attempt where the provider failed, or never began, the setting has some left, and the run may make
        one.
        """
        assert input.error.attempt is not None
        task_id = input.error.task_id if input.error.failure_class == "lost" else None
        if task_id is not None and await self._ledger.has_verified_video(input.job_id, task_id):
            # Only the record is missing, and that needs no URL.
            return EndResult(error=input.error, continues=True)
        end = End(
            error=input.error,
            at=datetime.now(UTC),
            source=input.source,
            usage=input.usage,
            cost_usd=input.cost_usd,
            cost_cny=input.cost_cny,
            timeline=input.timeline,
            ledger=await self._ledger.objects(input.job_id),
            **written_by(),
        )
        counts = await self._ledger.end(input.job_id, input.error.attempt, end)
        error = counts.error
        await settle(self._ledger, input.job_id, self._settings)
        facts = await self._ledger.read(input.job_id)
        decision = decide(facts)
        ended = facts.attempt(input.error.attempt)
        if counts is end and is_billed(phase_of(error)) and ended is not None and ended.claim is not None:
            count_billed(ended.claim.request, input.usage, cost_in(input), self._settings)
        grants = {attempt.number: attempt.resubmit_grant for attempt in facts.attempts}
        automatic = sum(grant is not None and grant.automatic for grant in grants.values())
        # A live task of the job comes before another paid one.
        left = automatic < self._settings.seedance_automatic_resubmits and decision.next == "ended" and input.may_create
        if left and grants[input.error.attempt] is None and error.failure_class in {"expired", "provider"}:
            await self._ledger.grant_resubmit(input.job_id, Resubmit(attempt=input.error.attempt), automatic=True)
            return EndResult(error=error, continues=True)
        # The end of another attempt can be the end of the job.
        return EndResult(error=decision.error or error, continues=decision.next != "ended")


def _foreign_id(input: ReadLedgerInput) -> JobError:
    return JobError(
        code="job_id_mismatch",
        message=f"The workflow id {input.job_id} is not the job id of its request, {job_id_of(input.request)}. "
        "Nothing was sent: a request under two ids could be paid twice. Start it under the right id.",
        failure_class="invalid",
    )


def _second_charge(error: JobError) -> JobError:
    message = (
        f"Attempt {error.attempt} may have been billed, so another one can be a second charge: "
        f"it needs accept_second_charge. {error.message}"
    )
    return error.model_copy(update={"code": "second_charge_not_accepted", "message": message})
