"""What a workflow has Temporal do, step by step and in words: as it was recorded, and as the present code does it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import UnsandboxedWorkflowRunner, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import Info

# Of these both sides have several forms, or none: they do not show which way a workflow went.
_NO_STEP = {"respond_to_query"}
_NO_STEP_EVENTS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_TIMER_FIRED,
}
_PATCHES = "TemporalChangeVersion"
_CANCEL = "cancel the activity"


@dataclass(frozen=True)
class Step:
    """A step of a workflow: two with the same words are the same one. ``summary`` is what Temporal's UI shows of it."""

    words: str
    summary: str = field(default="", compare=False)

    @property
    def cancels(self) -> bool:
        """Whether it cancels an activity."""
        return self.words.startswith(_CANCEL)

    def __str__(self) -> str:
        return f"{self.words} ({self.summary})" if self.summary else self.words


def recorded_steps(events: Iterable[HistoryEvent]) -> list[Step]:
    """Return the steps that a history holds."""
    steps, activities = list[Step](), dict[int, str]()
    for event in events:
        words: str | None = None
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                activity = event.activity_task_scheduled_event_attributes.activity_type.name
                activities[event.event_id] = activity
                words = f"start the activity {activity}"
            case "activity_task_cancel_requested_event_attributes":
                cancelled = event.activity_task_cancel_requested_event_attributes.scheduled_event_id
                words = f"{_CANCEL} {activities[cancelled]}"
            case "timer_started_event_attributes":
                words = "start a timer"
            case "timer_canceled_event_attributes":
                words = "cancel a timer"
            case "marker_recorded_event_attributes":
                words = "note the patch " + str(_patch_of(event))
            case "upsert_workflow_search_attributes_event_attributes":
                names = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
                words = "set search attributes" if set(names) != {_PATCHES} else None
            case "workflow_properties_modified_event_attributes":
                words = "set the memo"
            case "workflow_execution_completed_event_attributes":
                words = "complete the run"
            case "workflow_execution_failed_event_attributes":
                words = "fail the run"
            case "workflow_execution_canceled_event_attributes":
                words = "cancel the run"
            case "workflow_execution_continued_as_new_event_attributes":
                words = "continue as new"
            case _ if event.event_type not in _NO_STEP_EVENTS:
                words = _other(EventType.Name(event.event_type))
        if words is not None:
            steps.append(Step(words, _summary(event)))
    return steps


def _other(name: str) -> str | None:
    """Return the words of an event that no path has had; None for those that are no step of the workflow itself."""
    if re.match("EVENT_TYPE_(WORKFLOW_TASK|ACTIVITY_TASK)_", name):
        return None
    return name.removeprefix("EVENT_TYPE_").replace("_", " ").lower()


def _patch_of(event: HistoryEvent) -> str:
    details = event.marker_recorded_event_attributes.details.get("patch-data")
    return details.payloads[0].data.decode() if details is not None else ""


def _summary(holder: Any) -> str:
    """Return the summary of an event or a command."""
    if not holder.HasField("user_metadata") or not holder.user_metadata.HasField("summary"):
        return ""
    return str(pydantic_data_converter.payload_converter.from_payload(holder.user_metadata.summary))


def present_steps(turns: Iterable[Sequence[WorkflowCommand]]) -> list[Step]:
    """Return the steps that the commands of a workflow ask for, turn by turn."""
    steps, activities = list[Step](), dict[int, str]()
    for turn in turns:
        cancelled = {command.cancel_timer.seq for command in turn if command.HasField("cancel_timer")}
        # A timer that is started and cancelled in one turn never reaches the server.
        vain = {c.start_timer.seq for c in turn if c.HasField("start_timer")} & cancelled
        for command in turn:
            kind = command.WhichOneof("variant")
            if kind is None or kind in _NO_STEP:
                continue
            if kind in {"start_timer", "cancel_timer"} and getattr(command, kind).seq in vain:
                continue
            steps.append(Step(_words(command, kind, activities), _summary(command)))
    return steps


def _words(command: WorkflowCommand, kind: str, activities: dict[int, str]) -> str:
    match kind:
        case "schedule_activity":
            name = command.schedule_activity.activity_type
            activities[command.schedule_activity.seq] = name
            return f"start the activity {name}"
        case "request_cancel_activity":
            return f"{_CANCEL} {activities.get(command.request_cancel_activity.seq)}"
        case "start_timer":
            return "start a timer"
        case "cancel_timer":
            return "cancel a timer"
        case "set_patch_marker":
            return f"note the patch {command.set_patch_marker.patch_id}"
        case "upsert_workflow_search_attributes":
            return "set search attributes"
        case "modify_workflow_properties":
            return "set the memo"
        case "complete_workflow_execution":
            return "complete the run"
        case "fail_workflow_execution":
            return "fail the run"
        case "cancel_workflow_execution":
            return "cancel the run"
        case "continue_as_new_workflow_execution":
            return "continue as new"
        case _:
            return kind.replace("_", " ")


@dataclass
class Turns:
    """The commands of a run, turn by turn, and the errors of turns that failed."""

    commands: list[Sequence[WorkflowCommand]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class NotingRunner(WorkflowRunner):
    """Run workflows without the sandbox, and keep what they ask for.

    Attributes:
        turns: Of each run, by its id.
    """

    def __init__(self) -> None:
        self.turns: dict[str, Turns] = {}
        self._runner = UnsandboxedWorkflowRunner()

    def prepare_workflow(self, defn: Any) -> None:
        self._runner.prepare_workflow(defn)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        # A run that leaves the cache is replayed from its beginning.
        turns = self.turns[det.info.run_id] = Turns()
        return _NotingInstance(self._runner.create_instance(det), turns)


def _messages(failure: Failure) -> Iterator[str]:
    """Return the message of a failure, and those of its causes."""
    yield failure.message
    if failure.HasField("cause"):
        yield from _messages(failure.cause)


class _NotingInstance(WorkflowInstance):
    def __init__(self, instance: WorkflowInstance, turns: Turns) -> None:
        self._instance = instance
        self._turns = turns

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        completion = self._instance.activate(act)
        if completion.HasField("failed"):
            self._turns.errors.append(": ".join(_messages(completion.failed.failure)))
        # Copied: the worker encodes the payloads of a completion in place.
        copied = WorkflowActivationCompletion()
        copied.CopyFrom(completion)
        self._turns.commands.append(list(copied.successful.commands))
        return completion

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)

    def get_info(self) -> Info:
        return self._instance.get_info()

    def get_thread_id(self) -> int | None:
        return self._instance.get_thread_id()
