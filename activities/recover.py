"""Find the task of a create whose outcome is unknown.

A task is ours if GET or LIST shows the safety identifier of the claim, which holds its nonce. No callback and no
operator can replace that proof.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Literal

import httpx
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from seedance_temporal import contract
from seedance_temporal.contract import (
    GenerateVideoInput,
    NamedBy,
    NamedTask,
    Queues,
    Resolve,
    ResolveAction,
    ResolveAnswer,
    priority_of,
)
from seedance_temporal.events import EventSource, Timeline
from seedance_temporal.job import JobError, Shape
from seedance_temporal.late_tasks import ask_later, name_in_question
from seedance_temporal.ledger.decisions import Decision, decide_at, is_absent, other_key, search_time
from seedance_temporal.ledger.facts import Attempt, Claim, End, Facts, Listing, Outcome
from seedance_temporal.ledger.store import Ledger, written_by
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND, summary_and_details

_NOT_CREATED = "Noted as not created. Unless it was cancelled, the job claims another attempt."
_NOTED_BEFORE = "It was noted as not created before. This changed nothing."
# What an operator knew then. It is not written later: a worker can be away for long, and a Reset brings it back.
_COUNTS_FOR = timedelta(minutes=2)

_log = logging.getLogger(__name__)


class IdentifyInput(Shape):
    """A task that could be an attempt's, and where it was seen."""

    job_id: str
    attempt: int
    task_id: str
    source: NamedBy = "callback"


class IdentifyResult(Shape):
    """Whether a named task is one of the job.

    Attributes:
        answer: ``ours``: it is, and the ledger says so now; ``known``: the ledger said so before; ``other``: the
            provider shows another identifier, so it never will be; ``not_yet``: the provider does not show the task, or
            not its identifier.
    """

    answer: Literal["ours", "known", "other", "not_yet"]


class AbsentInput(Shape):
    """An attempt that complete listings did not show."""

    job_id: str
    attempt: int
    listings: tuple[Listing, ...]


class ResolveInput(Shape):
    """An operator's resolution."""

    job_id: str
    resolution: Resolve
    timeline: Timeline = ()


class AskLaterInput(Shape):
    """Tasks that were named for a job whose run ends, and that are still in question."""

    job_id: str
    route: str
    named: tuple[NamedTask, ...]


class FollowInput(Shape):
    """An ended job of which the ledger knows a task by now, and the attempt whose claim holds the request."""

    job_id: str
    attempt: int


class RecoverActivities:
    """Settle unknown outcomes by facts that the provider shows."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings

    @activity.defn
    async def identify_task(self, input: IdentifyInput) -> IdentifyResult:
        """Find out whether a task is one of an attempt; if it is, write that.

        A callback can be ahead of GET, so only another identifier rules a task out.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the provider gave no usable answer, or none under another API key
                than that of the claim. Retryable.
        """
        facts = await self._ledger.read(input.job_id, input.attempt)
        attempt = facts.attempt(input.attempt)
        if attempt is None or attempt.claim is None:
            return IdentifyResult(answer="not_yet")
        if input.task_id in attempt.tasks:
            return IdentifyResult(answer="known")
        key = self._settings.key_fingerprint
        shown = await self._identifier(input.job_id, input.task_id)
        if shown is None and attempt.claim.key not in {"", key}:
            raise ApplicationError(
                f"{input.job_id}: the provider does not show task {input.task_id}: {other_key(attempt.claim.key, key)}",
                type="ProviderUnavailable",
            )
        if shown is None:
            return IdentifyResult(answer="not_yet")
        if shown != attempt.claim.safety_identifier:
            return IdentifyResult(answer="other")
        await self._write_outcome(input.job_id, facts, input.attempt, "created", input.source, task_id=input.task_id)
        return IdentifyResult(answer="ours")

    @activity.defn
    async def ask_later(self, input: AskLaterInput) -> None:
        """Have tasks asked for after the end of the run."""
        for named in input.named:
            try:
                await ask_later(activity.client(), input.job_id, input.route, named)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                # It has all the signals that a run may have, and takes in no more names: the run can end without it.
                _log.warning("%s: task %s is not asked for: %s", input.job_id, named.task_id, error.message)

    @activity.defn
    async def follow_known_task(self, input: FollowInput) -> None:
        """Start a run that follows the job's live task where no video is stored, and else calls an operator.

        It may not create. A run that goes on is told of the task: it can be about to end, and have read the ledger
        before.
        """
        facts = await self._ledger.read(input.job_id, input.attempt)
        attempt, decision = facts.attempt(input.attempt), decide_at(facts, self._settings)
        live = {"adopt": decision.task_id, "stored": decision.second_task}.get(decision.next)
        if live is None or attempt is None or attempt.claim is None:
            return
        request = attempt.claim.request
        settings = self._settings
        summary, details = summary_and_details(
            input.job_id, request, settings.rules, hash_users=settings.seedance_hash_users
        )
        await activity.client().start_workflow(
            contract.WORKFLOW,
            GenerateVideoInput(request=request, may_create=False),
            id=input.job_id,
            task_queue=Queues(request.route).workflows,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal=contract.SIGNAL_TASK_CHANGED,
            start_signal_args=[NamedTask(task_id=live, status="", attempt=input.attempt, source="ledger")],
            priority=priority_of(request, user=settings.user_key(request.user_id)),
            static_summary=summary,
            static_details=details,
        )

    @activity.defn
    async def settle_absent(self, input: AbsentInput) -> Decision:
        """Write that an attempt created no task, where listings prove it; return the decision that follows."""
        facts = await self._ledger.read(input.job_id)
        decision = decide_at(facts, self._settings)
        attempt = facts.attempt(input.attempt)
        is_open = (decision.next, decision.attempt) == ("recover", input.attempt)
        if attempt is None or not is_open or not is_absent(facts, attempt, input.listings, self._settings):
            return decision
        if await name_in_question(activity.client(), input.job_id, [input.attempt]) is not None:
            return decision
        message = f"{len(input.listings)} complete listings do not show it"
        await self._write_outcome(input.job_id, facts, input.attempt, "absent", "list", message=message)
        return decide_at(await self._ledger.read(input.job_id), self._settings)

    @activity.defn
    async def resolve_attempt(self, input: ResolveInput) -> ResolveAnswer:
        """Write an operator's resolution of an attempt whose outcome is unknown.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the provider gave no usable answer. Retryable.
        """
        resolution = input.resolution
        facts = await self._ledger.read(input.job_id, resolution.attempt)
        attempt = facts.attempt(resolution.attempt)
        if attempt is None or attempt.claim is None:
            return _refused(f"{input.job_id} has no attempt {resolution.attempt}.")
        if resolution.action == "adopt":
            return await self._adopt(input, facts, attempt, attempt.claim)
        if attempt.tasks or attempt.error is not None or not attempt.counts:
            known = f"its task is {attempt.tasks[0]}" if attempt.tasks else "it is settled"
            # The worker that wrote it can have died before it could say so.
            return _said_before(attempt, resolution.action) or _refused(
                f"Attempt {resolution.attempt} is not unknown: {known}."
            )
        if (untimely := self._untimely(resolution, attempt)) is not None:
            return _refused(untimely)
        if resolution.action == "not_created":
            return await self._not_created(input, facts, attempt, attempt.claim)
        return await self._lost(input, facts, attempt.number)

    def _untimely(self, resolution: Resolve, attempt: Attempt) -> str | None:
        """Return why a resolution comes too early, or too late; None where it does not.

        It is judged by when it was sent, and by the worker's clock: by the earlier one, where it could be too early.
        """
        assert attempt.claimed_at is not None
        now, settings = datetime.now(UTC), self._settings
        sent_at = min(resolution.sent_at or now, now)
        if now - sent_at > _COUNTS_FOR + timedelta(seconds=settings.seedance_clock_skew_seconds):
            return (
                f"By its sender's clock it was sent at {sent_at:%H:%M:%S} UTC, and by the worker's it is "
                f"{now:%H:%M:%S}: it waited too long for a worker, came back after a Reset, or a clock is wrong. "
                "Nothing was written. Send it again, if it still holds."
            )
        if sent_at < attempt.claimed_at:
            return f"It was sent before attempt {attempt.number} was made."
        # A task can have been made after the operator looked for it.
        over = attempt.claimed_at + search_time(attempt, settings)
        if resolution.action == "not_created" and sent_at < over:
            left = max((over - now).total_seconds(), 0)
            return f"The search for its task was not over. Send this again in {left:.0f} s, if no task is found."
        return None

    async def _adopt(self, input: ResolveInput, facts: Facts, attempt: Attempt, claim: Claim) -> ResolveAnswer:
        """Adopt a task that shows the attempt's identifier, also where the attempt counted as absent or lost."""
        task_id, key = input.resolution.task_id, self._settings.key_fingerprint
        if not task_id:
            return _refused("Adopting a task needs its task id.")
        adopted = ResolveAnswer(accepted=True, message=f"Task {task_id} is adopted: the job follows it.")
        if task_id in attempt.tasks:
            return adopted
        shown = await self._identifier(input.job_id, task_id)
        if shown is None:
            unseen = f" Note that {other_key(claim.key, key)}." if claim.key != key else ""
            return _refused(
                f"The provider does not show task {task_id} with an identifier so far. "
                f"The job asks for it again by itself during the next minutes.{unseen}"
            )
        if shown != claim.safety_identifier:
            # The identifier is another application's, and of any length.
            return _refused(f"{task_id} is another task: it does not show this attempt's {claim.safety_identifier}.")
        await self._write_outcome(input.job_id, facts, attempt.number, "created", "operator", task_id=task_id)
        decision = decide_at(await self._ledger.read(input.job_id, attempt.number), self._settings)
        if decision.task_id == task_id:
            return adopted
        return ResolveAnswer(
            accepted=True,
            message=f"Task {task_id} is on record, but its video is not stored: the job has task {decision.task_id}. "
            "Fetch it from the provider, which keeps it for 24 hours.",
        )

    async def _not_created(self, input: ResolveInput, facts: Facts, attempt: Attempt, claim: Claim) -> ResolveAnswer:
        if attempt.accepted_without_id:
            return _refused("The provider accepted this create: a task exists.")
        if claim.key and claim.key != self._settings.key_fingerprint:
            # An operator sees only the tasks of the present key's project; the task can be in another one.
            unseen = other_key(claim.key, self._settings.key_fingerprint)
            return _refused(
                f"The task may exist all the same: {unseen}. If that cannot be found out, resolve with --lost."
            )
        if (named := await name_in_question(activity.client(), input.job_id, [attempt.number])) is not None:
            return _refused(f"It may have been created. {named}")
        await self._write_outcome(
            input.job_id, facts, attempt.number, "absent", "operator", message="an operator found no task"
        )
        return await self._counted(input, ResolveAnswer(accepted=True, message=_NOT_CREATED))

    async def _lost(self, input: ResolveInput, facts: Facts, attempt: int) -> ResolveAnswer:
        error = JobError(
            code="unknown_outcome",
            message=f"It is not known whether attempt {attempt} was created and billed; an operator gave it up. "
            "The provider's invoice shows whether it was billed. Another attempt may be a second charge: "
            f"{COMMAND} resubmit {input.job_id} --attempt {attempt} --accept-second-charge",
            failure_class="lost",
            attempt=attempt,
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
        await self._ledger.end(input.job_id, attempt, end)
        return await self._counted(input, ResolveAnswer(accepted=True, message=error.message))

    async def _counted(self, input: ResolveInput, answer: ResolveAnswer) -> ResolveAnswer:
        """Return an answer, unless a callback or a listing was faster: its task counts."""
        facts = await self._ledger.read(input.job_id, input.resolution.attempt)
        attempt = facts.attempt(input.resolution.attempt)
        if attempt is not None and attempt.tasks:
            return _refused(f"Attempt {attempt.number} is not unknown: its task is {attempt.tasks[0]}.")
        return answer

    async def _identifier(self, job_id: str, task_id: str) -> str | None:
        """GET a task, and return its safety identifier; None where no task, or no identifier, is shown."""
        try:
            payload = await self._ark.get(task_id) or {}
        except (ArkError, httpx.HTTPError) as error:
            if isinstance(error, ArkError) and error.code and error.status == httpx.codes.BAD_REQUEST:
                return None  # by the provider's own word, no task can have this id
            raise ApplicationError(
                f"{job_id}: the provider gave no usable answer during the search for a task: {error!r}",
                type="ProviderUnavailable",
            ) from None
        shown = payload.get("safety_identifier")
        return shown if isinstance(shown, str) and shown else None

    async def _write_outcome(
        self,
        job_id: str,
        facts: Facts,
        attempt: int,
        kind: Literal["created", "absent"],
        source: EventSource,
        *,
        task_id: str | None = None,
        message: str = "",
    ) -> None:
        outcome = Outcome(
            kind=kind,
            source=source,
            at=datetime.now(UTC),
            task_id=task_id,
            message=message,
            ledger=facts.objects,
            **written_by(),
        )
        await self._ledger.write_outcome(job_id, attempt, outcome)


def _said_before(attempt: Attempt, action: ResolveAction) -> ResolveAnswer | None:
    """Return the answer to a resolution that the ledger holds already; None where it holds another one, or none."""
    outcome, error = attempt.outcome, attempt.error
    if action == "not_created" and outcome is not None and (outcome.kind, outcome.source) == ("absent", "operator"):
        return ResolveAnswer(accepted=True, message=_NOTED_BEFORE) if not attempt.tasks else None
    if action == "lost" and error is not None and error.code == "unknown_outcome":
        return ResolveAnswer(accepted=True, message=error.message)
    return None


def _refused(message: str) -> ResolveAnswer:
    return ResolveAnswer(accepted=False, message=message)
