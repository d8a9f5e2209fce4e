"""Read the evidence about a job from Temporal's own histories, without a worker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from seedance_temporal.audit import document
from seedance_temporal.audit.document import RunHistory
from seedance_temporal.connection import asking_temporal, is_unknown_workflow
from seedance_temporal.data_converter import message_of
from seedance_temporal.events import Event, Timeline
from seedance_temporal.job import JobState
from seedance_temporal.ledger.facts import Fact

if TYPE_CHECKING:
    from seedance_temporal.audit.bucket_evidence import TimelinePart

_F = TypeVar("_F", bound=Fact)
_TIMELINE: TypeAdapter[tuple[Event, ...]] = TypeAdapter(Timeline)


@dataclass
class ActivityCall:
    """A call of an activity whose input holds the timeline so far, to be written into an object.

    Attributes:
        activity: Its name.
        attempt: The attempt it is about.
        timeline: Its input's timeline.
        result: Its result, as JSON; None where it did not complete.
    """

    activity: str
    attempt: int | None
    timeline: tuple[Event, ...]
    result: Any = None

    def created(self, name: str, model: type[_F]) -> _F | None:
        """Return a fact that a create returned: its ``claim`` or its ``outcome``."""
        value = self.result.get(name) if isinstance(self.result, dict) and self.activity == "create_task" else None
        with suppress(ValidationError):
            return model.model_validate(value)
        return None


@dataclass
class Run:
    """A run, by its history.

    Attributes:
        shown: The run, as an audit shows it.
        argument: The workflow's argument, as JSON.
        calls: Those whose input holds a timeline, the oldest first.
    """

    shown: RunHistory
    argument: dict[str, Any] = field(default_factory=dict)
    calls: list[ActivityCall] = field(default_factory=list)

    def call(self, activity: str, attempt: int) -> ActivityCall | None:
        """Return the newest call of an activity about an attempt; a completed one is preferred."""
        calls = [call for call in self.calls if call.activity == activity and call.attempt == attempt]
        completed = [call for call in calls if call.result is not None]
        return next(reversed(completed or calls), None)


@dataclass(frozen=True)
class TemporalEvidence:
    """The evidence about a job from Temporal.

    Attributes:
        job: The job, as its newest run shows it; None where Temporal has none, or cannot be reached.
        runs: All runs that Temporal still has, the oldest first.
    """

    namespace: str = ""
    job: JobState | None = None
    runs: Sequence[Run] = ()

    def call_for(self, part: TimelinePart) -> ActivityCall | None:
        """Return the call that wrote an object, from the history of the run that made it."""
        if part.writer is None or part.provenance.namespace != self.namespace:
            return None
        run = next((run for run in self.runs if run.shown.run_id == part.provenance.run_id), None)
        return run.call(part.writer, part.attempt) if run is not None else None

    def timelines(self) -> Iterator[tuple[Event, ...]]:
        """Yield the timelines of all runs, as far as they are known without a worker."""
        for run in self.runs:
            yield from (call.timeline for call in run.calls)
        if self.job is not None and self.job.detail is not None:
            yield self.job.detail.timeline


async def read_runs(client: Client, job_id: str, known: Collection[str] = ()) -> list[Run]:
    """Read the runs of a job that Temporal still has, the oldest first.

    Args:
        client: A client of the job's namespace.
        job_id: The job.
        known: Ids of runs that the ledger names. The visibility store lags a little behind.

    Raises:
        TemporalUnavailable: Temporal cannot be reached, or refuses.
    """
    with asking_temporal():
        listed = {run.run_id async for run in client.list_workflows(f"WorkflowId = '{job_id}'")}
        # Without a run id, Temporal describes the newest run.
        runs = [await _read_run(client, job_id, run_id) for run_id in {None, *listed, *known}]
    by_id = {run.shown.run_id: run for run in runs if run is not None}
    return sorted(by_id.values(), key=lambda run: (run.shown.started_at, run.shown.run_id))


async def _read_run(client: Client, job_id: str, run_id: str | None) -> Run | None:
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
    return Run(shown, reader.argument, list(reader.calls.values()))


class _Reader:
    """Reads the events of one run, in their order."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._summaries: dict[int, str] = {}
        self.calls: dict[int, ActivityCall] = {}
        self.shown: list[document.HistoryEvent] = []
        self.argument: dict[str, Any] = {}

    async def read(self, event: HistoryEvent) -> None:
        self._summaries[event.event_id] = summary = await self._summary(event)
        self.shown.append(
            document.HistoryEvent(
                id=event.event_id,
                at=event.event_time.ToDatetime(UTC),
                type=EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").replace("_", " ").lower(),
                summary=summary,
            )
        )
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                argument = await self._value(event.workflow_execution_started_event_attributes.input.payloads)
                self.argument = argument if isinstance(argument, dict) else {}
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                call = _call(scheduled.activity_type.name, await self._value(scheduled.input.payloads))
                if call is not None:
                    self.calls[event.event_id] = call
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                if (answered := self.calls.get(completed.scheduled_event_id)) is not None:
                    answered.result = await self._value(completed.result.payloads)

    async def _summary(self, event: HistoryEvent) -> str:
        """Name an event's activity or signal, its summary, or those of the event that it answers, and its failure."""
        attributes: Any = getattr(event, event.WhichOneof("attributes") or "", None)
        parts = [
            getattr(getattr(attributes, "activity_type", None), "name", ""),
            getattr(attributes, "signal_name", ""),
        ]
        if event.user_metadata.HasField("summary"):
            parts.append(str(await self._value([event.user_metadata.summary])))
        answered = (getattr(attributes, cause, 0) for cause in ("scheduled_event_id", "started_event_id"))
        parts += [self._summaries.get(event_id, "") for event_id in answered]
        if (failure := getattr(attributes, "failure", None)) is not None:
            parts.append(await message_of(failure, self._client.data_converter))
        return ": ".join(dict.fromkeys(part for part in parts if part))

    async def _value(self, payloads: Collection[Payload]) -> Any:
        """Decode the first of some payloads, as JSON."""
        values = await self._client.data_converter.decode(list(payloads)[:1])
        return values[0] if values else None


def _call(activity: str, value: Any) -> ActivityCall | None:
    """Read the input of an activity; None if it holds no timeline."""
    if not isinstance(value, dict) or "timeline" not in value:
        return None
    # An end is about the attempt that its error names, a resolution about the one that it names.
    about = value.get("error") or value.get("resolution") or value
    try:
        return ActivityCall(activity, about.get("attempt"), _TIMELINE.validate_python(value["timeline"]))
    except ValidationError:
        return None
