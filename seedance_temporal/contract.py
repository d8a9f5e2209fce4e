"""The names and messages that backend, relay and worker share: workflows, signals, queries, attributes.

There are no updates: docs/explanation/decisions/0008-signals-not-updates.md says why.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field
from temporalio.common import Priority, SearchAttributeKey

from seedance_temporal.events import Timeline
from seedance_temporal.identity import user_hash
from seedance_temporal.job import Attention, Shape
from seedance_temporal.reference_media import Medium
from seedance_temporal.request import VideoRequest

WORKFLOW = "GenerateVideo"
SIGNAL_TASK_CHANGED = "task_changed"
SIGNAL_LISTED = "listed"
SIGNAL_RETRY = "retry"
SIGNAL_CANCEL = "cancel"
SIGNAL_RESOLVE = "resolve"
QUERY_STATE = "state"
QUERY_CANCEL = "cancel_outcome"
QUERY_RESOLUTION = "resolution"
LISTER = "ListTasks"
SIGNAL_LISTING_REQUESTED = "listing_requested"
LATE_TASKS = "LateTasks"
PLACES = "Places"
SIGNAL_PLACES_ASKED = "places_asked"
SIGNAL_PLACE_FREED = "place_freed"
SIGNAL_PLACE_UNUSED = "place_unused"
SIGNAL_PLACE_GRANTED = "place_granted"
QUERY_PLACE = "place"
QUERY_HELD_PLACES = "held_places"


class Queues:
    """The task queues of a route. One worker process serves all of them."""

    def __init__(self, route: str) -> None:
        self.workflows = f"seedance-{route}"
        # Checks of references wait long for each other, and must not take the places of the ledger's short activities.
        self.references = f"seedance-{route}-references"
        self.create = f"seedance-{route}-create"
        # The provider counts creates at 4k apart.
        self.create_4k = f"seedance-{route}-create-4k"
        self.get = f"seedance-{route}-get"
        self.list = f"seedance-{route}-list"
        self.transfer = f"seedance-{route}-transfer"

    @property
    def creates(self) -> tuple[str, str]:
        """Return the queues of creates; each has a gate."""
        return self.create, self.create_4k

    def create_for(self, resolution: str) -> str:
        """Return the queue of creates, by the resolution of their video."""
        return self.create_4k if resolution == "4k" else self.create


# Of Temporal's five, where a lower one goes first. The workflow's own activities use 1 and 2 (workflows/policies.py).
INTERACTIVE = 3
BATCH = 4


def priority_of(request: VideoRequest, *, batch: bool = False, user: str | None = None) -> Priority:
    """Return the priority of a job's workflow, which its activities inherit.

    The fairness key keeps a user's backlog from delaying others, where the server is set to fairness. Jobs with a
    ``priority`` have a key of their own, so that they do not wait behind the same user's others; their number cannot
    push back other users, as a priority key would.

    Args:
        user: The name of the user in the fairness key, which is never encrypted; by default a hash of the id.
    """
    user = user or user_hash(request.user_id)
    return Priority(
        priority_key=BATCH if batch else INTERACTIVE, fairness_key=f"{user}-first" if request.priority else user
    )


def lister_id(route: str) -> str:
    """Return the workflow id of the one lister of a route."""
    return f"seedance-lister-{route}"


def places_id(create_queue: str) -> str:
    """Return the workflow id of the one that grants the places of a create queue."""
    return f"{create_queue}-places"


def late_tasks_id(job_id: str, attempt: int) -> str:
    """Return the workflow id by which tasks of an ended job are taken in."""
    return f"{job_id}-late-{attempt}"


SEEDANCE_USER = SearchAttributeKey.for_keyword("SeedanceUser")
SEEDANCE_ROUTE = SearchAttributeKey.for_keyword("SeedanceRoute")
SEEDANCE_MODEL = SearchAttributeKey.for_keyword("SeedanceModel")
SEEDANCE_PHASE = SearchAttributeKey.for_keyword("SeedancePhase")
SEEDANCE_TASK_ID = SearchAttributeKey.for_keyword("SeedanceTaskId")
SEEDANCE_ATTENTION = SearchAttributeKey.for_keyword("SeedanceAttention")
SEEDANCE_TOKENS = SearchAttributeKey.for_int("SeedanceTokens")
SEEDANCE_COST_USD = SearchAttributeKey.for_float("SeedanceCostUsd")
SEEDANCE_COST_CNY = SearchAttributeKey.for_float("SeedanceCostCny")

SEARCH_ATTRIBUTES: tuple[SearchAttributeKey[str] | SearchAttributeKey[int] | SearchAttributeKey[float], ...] = (
    # Where few are free, the first ones are added: what calls an operator, and then what finds a job.
    SEEDANCE_ATTENTION,
    SEEDANCE_PHASE,
    SEEDANCE_USER,
    SEEDANCE_TASK_ID,
    SEEDANCE_ROUTE,
    SEEDANCE_MODEL,
    SEEDANCE_COST_USD,
    SEEDANCE_TOKENS,
    SEEDANCE_COST_CNY,
)

MEMO_ATTEMPT = "attempt"
MEMO_ESTIMATED_TOKENS = "estimated_tokens"
MEMO_ESTIMATED_USD = "estimated_usd"
MEMO_ESTIMATED_CNY = "estimated_cny"
# By what was known when the task was created: each write would be an event, so later polls do not renew it.
MEMO_EXPECTED_AT = "expected_at"
# Only of a run that another was continued as: the start of the first one.
MEMO_STARTED_AT = "started_at"
# Of LateTasks: the tasks in question.
MEMO_NAMED = "named"


class Resubmit(Shape):
    """The request for another attempt after one that ended. Requested twice after the same one, it grants one."""

    attempt: int
    accept_second_charge: bool = False


class TaskChanged(Shape):
    """The payload of a callback's signal: a task may have changed. It is not trusted: the task is polled."""

    task_id: str
    status: str
    attempt: int


NamedBy = Literal["callback", "list", "operator", "ledger"]


class NamedTask(TaskChanged):
    """A task that was named for an attempt, and what a run has found out about it.

    Attributes:
        source: Who named it; ``ledger`` means that it was identified, and that the ledger has it.
        not_yet: How often the provider did not show the task.
        unasked_since: Since when provider or bucket could not be asked for it.
        asked_until: When the last question for it is due.
    """

    source: NamedBy = "callback"
    not_yet: int = 0
    unasked_since: AwareDatetime | None = None
    asked_until: AwareDatetime | None = None


class Carried(Shape):
    """The state that one run gives to the next at continue-as-new; all else is in the ledger.

    Attributes:
        started_at: The start of the first run.
        media: The references as they were checked; None where they were not.
        attention, advice: What an operator had to settle.
        not_sent, not_sent_since: Creates in a row that were not sent, and when the first one failed.
        status_unknown_since: Since when the task has a status that is not known.
        cancel_fails_since: Since when the provider does not serve a cancel.
        named: Tasks that were named, and that are in question.
        listed: The tasks that listings showed, by attempt.
        callbacks: How many callbacks were followed up.
        place_since: Since when a place was needed.
        behind_gate: Whether a create was refused for a reason that concerns every create, and none was taken since.
        asked_to_probe: Whether the gate asked for the next create.
    """

    timeline: Timeline = ()
    cancel_requested: bool = False
    started_at: AwareDatetime | None = None
    warnings: tuple[str, ...] = ()
    media: tuple[Medium, ...] | None = None
    attention: Attention | None = None
    advice: str | None = None
    not_sent: int = 0
    not_sent_since: AwareDatetime | None = None
    status_unknown_since: AwareDatetime | None = None
    cancel_fails_since: AwareDatetime | None = None
    named: tuple[NamedTask, ...] = ()
    listed: dict[int, str] = Field(default_factory=dict)
    callbacks: int = 0
    place_since: AwareDatetime | None = None
    behind_gate: bool = False
    asked_to_probe: bool = False


class GenerateVideoInput(Shape):
    """The workflow's argument.

    Attributes:
        request: The request for the video.
        resubmit: The request for another attempt.
        may_create: With False, a run that would have to claim an attempt ends ``unsettled``.
        carried: The state of the run before; for continue-as-new only.
    """

    request: VideoRequest
    resubmit: Resubmit | None = None
    may_create: bool = True
    carried: Carried | None = None


class LateTasksInput(Shape):
    """The attempt of an ended job that callbacks name tasks of."""

    job_id: str
    attempt: int
    route: str


CancelOutcome = Literal["cancelled", "running_will_finish", "requested", "already_closed"]


class CancelAnswer(Shape):
    """The outcome of a request to cancel."""

    outcome: CancelOutcome


ResolveAction = Literal["adopt", "not_created", "lost"]


class Resolve(Shape):
    """An operator's resolution of an attempt whose outcome is unknown.

    Attributes:
        id: What to ask for its answer by.
        sent_at: When the operator sent it. It can wait for a worker, and comes back after a Reset, and is then too old.
    """

    id: str = ""
    sent_at: AwareDatetime | None = None
    attempt: int
    action: ResolveAction
    task_id: str | None = None


class ResolveAnswer(Shape):
    """The answer to a resolution: whether the ledger accepted it, or why not."""

    accepted: bool
    message: str
