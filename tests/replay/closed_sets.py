"""The closed sets of what a workflow is answered and told, and which of their members recorded histories have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, get_type_hints

from pydantic import BaseModel
from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.workflow import _Definition

from tests.replay.crossing import accepts, activity_definitions, models_of, result_type, workflow_definitions

Member = tuple[str, str]
"""``Model.field``, and one of its values as Python writes it."""

_RAISED = re.compile(r'"event":"attention_raised"[^}]*?"detail":"(\w+):')

# Fields of closed sets that no workflow decides by: it hands them on, or shows them.
SHOWN_ONLY = {
    "Claim.request": "the request is the job's own",
    "Event.event": "events are read from the ledger for people",
    "Event.source": "the same",
    "CreateResult.attention": "raised as it comes; raised() has them",
    "Observation.attention": "the same",
    "JobError.resubmit_could_help": "for callers",
    "Medium.kind": "only counted",
    "Outcome.kind": "CreateResult.kind decides; only what can be written comes with an outcome",
    "Outcome.source": "for people",
    "Outcome.failure_class": "for the ledger",
    "VideoResult.generate_audio": "for callers",
}
# Of these, only the workflow itself ends a job so.
_OWN = {("JobError.failure_class", "'unsettled'")}


def expected() -> set[Member]:
    """Return all members of the closed sets in answers of activities, and in updates."""
    types = [result_type(name) for name in activity_definitions()]
    types += [hint for of in workflow_definitions().values() for hint in _hints_of_updates(of)]
    return {member for model in models_of(types) for member in _members(model)} - _OWN


def _hints_of_updates(of: _Definition) -> Iterator[Any]:
    for update in of.updates.values():
        yield from get_type_hints(update.fn, include_extras=True).values()


def _members(model: type) -> Iterator[Member]:
    if not issubclass(model, BaseModel) or model.__name__ in _REQUEST:
        return
    for name, field in model.model_fields.items():
        key = f"{model.__name__}.{name}"
        if key in SHOWN_ONLY:
            continue
        for one in accepts(field.annotation):
            if one.startswith("'"):
                yield key, one
            elif one == "bool":
                yield from ((key, "True"), (key, "False"))


# They are the caller's; the same request comes back in every claim.
_REQUEST = {"VideoRequest", "Reference", "Rights"}


def recorded(events: Iterable[HistoryEvent]) -> set[Member]:
    """Return the members that are in the answers and updates of histories."""
    found, activities = set[Member](), dict[int, str]()
    updates = {name: one for of in workflow_definitions().values() for name, one in of.updates.items()}
    called = dict[str, str]()
    for event in events:
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                activities, called = {}, {}
            case "activity_task_scheduled_event_attributes":
                activities[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
            case "activity_task_completed_event_attributes":
                done = event.activity_task_completed_event_attributes
                found |= _decoded(done.result, result_type(activities[done.scheduled_event_id]))
            case "workflow_execution_update_accepted_event_attributes":
                accepted = event.workflow_execution_update_accepted_event_attributes
                name = accepted.accepted_request.input.name
                called[accepted.protocol_instance_id] = name
                for hint in list(get_type_hints(updates[name].fn).values())[:1]:
                    if accepted.accepted_request.input.args.payloads:
                        found |= _decoded(accepted.accepted_request.input.args, hint)
            case "workflow_execution_update_completed_event_attributes":
                answered = event.workflow_execution_update_completed_event_attributes
                name = called[answered.meta.update_id]
                found |= _decoded(answered.outcome.success, get_type_hints(updates[name].fn)["return"])
    return found


def _decoded(payloads: Payloads, of: Any) -> set[Member]:
    if not (isinstance(of, type) and issubclass(of, BaseModel)):
        return set()
    (value,) = pydantic_data_converter.payload_converter.from_payloads(payloads.payloads[:1], [of])
    return set(_values(value))


def _values(value: Any) -> Iterator[Member]:
    if isinstance(value, tuple):
        for one in value:
            yield from _values(one)
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            field = getattr(value, name)
            if isinstance(field, str | bool):
                yield f"{type(value).__name__}.{name}", repr(field)
            yield from _values(field)


def raised(events: Iterable[HistoryEvent]) -> set[str]:
    """Return the Attentions that the workflows of histories raised, by the timelines that they handed on."""
    return {name for event in events for name in _RAISED.findall(_text(event))}


def _text(event: HistoryEvent) -> str:
    match event.WhichOneof("attributes"):
        case "activity_task_scheduled_event_attributes":
            payloads = event.activity_task_scheduled_event_attributes.input.payloads
        case "workflow_execution_continued_as_new_event_attributes":
            payloads = event.workflow_execution_continued_as_new_event_attributes.input.payloads
        case _:
            return ""
    return " ".join(payload.data.decode() for payload in payloads)
