"""Events of a job: programs read their fields; people read :func:`sentence`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ValidationError

EventName = Literal[
    "run_started",
    "references_checked",
    "attempt_claimed",
    "task_created",
    "refused",
    "not_sent",
    "over_budget",
    "outcome_unknown",
    "lister_unavailable",
    "not_listed",
    "task_found",
    "task_not_found",
    "task_not_checked",
    "attempt_absent",
    "attempt_settled",
    "callback_received",
    "signal_ignored",
    "status",
    "attention_raised",
    "attention_settled",
    "cancel_requested",
    "cancel_answered",
    "cancel_not_served",
    "retry_requested",
    "resolution_accepted",
    "resolution_refused",
    "resubmit_granted",
    "job_continues",
    "ended",
    "stored",
]

EventSource = Literal[
    "caller",
    "temporal",
    "operator",
    "create",
    "callback",
    "poll",
    "list",
    "copy",
    "references",
    "ledger",
    "workflow",
]
"""The cause of an event, or the way it was learned.

``temporal`` is a request from Temporal's UI or command line; ``create``, ``poll`` and ``list`` are answers of the
provider; ``copy`` is the copy into the bucket; ``references`` is the check of the reference media.
"""


class Event(BaseModel, frozen=True):
    """An event of a job.

    Attributes:
        at: When the workflow saw it.
        source: Its cause, or the way it was learned.
        task_id, attempt: The task and the attempt it is about, where there is one.
        detail: Free text for people, such as the provider's status. Programs must not parse it.
        count: How often the same event came in a row.
    """

    at: AwareDatetime
    event: EventName
    source: EventSource
    task_id: str | None = None
    attempt: int | None = None
    detail: str | None = None
    count: int = 1

    def repeats(self, other: Event) -> bool:
        """Whether two events differ in time and count only."""
        return self.model_copy(update={"at": other.at, "count": other.count}) == other


def _readable(values: Any) -> Any:
    if not isinstance(values, list | tuple):
        return values
    events = []
    for value in values:
        with suppress(ValidationError):
            events.append(Event.model_validate(value))
    return tuple(events)


Timeline = Annotated[tuple[Event, ...], BeforeValidator(_readable)]
"""The events of a job, the oldest first.

An event that this version cannot read is left out: a newer worker's event must not make a ledger object, a record or
the answer to a query unreadable.
"""

_SENTENCES: Mapping[EventName, str] = {
    "run_started": "run started",
    "references_checked": "references checked",
    "attempt_claimed": "attempt {attempt} claimed",
    "task_created": "attempt {attempt} created task {task_id}",
    "refused": "create refused",
    "not_sent": "no task created",
    "over_budget": "waiting for a budget",
    "outcome_unknown": "outcome of attempt {attempt} unknown",
    "lister_unavailable": "lister could not be asked",
    "not_listed": "attempt {attempt} not in the listing",
    "task_found": "task {task_id} of attempt {attempt} found",
    "task_not_found": "provider does not show task {task_id}",
    "task_not_checked": "task {task_id} could not be checked",
    "attempt_absent": "attempt {attempt} created no task",
    "attempt_settled": "outcome of attempt {attempt} settled",
    "callback_received": "callback for task {task_id}",
    "signal_ignored": "signal ignored, because it is no callback",
    "status": "provider status",
    "attention_raised": "operator needed",
    "attention_settled": "operator no longer needed",
    "cancel_requested": "cancellation requested",
    "cancel_answered": "cancellation answered",
    "cancel_not_served": "provider did not serve the cancellation",
    "retry_requested": "next try requested at once",
    "resolution_accepted": "resolution of attempt {attempt} accepted",
    "resolution_refused": "resolution of attempt {attempt} refused",
    "resubmit_granted": "another attempt requested after attempt {attempt}",
    "job_continues": "another attempt or task follows attempt {attempt}",
    "ended": "ended without a video",
    "stored": "stored",
}


def sentence(event: Event) -> str:
    """Describe an event to people, without its time and source."""
    text = _SENTENCES[event.event].format(attempt=event.attempt or "?", task_id=event.task_id or "?")
    often = f" ({event.count} times)" if event.count > 1 else ""
    return f"{text}{often}: {event.detail}" if event.detail else text + often
