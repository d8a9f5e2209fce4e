"""The sentences by which a run tells a person how it ended, or what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from activities.poll import GetTaskInput, Observation
    from seedance_temporal.job import Attention, JobError
    from seedance_temporal.reference_media import Medium
    from seedance_temporal.temporal_ui import COMMAND
    from seedance_temporal.urls import redacted
    from workflows import policies

# Of so many references each is shown in the timeline; more are counted.
_MEDIA_SHOWN = 4
# How an activity ends that waited too long for a worker, or for its next try.
_WAITED = {TimeoutType.SCHEDULE_TO_CLOSE, TimeoutType.SCHEDULE_TO_START}
# Of a failure in an advice: some libraries quote whole answers.
_LONGEST_REASON = 500


def unsettled(attempt: int) -> JobError:
    return JobError(
        code="may_not_create",
        message=f"Nothing is known of a task, and this run was not allowed to claim attempt {attempt}. "
        "Nothing was sent. Submitting the request normally would create, and pay for, a task.",
        failure_class="unsettled",
    )


def cancelled_before_create() -> JobError:
    return JobError(
        code="cancelled",
        message="Cancelled before anything was created; nothing is billed. "
        "Submitting the same request again starts it anew.",
        failure_class="cancelled",
    )


def unreachable(error: ActivityError) -> JobError:
    return JobError(
        code="references_unreachable",
        message=f"Nothing was sent, and nothing is billed. The references could not be looked at. {error.cause} "
        "See that they can be reached, and submit the request again.",
        failure_class="invalid",
    )


def last_failure(error: ActivityError) -> BaseException | None:
    """Why an activity failed when it was last tried; None where nobody ever tried it."""
    reason: BaseException | None = error.cause
    while isinstance(reason, ActivityTimeout) and reason.type in _WAITED:
        reason = reason.cause
    return reason


def failing_part(reason: BaseException) -> Attention:
    """What has to be fixed where an activity of the ledger or the provider keeps failing."""
    by_provider = isinstance(reason, ApplicationError) and reason.type == "ProviderUnavailable"
    return "provider" if by_provider else "storage"


def part_of_create(code: str) -> Attention:
    """What has to be fixed where creates never leave, by our own code for the last one."""
    return "storage" if code in {"bucket_unreachable", "signing_failed"} else "provider"


def advice_on_create(since: datetime, message: str) -> str:
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC no create of this job was taken: {message[:_LONGEST_REASON]}. Nothing was "
        "created, and nothing is billed. See to what it names; the job then goes on by itself."
    )


def advice_on_step(step: str, since: datetime, reason: BaseException) -> str:
    part = (
        "what the provider answers" if failing_part(reason) == "provider" else "the bucket, its permissions or network"
    )
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC this step has failed whenever it was tried: {step}. The last failure: "
        f"{redacted(str(reason))[:_LONGEST_REASON]}. See to {part}: the step is tried on, and the job then goes on by "
        "itself. Nothing is created meanwhile."
    )


def media(found: Sequence[Medium]) -> str:
    """What references are, as the timeline shows it: each of a few, the number of many."""
    if len(found) <= _MEDIA_SHOWN:
        return "; ".join(map(str, found))
    kinds = Counter(medium.kind for medium in found)
    return f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}, {sum(m.size for m in found)} bytes"


def lost(order: GetTaskInput, error: ActivityError) -> JobError:
    return JobError(
        code="copy_failed",
        message=f"A paid video was lost: task {order.task_id} succeeded and is billed, and could not be copied while "
        f"its URL lived. The last reason: {error.cause}. Another attempt is a second charge: "
        f"{COMMAND} resubmit {order.job_id} --attempt {order.attempt} --accept-second-charge",
        failure_class="lost",
        task_id=order.task_id,
        attempt=order.attempt,
        resubmit_could_help=True,
    )


def advice_on_unknown(job_id: str, attempt: int, doubt: str | None) -> str:
    """What to do about an attempt whose outcome is unknown.

    Args:
        doubt: Why the provider's list cannot prove that there is no task; None where it could.
    """
    command = f"{COMMAND} resolve {job_id} --attempt {attempt}"
    because = f" The provider's list cannot prove that there is none: {doubt}." if doubt is not None else ""
    return "\n".join(
        [
            f"Whether the provider took attempt {attempt} is not known, so nothing is sent; the job keeps looking."
            f"{because} Look for the task in the provider's console, and say what you found. If a video was made, it "
            "can be had for 24 hours.",
            f"The task is there: {command} --task-id ID",
            f"It is certainly not there: {command} --not-created",
            f"Nobody can tell any more: {command} --lost",
        ]
    )


def advice_on_task(seen: Observation) -> str:
    if seen.attention == "task_gone":
        return (
            "The provider does not know the task any more, though it is younger than seven days. It may come back, "
            f"and is looked for. {seen.note or ''} Nothing is sent."
        )
    return f"{seen.note}. Mend key or account at the provider; the job then goes on by itself. The task is safe."


def advice_on_conflict(reason: BaseException, until: datetime) -> str:
    told = reason.message if isinstance(reason, ApplicationError) else str(reason)
    return (
        f"{redacted(told)[:_LONGEST_REASON]} It is looked at again every "
        f"{policies.CONFLICT_PAUSE.total_seconds() / 60:.0f} minutes: once that object is moved away, the video, which "
        f"is paid for, is stored by itself, while its URL lives, to about {until:%Y-%m-%d %H:%M} UTC. The worker's "
        "account may not be allowed to move it; use one that is."
    )


def advice_on_risk(task_id: str, until: datetime) -> str:
    return (
        f"The video of task {task_id} is paid for and not copied yet; its URL dies at about "
        f"{until:%Y-%m-%d %H:%M} UTC. See the copy's last failure in this run, and mend bucket, network or disk: "
        "it is then copied by itself."
    )


def bucket_of(folder: str | None) -> str:
    """The bucket of a ``gs://…/``: the whole name does not fit on a bar of the UI's timeline."""
    return f"gs://{folder.split('/')[2]}" if folder else "the bucket"
