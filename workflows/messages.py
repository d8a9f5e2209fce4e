"""Write the errors and the advice of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from activities.poll import GetTaskInput, Observation
    from seedance_temporal.contract import ResolveAction
    from seedance_temporal.job import Attention, JobError
    from seedance_temporal.ledger.decisions import Decision
    from seedance_temporal.ledger.facts import NOTHING_SENT
    from seedance_temporal.reference_media import Medium
    from seedance_temporal.temporal_ui import COMMAND
    from seedance_temporal.urls import redacted
    from workflows import policies

# Of so many references each is shown in the timeline; more are counted.
_MEDIA_SHOWN = 4
# An activity that waited too long for a worker, or for its next try, ends with one of these.
_WAITED = {TimeoutType.SCHEDULE_TO_CLOSE, TimeoutType.SCHEDULE_TO_START}
# Characters of a failure in advice: some libraries quote whole answers.
_LONGEST_REASON = 500
SHOWS_NONE_OF_OURS = (
    "LIST of this model shows no task of ours, so the API key may not see the model's tasks: "
    "check in the console that the key still names the model"
)


def unsettled(attempt: int) -> JobError:
    """Return the end of a run that may not create."""
    return JobError(
        code="may_not_create",
        message=f"No task of this job is left to follow, and this run was not allowed to claim attempt {attempt}. "
        "Nothing was sent. Submitting the same request would create, and pay for, a task.",
        failure_class="unsettled",
    )


def cancelled_before_create(claim: Decision) -> JobError:
    """Return the end of a job that was cancelled before it claimed an attempt."""
    attempt = claim.attempt
    before = "it is not billed, and an attempt before it may be" if claim.may_be_billed else "nothing is billed"
    message = (
        "Cancelled before anything was created; nothing is billed. Submitting the same request again starts over."
        if attempt == 1
        else f"Cancelled before attempt {attempt} was created; {before}. "
        f"Submitting the same request again creates attempt {attempt}."
    )
    return JobError(code="cancelled", message=message, failure_class="cancelled")


def unreachable(error: ActivityError) -> JobError:
    """Return the end of a job whose references could not be checked."""
    return JobError(
        code="references_unreachable",
        message=f"{NOTHING_SENT} The references could not be checked. {error.cause} "
        "Make sure that they can be reached, and submit the request again.",
        failure_class="invalid",
    )


def in_view_of_attempts(error: JobError, decision: Decision) -> JobError:
    """Return the end of a job; where it came before the claim of an attempt, one before it may be billed."""
    if not decision.may_be_billed:
        return error
    nothing = f"Attempt {decision.attempt} was not created, and is not billed; an attempt before it may be."
    return error.model_copy(update={"message": error.message.replace(NOTHING_SENT, nothing)})


def last_failure(error: ActivityError) -> BaseException | None:
    """Return the last failure of an activity; None if no worker ever started it."""
    reason: BaseException | None = error.cause
    while isinstance(reason, ActivityTimeout) and reason.type in _WAITED:
        reason = reason.cause
    return reason


def reason_of(failure: BaseException) -> str:
    """Describe a failure for advice: bounded, and without the signatures of URLs."""
    return redacted(str(failure))[:_LONGEST_REASON]


def list_fails(since: datetime, problem: str) -> str:
    """Return why LIST proves nothing while it keeps failing."""
    return f"LIST has failed since {since:%Y-%m-%d %H:%M} UTC, with {problem}"


def not_checked(task_id: str, error: ActivityError) -> str:
    """Return why it is not known whether a task that was named is one of the job."""
    return f"Task {task_id} was named, and could not be checked: {reason_of(error.cause or error)}."


def not_resolved(error: ActivityError, action: ResolveAction) -> str:
    """Return why an operator's resolution has no answer: a worker that dies can have written it before."""
    reason = error.cause
    if isinstance(reason, ApplicationError) and reason.type == "ProviderUnavailable":
        then = "The job asks for the task by itself" if action == "adopt" else "Send it again"
        return f"Nothing was written: {reason_of(reason)}. {then} once the provider answers."
    return f"It is not known whether this was written: {reason_of(reason or error)}. Send it again, which does no harm."


def damage(error: ActivityError) -> ApplicationError | None:
    """Return the failure of a step that met a damaged object of the ledger; None where it failed otherwise."""
    reason = error.cause
    return reason if isinstance(reason, ApplicationError) and reason.type == "LedgerDamaged" else None


def failing_part(reason: BaseException) -> Attention:
    """Return the Attention for an activity of the ledger or the provider that keeps failing."""
    match reason:
        case ApplicationError(type="ProviderUnavailable"):
            return "provider"
        case ApplicationError(type="LedgerDamaged"):
            return "ledger_damaged"
        case ApplicationError(type="PlacesStuck"):
            return "places"
        case _:
            return "storage"


def part_of_create(code: str) -> Attention:
    """Return the Attention for creates that are never sent, by our code for the last one."""
    return "storage" if code in {"bucket_unreachable", "signing_failed"} else "provider"


def advice_on_create(since: datetime, message: str) -> str:
    """Advise on creates that are never sent."""
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC no create of this job was accepted: {message[:_LONGEST_REASON]}. None "
        "of them is billed. Fix the cause; the job then continues by itself."
    )


def advice_on_step(step: str, since: datetime, reason: BaseException) -> str:
    """Advise on a step, by its summary, that has failed since its first try."""
    if failing_part(reason) == "ledger_damaged":
        return advice_on_damage(str(reason))
    match failing_part(reason):
        case "provider":
            part = "the provider's answers"
        case "places":
            part = "that workflow in Temporal's UI, and what its activities fail by; terminate it if it is stuck"
        case _:
            part = "the bucket, its permissions or network"
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC this step has failed whenever it was tried: {step}. The last failure: "
        f"{reason_of(reason)}. Check {part}: the step is repeated, and the job then continues by "
        "itself. Nothing is created meanwhile."
    )


def advice_on_references(since: datetime, reason: BaseException | None) -> str:
    """Advise on reference media whose check takes long."""
    last = f" The last failure: {reason_of(reason)}." if reason is not None else ""
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC the references of this job are not checked: a host is slow, or the workers "
        f"have much to check, or none runs.{last} Nothing is sent meanwhile. Look at the hosts and the workers; the "
        "job goes on by itself, or ends after some hours."
    )


def advice_on_damage(damage: str) -> str:
    """Advise on an object of the ledger that cannot be read."""
    return (
        f"An object of the ledger cannot be read: {redacted(damage)[:_LONGEST_REASON]}. Nothing is sent meanwhile. Put "
        "back the object as it was written, such as its earlier version or a copy; the job then continues by itself. "
        "Never only remove it: without it the job could pay again."
    )


def media(found: Sequence[Medium]) -> str:
    """Describe references for the timeline: each of a few, the number of many."""
    if len(found) <= _MEDIA_SHOWN:
        return "; ".join(map(str, found))
    kinds = Counter(medium.kind for medium in found)
    return f"{', '.join(f'{count} {kind}' for kind, count in kinds.items())}, {sum(m.size for m in found)} bytes"


def lost(task: GetTaskInput, error: ActivityError) -> JobError:
    """Return the end of a job whose video could not be copied in time."""
    return JobError(
        code="copy_failed",
        message=f"A paid video was lost: task {task.task_id} succeeded and is billed, and could not be copied while "
        f"its URL was valid. The last failure: {error.cause}. Another attempt is a second charge: "
        f"{COMMAND} resubmit {task.job_id} --attempt {task.attempt} --accept-second-charge",
        failure_class="lost",
        task_id=task.task_id,
        attempt=task.attempt,
        resubmit_could_help=True,
    )


def advice_on_unknown(
    job_id: str,
    attempt: int,
    doubt: str,
    unchecked: str,
    *,
    accepted: bool,
    cancelled: bool,
    shows: str = "",
    since: datetime | None = None,
) -> tuple[str, ...]:
    """Advise on an attempt whose outcome is unknown; the ways to settle it follow.

    Args:
        doubt: Why LIST cannot prove that no task exists, or cannot find the one that does; empty where it can.
        unchecked: Which task was named, and why the provider could not be asked for it; empty where none is.
        accepted: Whether the provider accepted the create, without a task id.
        cancelled: Whether the end of the job was requested.
        shows: The ``safety_identifier`` of the attempt's task.
        since: When the attempt was claimed: its task is not older.
    """
    command = f"{COMMAND} resolve {job_id} --attempt {attempt}"
    aim = "find it" if accepted else "prove that no task exists"
    because = f" The provider's list cannot {aim}: {doubt}." if doubt else ""
    because += f" {unchecked}" if unchecked else ""
    fact = (
        f"The provider accepted attempt {attempt}, and did not say which task it made,"
        if accepted
        else f"Whether the provider accepted attempt {attempt} is not known,"
    )
    then = "the job then ends cancelled" if cancelled else "another one is to be paid"
    absent = f"No task exists, and {then}: {command} --not-created"
    return (
        f"{fact} so nothing is sent; the job keeps searching.{because} Search for the task in the provider's "
        f"console{_by(shows, since)}, and resolve the attempt. A finished video can be downloaded for 24 hours.",
        f"The task exists: {command} --task-id ID",
        *(() if accepted else (absent,)),
        f"It cannot be known any more, and the search is to end: {command} --lost",
    )


def _by(shows: str, since: datetime | None) -> str:
    """Say what to search for a task by."""
    made = f", made after {since:%Y-%m-%d %H:%M:%S} UTC" if since is not None else ""
    return f", by safety_identifier {shows}{made}" if shows else made


def advice_on_task(seen: Observation) -> str:
    """Advise on a task that the provider does not show."""
    if seen.attention == "task_gone":
        return (
            "The provider does not know the task any more, though it is younger than seven days. It may come back, "
            f"so it is polled. {seen.note or ''} Nothing is sent."
        )
    if seen.attention == "ledger_damaged":
        return advice_on_damage(seen.note or "")
    return (
        f"{seen.note}. Fix the key or the account at the provider; the job then continues by itself. The task goes on, "
        "and is billed; its finished video can be fetched for 24 hours."
    )


def advice_on_cancel(since: datetime, reason: str) -> str:
    """Advise on a cancel that the provider does not serve."""
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC the provider has not served the cancel of this job: "
        f"{redacted(reason)[:_LONGEST_REASON]}. Fix the key or its permissions: the cancel is sent again with each "
        "poll. The task goes on meanwhile; if it ends with a video, that is billed, and stored."
    )


def advice_on_status(status: str, since: datetime) -> str:
    """Advise on a status that nobody knows."""
    return (
        f"Since {since:%Y-%m-%d %H:%M} UTC the provider has shown a status that is not known: {status[:40]!r}. The "
        "task is polled all the same, and the job then continues by itself. Look for the task in the provider's "
        "console, and for a newer version of the worker. A finished video can be downloaded for 24 hours."
    )


def object_conflict(error: ActivityError) -> ApplicationError | None:
    """Return the failure of a copy that met another object; None where it failed otherwise."""
    reason = error.cause
    return reason if isinstance(reason, ApplicationError) and reason.type == "ObjectConflict" else None


def advice_on_conflict(conflict: ApplicationError, until: datetime) -> str:
    """Advise on an object with other content under the name of a paid video."""
    return (
        f"{redacted(conflict.message)[:_LONGEST_REASON]} It is checked again every "
        f"{policies.CONFLICT_PAUSE.total_seconds() / 60:.0f} minutes: once that object is moved away, the video, which "
        f"is paid for, is stored, while its URL is valid, until about {until:%Y-%m-%d %H:%M} UTC. The worker's "
        "account may not be allowed to move it; use one that is."
    )


def advice_on_risk(task_id: str, until: datetime, reason: str | None) -> str:
    """Advise on a paid video that is not copied yet; reason: the last failure of the copy."""
    cause = (
        f"The last failure: {redacted(reason)[:_LONGEST_REASON]}. Fix bucket, network or disk"
        if reason is not None
        else "No try has failed so far: it takes long, or no worker copies. Look at the workers and their network"
    )
    return (
        f"The video of task {task_id} is paid for and not copied yet; its URL expires at about "
        f"{until:%Y-%m-%d %H:%M} UTC. {cause}: it is then copied by itself."
    )


def bucket_of(folder: str | None) -> str:
    """Return the bucket of a ``gs://…/``: the whole name does not fit on a bar of the UI's timeline."""
    return f"gs://{folder.split('/')[2]}" if folder else "the bucket"


def advice_on_second_task(task_id: str) -> str:
    return (
        f"Task {task_id} was created for this job as well, and may be billed; its video is not stored. "
        "The provider keeps it for 24 hours: fetch it there if it is wanted."
    )


def advice_on_unknown_attempt(attempt: int) -> str:
    return (
        f"Attempt {attempt} of this job may have made a task as well, which may be billed. The job has another one, "
        "and does not search for it. The provider's console shows it, and keeps its video for 24 hours."
    )
