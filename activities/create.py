"""The one activity that pays: claim, one POST, outcome.

Temporal must never send it twice, so it runs with one attempt, never heartbeats, and refuses to run as a second one.
Each result names the attempt and the nonce: so the workflow can write the outcome where this activity could not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime
from temporalio import activity

from activities.deadline import Deadline
from activities.limits import LimitActivities
from activities.places import NO_PLACE, HeldPlaces, needs_place
from activities.poll import expected_at, seconds_until_poll
from seedance_temporal.events import Timeline
from seedance_temporal.identity import callback_url
from seedance_temporal.job import Attention, JobError, Shape
from seedance_temporal.late_tasks import name_in_question
from seedance_temporal.ledger.decisions import decide
from seedance_temporal.ledger.drafts import NoDraft, draft_task
from seedance_temporal.ledger.facts import Claim, Facts, Outcome, nothing_sent
from seedance_temporal.ledger.record import RecordedObject
from seedance_temporal.ledger.settling import settle
from seedance_temporal.ledger.store import Ledger
from seedance_temporal.limits import Refusal
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.create_answer import CreateAnswer
from seedance_temporal.provider.payload import body_of
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.storage.bucket import Bucket, readable_url
from seedance_temporal.storage.signing import CannotSign
from seedance_temporal.temporal_ui import COMMAND
from seedance_temporal.urls import redacted

# Tries to connect within one execution. After any answer, such as 429, the next create comes through the queue, which
# keeps the account's rate.
_CONNECTS = 3
# One 429 for the rate or the load can be chance. After so many creates in a row that were not sent, and the last one
# refused so, the rate is too high for all.
_ROUNDS_OVER_RATE = 3
_LONGEST_WAIT = 900.0
# Before another attempt after a reference could not be downloaded by the provider.
_PASSING_SECONDS = (120.0, 300.0)
# Writing claim and outcome must leave most of the total time to the provider.
_CLAIM_SECONDS = 15.0
_OUTCOME_SECONDS = 10.0
# One request for each earlier attempt that may have a task: a job has few of these.
_ASK_TEMPORAL_SECONDS = 15.0
# A user's entries of a day are read once by a worker.
_LIMITS_SECONDS = 15.0
# A draft takes a read of its ledger and a GET.
_DRAFT_SECONDS = 15.0
# A signature can take a request to Google.
_SIGN_SECONDS = 15.0
# The provider downloads references during the create; a queue in front of that must not outlive the signature.
_SIGNED_LONGER = timedelta(hours=1)
# With less time left, nothing is sent: the answer would be lost.
_LEAST_SECONDS = 1.0
_LONGEST_REASON = 500

_log = logging.getLogger(__name__)


class CreateInput(Shape):
    """The request to send, and the attempt to send it as.

    Attributes:
        refusals: How many creates of this run were not sent.
        submitted_at: The start of this run.
        warnings: The job's warnings, in sentences.
        media: The properties of its references.
        timeline: The job's events so far, for the outcome: a refused job has no other object that could hold them.
        passing: How many creates in a row the provider refused for a reason that can pass.
        placed: Whether the job has taken a place.
        doubt: Which task was named for an earlier attempt, and cannot be asked for. Nothing is sent over that.
    """

    job_id: str
    request: VideoRequest
    attempt: int
    refusals: int = 0
    submitted_at: datetime | None = None
    warnings: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    timeline: Timeline = ()
    doubt: str = ""
    passing: int = 0
    placed: bool = False


class CreateResult(Shape):
    """The outcome of a create.

    Attributes:
        kind: ``created``, ``refused``, ``not_sent``: known; ``unknown``: a task may exist; ``conflict``: another run
            has claimed this attempt, so the ledger must be read again; ``impossible``: nothing was claimed, and
            nothing can be sent.
        claim: The claim that was made, or may have been.
        outcome: The outcome to be written; with ``unknown`` at most that the create was accepted without an id.
        written: Whether the ledger holds the outcome.
        error: With ``impossible``.
        attention: The problem that an operator must settle before a create can succeed.
        passing: With ``not_sent``: whether the provider refused it for a reason that can pass.
        needs_place: With ``not_sent``: whether the job has to take a place first.
        wait_seconds: Seconds until the first poll of the task, or until the next create.
        expected_at: With ``created``: when the task should have its video, an estimate; None where too little is known.
        for_all: With ``not_sent``: whether every other create of the queue would be refused as well.
        reset_at: With ``for_all``: when a quota is renewed, where the provider says so.
        over_budget: With ``not_sent``: whether a budget must be waited for, which is no failure.
    """

    kind: Literal["created", "refused", "not_sent", "unknown", "conflict", "impossible"]
    claim: Claim | None = None
    outcome: Outcome | None = None
    written: bool = True
    error: JobError | None = None
    attention: Attention | None = None
    message: str = ""
    passing: bool = False
    needs_place: bool = False
    wait_seconds: float = 0
    expected_at: AwareDatetime | None = None
    for_all: bool = False
    reset_at: AwareDatetime | None = None
    over_budget: bool = False


class CreateActivities:
    """Send the paid create."""

    def __init__(self, ledger: Ledger, bucket: Bucket, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._bucket = bucket
        self._ark = ark
        self._settings = settings
        self._places = HeldPlaces()
        # The queue of the ledger serves the same ones, so that a process reads each log of spending once.
        self.limits = LimitActivities(ledger, bucket, settings)

    @activity.defn
    async def create_task(self, input: CreateInput) -> CreateResult:
        """Claim an attempt, and send the POST for it."""
        info = activity.info()
        if info.attempt > 1:
            return CreateResult(kind="unknown", message="Temporal started the create a second time; nothing was sent")
        if problems := self._settings.rules.check_new(input.request):
            return _impossible("invalid_request", "; ".join(map(str, problems)))
        deadline = Deadline(self._settings.seedance_create_timeout_seconds)
        # Before the POST, whose answer must not wait for anything.
        times = await self._ledger.task_times.of(input.request)
        claim = self._new_claim(input, info)
        if input.doubt:
            return self._before_claim(input, claim, CreateAnswer("not_sent", code="task_named", message=input.doubt))
        if needs_place(input.request, self._settings) and not input.placed:
            return self._before_claim(input, claim, NO_PLACE)
        try:
            # Also here: a job can have waited for its create since before a limit was set.
            async with asyncio.timeout(_LIMITS_SECONDS):
                reserved = await self.limits.reserve(input.job_id, input.request)
        except Exception as error:
            unread = _failure("limits_unknown", "the limits on spending cannot be read", error)
            return self._before_claim(input, claim, unread)
        if isinstance(reserved, Refusal):
            if self.limits.is_waited_for(reserved):
                return CreateResult(kind="not_sent", message=reserved.message, over_budget=True)
            return _impossible(reserved.code, reserved.message)
        claim = claim.model_copy(update={"reserved": reserved.reference})
        try:
            async with asyncio.timeout(_DRAFT_SECONDS):
                draft = await self._draft_task(input.request)
        except NoDraft as error:
            return _impossible("no_draft", str(error))
        except Exception as error:
            unknown = _failure("draft_unknown", "it is not known whether the draft is still there", error)
            if isinstance(error, ArkError):
                unknown = replace(unknown, attention=error.attention)
            return self._before_claim(input, claim, unknown)
        try:
            async with asyncio.timeout(_SIGN_SECONDS):
                body = await self._body(claim, draft)
        except CannotSign as error:
            return _impossible("cannot_sign", str(error))
        except Exception as error:
            return self._before_claim(
                input, claim, _failure("signing_failed", "a private reference could not be signed", error)
            )
        try:
            if not await self._ledger.claim(claim, seconds=_CLAIM_SECONDS):
                return CreateResult(kind="conflict")
            facts = await self._ledger.read(input.job_id)
        except Exception as error:
            # Nothing is sent without a claim. It may be in the bucket all the same: the workflow settles that.
            _log.warning("the ledger cannot be reached", extra={"job_id": input.job_id}, exc_info=True)
            failure = _failure("bucket_unreachable", "the ledger cannot be written, or read", error)
            return self._not_sent(input, claim, failure, _outcome(input, claim, failure), written=False)
        before = facts.without(input.attempt)
        current = decide(before)
        if current.next != "claim" or current.attempt > input.attempt:
            # The workflow's decision is stale, such as one that a Reset brought back.
            stale = CreateAnswer("not_sent", code="ledger_changed", message="the ledger changed since it was read")
            result = await self._result(input, claim, stale, facts, times)
            return result.model_copy(update={"wait_seconds": 0.0})
        answer = await self._why_not(input, before) or await self._send(body, deadline)
        return await self._result(input, claim, answer, facts, times)

    async def _why_not(self, input: CreateInput, before: Facts) -> CreateAnswer | None:
        """Return why nothing is to be sent: a task of an earlier attempt can turn up, or the job has lost its place.

        The place is asked for after the claim: who frees it sees either the claim, or that nothing can be sent.
        """
        try:
            async with asyncio.timeout(_ASK_TEMPORAL_SECONDS):
                named = await name_in_question(activity.client(), input.job_id, before.may_have_tasks)
                if named is not None:
                    return CreateAnswer("not_sent", code="task_named", message=named)
                placed = not needs_place(input.request, self._settings) or await self._places.has(
                    input.request, input.job_id
                )
        except Exception as error:
            reason = "Temporal does not say what was named for earlier attempts, or whether the job has a place"
            return _failure("temporal_unreachable", reason, error)
        return None if placed else NO_PLACE

    def _new_claim(self, input: CreateInput, info: activity.Info) -> Claim:
        estimated = self._settings.rules.estimate(input.request)
        return Claim(
            job_id=input.job_id,
            attempt=input.attempt,
            nonce=secrets.token_hex(16),
            namespace=info.namespace,
            run_id=info.workflow_run_id or "",
            claimed_at=datetime.now(UTC),
            request=input.request,
            submitted_at=input.submitted_at,
            estimated_tokens=estimated.tokens,
            estimated_usd=estimated.usd,
            estimated_cny=estimated.cny,
            warnings=input.warnings,
            media=input.media,
            key=self._settings.key_fingerprint,
            search_seconds=self._settings.search_seconds,
        )

    async def _send(self, body: dict[str, Any], deadline: Deadline) -> CreateAnswer:
        """Send the POST; try again where the provider could not be connected, and time is left."""
        answer = CreateAnswer("not_sent", code="no_time_left", message="the time for the create was over before it")
        for connect in range(1, _CONNECTS + 1):
            if deadline.remaining() < _LEAST_SECONDS:
                return answer
            answer = await self._ark.create(body, deadline.remaining())
            if not answer.reached_nobody or connect == _CONNECTS:
                return answer
            await asyncio.sleep(2.0 ** (connect - 1))
        return answer

    async def _result(
        self, input: CreateInput, claim: Claim, answer: CreateAnswer, facts: Facts, times: Sequence[float]
    ) -> CreateResult:
        message = f"{answer.code}: {answer.message}"
        if answer.kind == "unknown":
            return CreateResult(kind="unknown", claim=claim, message=message)
        if answer.passing and input.passing < len(_PASSING_SECONDS):
            # Another attempt is free, and the host of the reference may answer it.
            answer = replace(answer, kind="not_sent", retry_after=_PASSING_SECONDS[input.passing])
        outcome = _outcome(input, claim, answer, facts.objects)
        written = await self._write_outcome(claim, outcome)
        if answer.kind == "accepted_without_id":
            return CreateResult(kind="unknown", claim=claim, outcome=outcome, written=written, message=message)
        if answer.kind == "not_sent":
            return self._not_sent(input, claim, answer, outcome, written=written)
        if written:
            if answer.kind == "refused":
                await settle(self._ledger, claim.job_id, self._settings)
            # It can name thousands of objects, and the run needs none of them.
            outcome = outcome.model_copy(update={"ledger": ()})
        return CreateResult(
            kind="created" if answer.kind == "created" else "refused",
            claim=claim,
            outcome=outcome,
            written=written,
            message=f"{answer.code} {answer.message}".strip(),
            wait_seconds=seconds_until_poll(self._settings, input.request, times, elapsed=0),
            expected_at=expected_at(outcome.at, 0, times) if answer.kind == "created" else None,
        )

    def _before_claim(self, input: CreateInput, claim: Claim, answer: CreateAnswer) -> CreateResult:
        """Say why nothing was claimed; so there is no outcome to write."""
        return self._not_sent(input, claim, answer, _outcome(input, claim, answer), written=True)

    def _not_sent(
        self, input: CreateInput, claim: Claim, answer: CreateAnswer, outcome: Outcome, *, written: bool
    ) -> CreateResult:
        slow_start = 30.0 if answer.attention is not None else 2.0
        wait = min(_LONGEST_WAIT, max(answer.retry_after or 0.0, slow_start * 2.0 ** min(input.refusals, 10)))
        message = f"{answer.code}: {answer.message}"
        jitter = random.uniform(0.0, 0.2) * wait  # noqa: S311 - no secret
        if answer.reset_in is not None:
            wait = max(wait, answer.reset_in)
            message = (
                f"{message.rstrip('.')}. The job waits for that time; {COMMAND} retry {input.job_id} ends the wait"
            )
        return CreateResult(
            kind="not_sent",
            claim=claim,
            outcome=outcome,
            written=written,
            attention=answer.attention,
            message=message,
            passing=answer.passing,
            needs_place=answer.code == NO_PLACE.code,
            wait_seconds=wait + jitter,
            for_all=answer.for_all or (answer.over_rate and input.refusals + 1 >= _ROUNDS_OVER_RATE),
            reset_at=datetime.now(UTC) + timedelta(seconds=answer.reset_in) if answer.reset_in is not None else None,
        )

    async def _write_outcome(self, claim: Claim, outcome: Outcome) -> bool:
        """Write the outcome within a time limit; return False where the workflow has to write it."""
        try:
            async with asyncio.timeout(_OUTCOME_SECONDS):
                await self._ledger.write_outcome(claim.job_id, claim.attempt, outcome, seconds=_OUTCOME_SECONDS)
        except Exception:
            _log.warning("the outcome of a create was not written", extra={"job_id": claim.job_id}, exc_info=True)
            return False
        return True

    async def _draft_task(self, request: VideoRequest) -> str | None:
        """Return the task of the draft that the request is a final of; None where it is no final.

        Raises:
            NoDraft: No final can be made of it.
            Exception: The provider or the ledger does not answer for it.
        """
        if request.draft_of is None:
            return None
        return await draft_task(request, request.draft_of, self._ledger, self._ark, self._settings.rules)

    async def _body(self, claim: Claim, draft: str | None) -> dict[str, Any]:
        """Build the create's JSON body.

        Raises:
            CannotSign: A private reference cannot be signed.
        """
        # The URL is valid for as long as a create can take.
        lifetime = timedelta(seconds=self._settings.claim_is_young_seconds) + _SIGNED_LONGER
        references = claim.request.references
        urls = await asyncio.gather(*(readable_url(self._bucket, each.url, lifetime) for each in references))
        body = body_of(claim.request, urls, draft) | {"safety_identifier": claim.safety_identifier}
        base, secret = self._settings.seedance_callback_url, self._settings.seedance_callback_secret
        if base is not None and secret is not None:
            body["callback_url"] = callback_url(base, secret.get_secret_value(), claim.job_id, claim.attempt)
        return body


def _outcome(
    input: CreateInput, claim: Claim, answer: CreateAnswer, objects: tuple[RecordedObject, ...] = ()
) -> Outcome:
    assert answer.kind != "unknown"
    return Outcome(
        kind=answer.kind,
        source="create",
        at=datetime.now(UTC),
        task_id=answer.task_id,
        code=answer.code,
        message=answer.message,
        failure_class=answer.failure_class,
        namespace=claim.namespace,
        run_id=claim.run_id,
        # Of those that were not sent there can be hundreds in a row, in which nothing else happens.
        timeline=() if answer.kind == "not_sent" else input.timeline,
        ledger=() if answer.kind == "not_sent" else objects,
    )


def _failure(code: str, reason: str, error: Exception) -> CreateAnswer:
    # Some libraries' errors quote whole answers, and URLs with their signatures.
    cause = redacted(repr(error), limit=_LONGEST_REASON)
    return CreateAnswer("not_sent", code=code, message=f"nothing was sent: {reason} ({cause})")


def _impossible(code: str, message: str) -> CreateResult:
    return CreateResult(kind="impossible", error=nothing_sent(code, message), message=message)
