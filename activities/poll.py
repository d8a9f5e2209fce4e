"""Poll a task, and cancel one that is still queued. A status is believed from a GET alone, here and before the copy."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from typing import Literal

import httpx
from temporalio import activity
from temporalio.exceptions import ApplicationError

from seedance_temporal.job import Attention, JobError, Shape, VideoResult
from seedance_temporal.ledger.decisions import other_key, second_task
from seedance_temporal.ledger.facts import Attempt, Facts
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.refusals import advice_on
from seedance_temporal.provider.task import (
    CANCELLED,
    PROVIDER_FORGETS_AFTER,
    QUEUED,
    RESULT_URL_LIFE,
    SUCCEEDED,
    TERMINAL,
    Task,
    Usage,
    failure_class,
    new_attempt_could_help,
    parse_task,
)
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from seedance_temporal.temporal_ui import COMMAND

# A callback can be ahead of GET.
_AFTER_CALLBACK_SECONDS = 5.0
# A refused key or account is fixed by an operator, who can also have the job retry at once: looks grow sparse.
_REFUSED_SECONDS = 60.0
_LONGEST_REFUSED_SECONDS = 900.0
# DELETE erases the record of a finished task, so the answer of GET must be fresh.
_GET_IS_FRESH_SECONDS = 2.0
# The first poll, by resolution: a little before most videos of 5 seconds are done.
_TYPICAL_SECONDS = {"480p": 60.0, "720p": 90.0, "1080p": 150.0, "4k": 240.0}


class GetTaskInput(Shape):
    """The task to poll.

    Attributes:
        polls: How often it was polled before.
        refused: How often in a row the provider refused key or account.
        announced: Whether a callback announced its end.
    """

    job_id: str
    request: VideoRequest
    attempt: int
    task_id: str
    polls: int = 0
    refused: int = 0
    announced: bool = False


class Observation(Shape):
    """The answer to a poll.

    Attributes:
        next: ``wait``; ``copy``: it succeeded, and its video is to be copied; ``already_stored``: that is done;
            ``write_end``: it ended without a video, and that is to be written; ``already_ended``: that is done.
        status: The provider's name for it.
        attention: The problem that an operator must settle.
        wait_seconds: Seconds, with ``wait``.
        usage, cost_usd, cost_cny: The provider's count, and its cost, with ``copy`` and ``write_end``, where known.
        copy_within: Seconds that the result URL still lives, with ``copy``: from 0 to 24 hours.
        second_task: A task that is not followed.
    """

    next: Literal["wait", "copy", "already_stored", "write_end", "already_ended"]
    status: str = ""
    note: str | None = None
    result: VideoResult | None = None
    error: JobError | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    cost_cny: float | None = None
    attention: Attention | None = None
    wait_seconds: float = 0
    copy_within: float = 0
    second_task: str | None = None


class CancelResult(Shape):
    """The outcome of a request to cancel."""

    outcome: Literal["cancelled", "running_will_finish"]
    status: str


def seconds_until_poll(settings: Settings, request: VideoRequest, *, polls: int, announced: bool = False) -> float:
    """Return the seconds until the next poll of a task.

    With callbacks, polls are rare, for callbacks that get lost. Without, the first comes near the typical time, and
    the short steps after it grow.
    """
    if settings.seedance_callback_url is not None:
        wait = settings.seedance_poll_with_callbacks_seconds
    else:
        first = settings.seedance_poll_first_seconds or _typical_seconds(request)
        wait = first if polls == 0 else min(settings.seedance_poll_max_seconds, first / 6 * 1.5 ** min(polls, 20))
    if announced:
        wait = min(wait, _AFTER_CALLBACK_SECONDS)
    return wait * random.uniform(0.9, 1.1)  # noqa: S311 - jitter, not a secret


def _typical_seconds(request: VideoRequest) -> float:
    base = _TYPICAL_SECONDS.get(request.resolution, _TYPICAL_SECONDS["720p"])
    quick = 0.6 if "-fast" in request.model or "-mini" in request.model else 1.0
    return float(base * quick * max(1.0, request.duration / 5) ** 0.5)


def seconds_since_success(task: Task, claimed_at: datetime | None, skew: float) -> float:
    """Return the age of a task's result URL in seconds, by the provider's clock; 0 where that gives no usable time.

    A time before the claim, or in the future, is not usable: trusting it would give a paid video up early, or late.
    ``skew``: seconds that clocks may be apart.
    """
    now = datetime.now(UTC).timestamp()
    earliest = claimed_at.timestamp() - skew if claimed_at is not None else 0.0
    if task.updated_at is None or not earliest <= task.updated_at <= now + skew:
        return 0.0
    return max(0.0, now - task.updated_at)


class PollActivities:
    """Poll tasks, and cancel queued ones."""

    def __init__(self, ledger: Ledger, ark: Ark, settings: Settings) -> None:
        self._ledger = ledger
        self._ark = ark
        self._settings = settings
        self._key = settings.key_fingerprint

    @activity.defn
    async def get_task(self, input: GetTaskInput) -> Observation:
        """Poll a task. Read the ledger first: after a Reset, the video may long be stored.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the provider gave no usable answer. Retryable.
        """
        damage: str | None = None
        try:
            facts = await self._ledger.read(input.job_id)
        except LedgerDamaged as error:
            # The task is paid for, so it is followed all the same.
            facts, damage = Facts(record=None, attempts=()), str(error)
        if facts.record is not None:
            second = second_task(facts, facts.record.task_id)
            return Observation(next="already_stored", status=SUCCEEDED, result=facts.record, second_task=second)
        attempt = facts.attempt(input.attempt) or Attempt(input.attempt)
        if (ended := attempt.end_of(input.task_id)) is not None:
            return Observation(next="already_ended", status=ended.error.code, error=ended.error)
        second = second_task(facts, input.task_id)
        video = self._ledger.names(input.job_id).of_task(input.task_id, "output.mp4")
        if any(stored.name == video for stored in facts.objects) and await self._ledger.has_verified_video(
            input.job_id, input.task_id
        ):
            # Only the record is missing, and it can be written without the provider.
            within = RESULT_URL_LIFE.total_seconds()
            return Observation(next="copy", status=SUCCEEDED, copy_within=within, second_task=second)
        try:
            payload = await self._ark.get(input.task_id)
        except (ArkError, httpx.HTTPError) as error:
            if not isinstance(error, ArkError) or error.attention is None:
                raise _unanswered(input, error) from None
            wait = min(_LONGEST_REFUSED_SECONDS, _REFUSED_SECONDS * 2.0 ** min(input.refused, 10))
            return Observation(next="wait", attention=error.attention, note=str(error), wait_seconds=wait)
        if payload is None:
            return self._gone(input, attempt)
        seen = self._of_task(input, parse_task(payload), attempt.claimed_at)
        if damage is not None and seen.next == "wait":
            seen = seen.model_copy(update={"attention": "ledger_damaged", "note": damage})
        return seen.model_copy(update={"second_task": second})

    def _of_task(self, input: GetTaskInput, task: Task, claimed_at: datetime | None) -> Observation:
        cost = self._settings.rules.cost_of(input.request, task)
        if task.status == SUCCEEDED:
            skew = self._settings.seedance_clock_skew_seconds
            return Observation(
                next="copy",
                status=task.status,
                usage=task.usage,
                cost_usd=cost.usd,
                cost_cny=cost.cny,
                copy_within=max(0.0, RESULT_URL_LIFE.total_seconds() - seconds_since_success(task, claimed_at, skew)),
            )
        if task.status in TERMINAL:
            return Observation(
                next="write_end",
                status=task.status,
                error=_task_error(input, task),
                usage=task.usage,
                cost_usd=cost.usd,
                cost_cny=cost.cny,
            )
        wait = seconds_until_poll(self._settings, input.request, polls=input.polls + 1, announced=input.announced)
        return Observation(next="wait", status=task.status, wait_seconds=wait)

    def _gone(self, input: GetTaskInput, attempt: Attempt) -> Observation:
        """Observe a task that the provider does not know: a young one may come back."""
        now = datetime.now(UTC)
        if now - (attempt.claimed_at or now) < PROVIDER_FORGETS_AFTER:
            sent = attempt.claim.key if attempt.claim is not None else ""
            other = sent and sent != self._key
            note = f"Note that {other_key(sent, self._key)}." if other else "Ask the provider's support."
            wait = self._settings.seedance_poll_max_seconds
            return Observation(next="wait", attention="task_gone", note=note, wait_seconds=wait)
        error = JobError(
            code="task_forgotten",
            message=f"The provider no longer knows task {input.task_id}, created over seven days ago. It may have been "
            "billed; its video can no longer be had. The provider's invoice shows whether it was billed. "
            "Another attempt may be a second charge: "
            f"{COMMAND} resubmit {input.job_id} --attempt {input.attempt} --accept-second-charge",
            failure_class="lost",
            task_id=input.task_id,
            attempt=input.attempt,
            resubmit_could_help=True,
        )
        return Observation(next="write_end", status="lost", error=error)

    @activity.defn
    async def cancel_task(self, input: GetTaskInput) -> CancelResult:
        """Cancel a task that is queued; leave any other alone, because DELETE would erase its record.

        Raises:
            ApplicationError: ``ProviderUnavailable``: the provider gave no usable answer. Retryable: each try starts
                with a GET.
        """
        asked = time.monotonic()
        try:
            payload = await self._ark.get(input.task_id)
            if payload is None:
                # It can lag behind the create, or the key cannot see the task: the cancel remains to be done.
                raise ApplicationError(f"GET does not show task {input.task_id}", type="ProviderUnavailable")
            status = parse_task(payload).status
            if status == QUEUED:
                if payload.get("status") != QUEUED:
                    # DELETE erases the record of a task that has ended: a gateway's word is not enough for it.
                    reason = f"GET calls task {input.task_id} {str(payload.get('status'))!r}, not 'queued'"
                    raise ApplicationError(reason, type="ProviderUnavailable")
                if time.monotonic() - asked > _GET_IS_FRESH_SECONDS:
                    reason = f"GET of task {input.task_id} took too long to act on its answer"
                    raise ApplicationError(reason, type="ProviderUnavailable")
                await self._ark.delete(input.task_id)
                status = CANCELLED
        except (ArkError, httpx.HTTPError) as error:
            raise _unanswered(input, error) from None
        return CancelResult(outcome="cancelled" if status == CANCELLED else "running_will_finish", status=status)


def _task_error(input: GetTaskInput, task: Task) -> JobError:
    failure = task.failure
    kind = failure_class(task.status, failure.code)
    next_step = advice_on(failure.code, failure.message) or "Change the request and submit that."
    if new_attempt_could_help(kind):
        next_step = f"To ask for another attempt: {COMMAND} resubmit {input.job_id} --attempt {input.attempt}"
    named = f" ({failure.code})" if failure.code not in {"", task.status} else ""
    reason = f"{named}: {failure.message}".rstrip(" .:")
    return JobError(
        code=failure.code or task.status,
        message=f"Task {task.id} ended {task.status}{reason}. The provider does not bill it. {next_step}",
        failure_class=kind,
        task_id=task.id,
        attempt=input.attempt,
        resubmit_could_help=new_attempt_could_help(kind),
    )


def _unanswered(input: GetTaskInput, error: Exception) -> ApplicationError:
    return ApplicationError(
        f"{input.job_id}: the provider gave no usable answer about task {input.task_id}: {error!r}",
        type="ProviderUnavailable",
    )
