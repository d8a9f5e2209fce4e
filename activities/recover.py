"""Finding the task of a create whose outcome is unknown.

A task is ours if GET or LIST shows the safety identifier of the claim, which holds its nonce; nothing else is taken
as proof, neither from a callback nor from an operator.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import httpx
from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import Resolve, ResolveAnswer
from seedance_temporal.events import EventSource, Timeline
from seedance_temporal.job import JobError
from seedance_temporal.ledger.decisions import Decision, decide_at, is_absent, other_key
from seedance_temporal.ledger.facts import Attempt, End, Facts, Listing, Outcome
from seedance_temporal.ledger.store import Ledger, written_by
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND


class IdentifyInput(BaseModel):
    """A task that could be an attempt's, and where it was seen."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    task_id: str
    source: Literal["callback", "list"] = "callback"


class IdentifyResult(BaseModel):
    """Whether a task that was named is one of ours.

    Attributes:
        answer: ``ours``: it is, and the ledger says so now; ``known``: the ledger said so before; ``other``: the
            provider shows another identifier, so it never will be; ``not_yet``: the provider does not show it, or not
            its identifier.
    """

    model_config = ConfigDict(frozen=True)

    answer: Literal["ours", "known", "other", "not_yet"]


class AbsentInput(BaseModel):
    """An attempt that complete listings did not show."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    listings: tuple[Listing, ...]


class ResolveInput(BaseModel):
    """An operator's resolution."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    resolution: Resolve
    timeline: Timeline = ()


class RecoverActivities:
    """Settles unknown outcomes, with facts that the provider shows."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings

    @activity.defn
    async def identify_task(self, input: IdentifyInput) -> IdentifyResult:
        """Tell whether a task that a callback or a listing named is one of an attempt; if it is, write that.

        A callback can be ahead of GET, so only another identifier rules a task out.

        Raises:
            ApplicationError: The provider did not answer as it should; to be repeated.
        """
        facts = await self._ledger.read(input.job_id)
        attempt = facts.attempt(input.attempt)
        if attempt is None or attempt.claim is None:
            return IdentifyResult(answer="not_yet")
        if input.task_id in attempt.tasks:
            return IdentifyResult(answer="known")
        try:
            shown = await self._identifier(input.task_id)
        except (ArkError, httpx.HTTPError) as error:
            raise _unanswered(input.job_id, error) from None
        if shown is None:
            return IdentifyResult(answer="not_yet")
        if shown != attempt.claim.safety_identifier:
            return IdentifyResult(answer="other")
        await self._settle(input.job_id, facts, input.attempt, input.task_id, input.source)
        return IdentifyResult(answer="ours")

    @activity.defn
    async def settle_absent(self, input: AbsentInput) -> Decision:
        """Writes that no task came of an attempt, where listings prove it; comes back with what comes next."""
        facts = await self._ledger.read(input.job_id)
        look = decide_at(facts, self._settings)
        attempt = facts.attempt(input.attempt)
        if look.next != "recover" or look.attempt != input.attempt or attempt is None:
            return look
        if not is_absent(facts, attempt, input.listings, self._settings):
            return look
        message = f"{len(input.listings)} complete listings do not show it"
        outcome = _outcome(facts, "absent", "list", message=message)
        await self._ledger.settle(input.job_id, input.attempt, outcome)
        return await self._look(input.job_id)

    @activity.defn
    async def resolve_attempt(self, input: ResolveInput) -> ResolveAnswer:
        """Write an operator's resolution of an attempt whose outcome is unknown, as a fact in the ledger.

        Raises:
            ApplicationError: The provider did not answer as it should; to be repeated.
        """
        resolution = input.resolution
        facts = await self._ledger.read(input.job_id)
        attempt = facts.attempt(resolution.attempt)
        if attempt is None or attempt.claim is None:
            return ResolveAnswer(accepted=False, message=f"{input.job_id} has no attempt {resolution.attempt}.")
        if attempt.tasks or attempt.error is not None or not attempt.counts:
            known = f"its task is {attempt.tasks[0]}" if attempt.tasks else "it is settled"
            return ResolveAnswer(accepted=False, message=f"Attempt {resolution.attempt} is not unknown: {known}.")
        if resolution.action == "adopt":
            return await self._adopt(input, facts, attempt)
        if resolution.action == "not_created":
            return await self._not_created(input, facts, attempt)
        return await self._lost(input, facts, attempt)

    async def _adopt(self, input: ResolveInput, facts: Facts, attempt: Attempt) -> ResolveAnswer:
        task_id = input.resolution.task_id
        assert attempt.claim is not None
        if not task_id:
            return ResolveAnswer(accepted=False, message="Adopting a task needs its task id.")
        try:
            shown = await self._identifier(task_id)
        except (ArkError, httpx.HTTPError) as error:
            raise _unanswered(input.job_id, error) from None
        if shown != attempt.claim.safety_identifier:
            key = self._settings.key_fingerprint
            blind = f" Note that {other_key(attempt.claim.key, key)}." if attempt.claim.key != key else ""
            return ResolveAnswer(
                accepted=False,
                message=f"The provider knows no task {task_id} that shows the identifier of this attempt, "
                f"{attempt.claim.safety_identifier}.{blind}",
            )
        await self._settle(input.job_id, facts, attempt.number, task_id, "operator")
        return ResolveAnswer(accepted=True, message=f"Task {task_id} is adopted.")

    async def _not_created(self, input: ResolveInput, facts: Facts, attempt: Attempt) -> ResolveAnswer:
        if attempt.taken:
            return ResolveAnswer(accepted=False, message="The provider accepted this create: a task exists.")
        left = self._settings.seedance_recovery_seconds - _age(attempt)
        if left > 0:
            return ResolveAnswer(
                accepted=False, message=f"It is still being looked for. Say so in {left:.0f} s, if it is not found."
            )
        assert attempt.claim is not None
        if attempt.claim.key and attempt.claim.key != self._settings.key_fingerprint:
            # An operator looks where the present key leads; that the task is not there proves nothing.
            unseen = other_key(attempt.claim.key, self._settings.key_fingerprint)
            return ResolveAnswer(
                accepted=False,
                message=f"It may be there all the same: {unseen}. If nobody can tell any more, say --lost.",
            )
        outcome = _outcome(facts, "absent", "operator", message="an operator found no task")
        await self._ledger.settle(input.job_id, attempt.number, outcome)
        return ResolveAnswer(accepted=True, message="Noted as not created. The job claims another attempt.")

    async def _lost(self, input: ResolveInput, facts: Facts, attempt: Attempt) -> ResolveAnswer:
        error = JobError(
            code="unknown_outcome",
            message=f"Nobody can tell any more whether attempt {attempt.number} was created and billed; an operator "
            "gave it up. The provider's invoice tells. Another attempt may be a second charge: "
            f"{COMMAND} resubmit {input.job_id} --attempt {attempt.number} --accept-second-charge",
            failure_class="lost",
            attempt=attempt.number,
            resubmit_could_help=True,
        )
        end = End(
            error=error,
            at=datetime.now(UTC),
            source="operator",
            timeline=input.timeline,
            ledger=facts.objects,
            **written_by(),
        )
        await self._ledger.end(input.job_id, attempt.number, end)
        return ResolveAnswer(accepted=True, message=error.message)

    async def _identifier(self, task_id: str) -> str | None:
        """The safety identifier that GET shows of a task; None where it shows no task, or none of it."""
        payload = await self._ark.get(task_id) or {}
        shown = payload.get("safety_identifier")
        return shown if isinstance(shown, str) and shown else None

    async def _settle(
        self, job_id: str, facts: Facts, attempt: int, task_id: str, source: Literal["callback", "list", "operator"]
    ) -> None:
        outcome = _outcome(facts, "created", source, task_id=task_id)
        await self._ledger.settle(job_id, attempt, outcome)

    async def _look(self, job_id: str) -> Decision:
        return decide_at(await self._ledger.read(job_id), self._settings)


def _outcome(
    facts: Facts,
    kind: Literal["created", "absent"],
    source: EventSource,
    *,
    task_id: str | None = None,
    message: str = "",
) -> Outcome:
    return Outcome(
        kind=kind,
        source=source,
        at=datetime.now(UTC),
        task_id=task_id,
        message=message,
        ledger=facts.objects,
        **written_by(),
    )


def _age(attempt: Attempt) -> float:
    assert attempt.claimed_at is not None
    return (datetime.now(UTC) - attempt.claimed_at).total_seconds()


def _unanswered(job_id: str, error: Exception) -> ApplicationError:
    return ApplicationError(
        f"{job_id}: the provider gave no usable answer while a task was looked for: {error!r}",
        type="ProviderUnavailable",
    )
