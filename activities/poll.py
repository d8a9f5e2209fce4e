"""Poll a task, and cancel one that is still queued. A status is believed from a GET alone, here and before the copy."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import httpx
from pydantic import AwareDatetime
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.counted import count_look
from seedance_temporal.job import Attention, JobError, Shape, VideoResult
from seedance_temporal.ledger.decisions import other_key, second_task
from seedance_temporal.ledger.facts import Attempt, Facts
from seedance_temporal.ledger.store import Ledger, LedgerDamaged
from seedance_temporal.provider.ark import Ark, ArkError
from seedance_temporal.provider.poll_plan import JITTER, expected_end, first_poll, next_poll
from seedance_temporal.provider.refusals import advice_on
from seedance_temporal.provider.task import (
    CANCELLED,
    PROVIDER_FORGETS_AFTER,
    QUEUED,
    RESULT_URL_LIFE,
    RUNNING,
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


class GetTaskInput(Shape):
    """The task to poll.

    Attributes:
        polls: How often it was polled before; workers of an older release go by it.
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
        expected_at: When the task should have its video, with ``wait``: an estimate; None where too little is known.
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
    expected_at: AwareDatetime | None = None
    copy_within: float = 0
    second_task: str | None = None


class CancelResult(Shape):
    """The outcome of a request to cancel."""

    outcome: Literal["cancelled", "running_will_finish"]
    status: str


def seconds_until_poll(
    settings: Settings, request: VideoRequest, times: Sequence[float], *, elapsed: float, announced: bool = False
) -> float:
    """Return the seconds until the next poll of a task.

    With callbacks, polls are rare, for callbacks that get lost.

    Args:
        times: Of tasks of the same shape, in ascending order.
        elapsed: Seconds since the task's creation.
    """
    if settings.seedance_callback_url is not None:
        wait = settings.seedance_poll_with_callbacks_seconds
    else:
        first = settings.seedance_poll_first_seconds or first_poll(request, times)
        wait = next_poll(elapsed, times, first=first, longest=settings.seedance_poll_max_seconds)
    if announced:
        wait = min(wait, _AFTER_CALLBACK_SECONDS)
    return wait * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - not a secret


def expected_at(created_at: datetime, elapsed: float, times: Sequence[float]) -> datetime | None:
    """Return when a task should have its video; None where too little is known."""
    expected = expected_end(elapsed, times)
    return created_at + timedelta(seconds=expected) if expected is not None else None


def seconds_since_success(task: Task, claimed_at: datetime | None, skew: float) -> float:
    """Return the age of a task's result URL in seconds, by the provider's clock; 0 where that gives no usable time.

    A time before the claim, or in the future, is not usable: trusting it would give a paid video up early, or late.
    ``skew``: seconds that clocks may be apart.
    """
    return _age(task.updated_at, claimed_at, skew) or 0.0


def seconds_since_creation(task: Task, claimed_at: datetime | None, skew: float) -> float:
    """Return the age of a task in seconds: by the provider's clock, or else by its claim; 0 where neither is known."""
    age = _age(task.created_at, claimed_at, skew)
    if age is None and claimed_at is not None:
        age = max(0.0, (datetime.now(UTC) - claimed_at).total_seconds())
    return age or 0.0


def _age(at: int | None, claimed_at: datetime | None, skew: float) -> float | None:
    now = datetime.now(UTC).timestamp()
    earliest = claimed_at.timestamp() - skew if claimed_at is not None else 0.0
    return max(0.0, now - at) if at is not None and earliest <= at <= now + skew else None


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
            count_look(input.request, "failed")
            if not isinstance(error, ArkError) or error.attention is None:
                raise _unanswered(input, error) from None
            wait = min(_LONGEST_REFUSED_SECONDS, _REFUSED_SECONDS * 2.0 ** min(input.refused, 10))
            return Observation(next="wait", attention=error.attention, note=str(error), wait_seconds=wait)
        if payload is None:
            count_look(input.request, "gone")
            return self._gone(input, attempt)
        task = parse_task(payload)
        count_look(input.request, "known" if task.status in TERMINAL | {QUEUED, RUNNING} else "unknown_status")
        seen = await self._of_task(input, task, attempt.claimed_at)
        if damage is not None and seen.next == "wait":
            seen = seen.model_copy(update={"attention": "ledger_damaged", "note": damage})
        return seen.model_copy(update={"second_task": second})

    async def _of_task(self, input: GetTaskInput, task: Task, claimed_at: datetime | None) -> Observation:
        cost = self._settings.rules.cost_of(input.request, task)
        skew = self._settings.seedance_clock_skew_seconds
        if task.status == SUCCEEDED:
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
        times = await self._ledger.task_times.of(input.request)
        elapsed = seconds_since_creation(task, claimed_at, skew)
        created_at = datetime.now(UTC) - timedelta(seconds=elapsed)
        return Observation(
            next="wait",
            status=task.status,
            wait_seconds=seconds_until_poll(
                self._settings, input.request, times, elapsed=elapsed, announced=input.announced
            ),
            expected_at=expected_at(created_at, elapsed, times),
        )

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
