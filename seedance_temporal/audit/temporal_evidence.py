"""What Temporal's own histories tell of a job, while they are evidence, and without any worker."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from pydantic import TypeAdapter, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from seedance_temporal.audit.document import Event, RunHistory
from seedance_temporal.connection import is_unknown_workflow, refusal
from seedance_temporal.job import TimelineEntry

_TIMELINE = TypeAdapter(tuple[TimelineEntry, ...])


@dataclass
class Order:
    """An activity was handed the story so far, to write it into an object.

    Attributes:
        activity: Its name.
        attempt: Which attempt it was about.
        timeline: That story.
        answer: What it returned, as JSON; None where it did not complete.
    """

    activity: str
    attempt: int | None
    timeline: tuple[TimelineEntry, ...]
    answer: Any = None


@dataclass
class Run:
    """A run, by its history.

    Attributes:
        shown: As an audit shows it.
        argument: What the workflow was given, as JSON.
        orders: Those that held the story, the oldest first.
    """

    shown: RunHistory
    argument: dict[str, Any] = field(default_factory=dict)
    orders: list[Order] = field(default_factory=list)

    def order(self, activity: str, attempt: int) -> Order | None:
        """The newest order of an activity about an attempt; one that completed is preferred."""
        orders = [order for order in self.orders if order.activity == activity and order.attempt == attempt]
        completed = [order for order in orders if order.answer is not None]
        return next(reversed(completed or orders), None)


async def runs_of(client: Client, job_id: str, known: Collection[str] = ()) -> list[Run]:
    """The runs of a job that Temporal still has, the oldest first.

    Args:
        client: Of the job's namespace.
        job_id: The job.
        known: Runs that are named elsewhere. The visibility store lags a little behind.

    Raises:
        TemporalUnavailable: Temporal cannot be asked.
    """
    try:
        listed = {run.run_id async for run in client.list_workflows(f"WorkflowId = '{job_id}'")}
        # Without a run id, Temporal tells of the newest.
        runs = [await _run(client, job_id, run_id) for run_id in {None, *listed, *known}]
    except RPCError as error:
        raise refusal(error) from error
    by_id = {run.shown.run_id: run for run in runs if run is not None}
    return sorted(by_id.values(), key=lambda run: (run.shown.started_at, run.shown.run_id))


async def _run(client: Client, job_id: str, run_id: str | None) -> Run | None:
    try:
        described = await client.get_workflow_handle(job_id, run_id=run_id).describe()
        handle = client.get_workflow_handle(job_id, run_id=described.run_id)
        events = [event async for event in handle.fetch_history_events()]
    except RPCError as error:
        if is_unknown_workflow(error):
            return None
        raise
    reader = _Reader(client)
    for event in events:
        await reader.read(event)
    shown = RunHistory(
        run_id=described.run_id,
        status=(described.status or WorkflowExecutionStatus.RUNNING).name.lower(),
        started_at=described.start_time,
        closed_at=described.close_time,
        events=tuple(reader.shown),
    )
    return Run(shown, reader.argument, reader.orders)


class _Reader:
    """Reads the events of one run, in their order."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._said: dict[int, str] = {}
        self._orders: dict[int, Order] = {}
        self.shown: list[Event] = []
        self.argument: dict[str, Any] = {}

    @property
    def orders(self) -> list[Order]:
        return list(self._orders.values())

    async def read(self, event: HistoryEvent) -> None:
        self._said[event.event_id] = what = await self._what(event)
        self.shown.append(
            Event(
                id=event.event_id,
                at=event.event_time.ToDatetime(UTC),
                type=EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").replace("_", " ").lower(),
                what=what,
            )
        )
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                argument = await self._value(event.workflow_execution_started_event_attributes.input.payloads)
                self.argument = argument if isinstance(argument, dict) else {}
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                order = _order(scheduled.activity_type.name, await self._value(scheduled.input.payloads))
                if order is not None:
                    self._orders[event.event_id] = order
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                if (answered := self._orders.get(completed.scheduled_event_id)) is not None:
                    answered.answer = await self._value(completed.result.payloads)

    async def _what(self, event: HistoryEvent) -> str:
        """What an event is about: activity or signal, and summary, or those of the event that it answers; and its
        failure.
        """
        attributes: Any = getattr(event, event.WhichOneof("attributes") or "", None)
        words = [getattr(getattr(attributes, "activity_type", None), "name", "")]
        words.append(getattr(attributes, "signal_name", ""))
        if event.user_metadata.HasField("summary"):
            words.append(str(await self._value([event.user_metadata.summary])))
        answered = (getattr(attributes, cause, 0) for cause in ("scheduled_event_id", "started_event_id"))
        words += [self._said.get(event_id, "") for event_id in answered]
        words.append(getattr(getattr(attributes, "failure", None), "message", ""))
        return ": ".join(dict.fromkeys(word for word in words if word))

    async def _value(self, payloads: Collection[Payload]) -> Any:
        """The first of some values, as JSON."""
        values = await self._client.data_converter.decode(list(payloads)[:1])
        return values[0] if values else None


def _order(activity: str, value: Any) -> Order | None:
    """An activity's order, where it holds the story."""
    if not isinstance(value, dict) or "timeline" not in value:
        return None
    # The end is about the attempt that its error names, an operator's word about the one that it names.
    about = value.get("error") or value.get("resolution") or value
    try:
        return Order(activity, about.get("attempt"), _TIMELINE.validate_python(value["timeline"]))
    except ValidationError:
        return None
