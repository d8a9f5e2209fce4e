"""The names that histories, records, relays and backends hold. A renamed one breaks running jobs or stored records."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from temporalio import activity, workflow

from activities import create, gate, ledger, limits, places, poll, recover, references, store, task_list
from seedance_temporal.contract import Queues
from seedance_temporal.events import EventName, EventSource
from seedance_temporal.gate_contract import gate_id, probe_queue
from seedance_temporal.identity import ObjectNames
from seedance_temporal.job import Attention, Phase
from seedance_temporal.ledger.store import KINDS
from workflows.create_gate import CreateGate
from workflows.generate_video import GenerateVideo
from workflows.late_tasks import LateTasks
from workflows.list_tasks import ListTasks
from workflows.places import Places

ACTIVITIES = """
answer_jobs ask_for_place ask_later ask_lister cancel_task check_places check_references create_task
follow_known_task get_task identify_task is_key_accepted list_page open_tasks read_ledger report_create reserve_quota
resolve_attempt set_create_rate settle_absent store_video why_not_stored write_end write_outcome
"""
EVENTS = """
attempt_absent attempt_claimed attempt_settled attention_raised attention_settled callback_received cancel_answered
cancel_not_served cancel_requested ended job_continues lister_unavailable not_listed not_sent outcome_unknown
over_budget references_checked refused resolution_accepted resolution_refused resubmit_granted retry_requested
run_started signal_ignored status stored task_created task_found task_not_checked task_not_found
"""
SOURCES = "callback caller copy create ledger list operator poll references temporal workflow"
PHASES = "cancelled checking creating expired failed lost queued recovering refused running stored storing waiting"
ATTENTIONS = """
account credentials ledger_damaged object_conflict places provider references second_task storage task_gone
unknown_create video_at_risk
"""


def test_activity_names() -> None:
    modules = (create, gate, ledger, limits, places, poll, recover, references, store, task_list)
    classes = [one for module in modules for one in vars(module).values() if isinstance(one, type)]
    calls = {call for one in classes for call in vars(one).values() if callable(call)}
    found = [activity._Definition.from_callable(call) for call in calls]
    assert sorted(str(definition.name) for definition in found if definition is not None) == ACTIVITIES.split()


@pytest.mark.parametrize(
    ("defined", "name", "signals", "queries"),
    [
        (
            GenerateVideo,
            "GenerateVideo",
            {"task_changed", "listed", "place_granted", "retry", "cancel", "resolve", "probe"},
            {"state", "cancel_outcome", "resolution"},
        ),
        (CreateGate, "CreateGate", {"reported", "pause", "unpause"}, set()),
        (LateTasks, "LateTasks", {"task_changed"}, set()),
        (ListTasks, "ListTasks", {"listing_requested"}, set()),
        (Places, "Places", {"places_asked", "place_freed", "place_unused"}, {"held_places", "place"}),
    ],
)
def test_workflow_names(defined: type[Any], name: str, signals: set[str], queries: set[str]) -> None:
    definition = workflow._Definition.must_from_class(defined)
    assert definition.name == name
    assert (set(definition.signals), set(definition.queries)) == (signals, queries)
    # docs/explanation/decisions/0008-signals-not-updates.md
    assert definition.updates == {}, "a run that took an update may not be replayed"


def test_queue_names() -> None:
    assert vars(Queues("byteplus")) == {
        "workflows": "seedance-byteplus",
        "references": "seedance-byteplus-references",
        "create": "seedance-byteplus-create",
        "create_4k": "seedance-byteplus-create-4k",
        "get": "seedance-byteplus-get",
        "list": "seedance-byteplus-list",
        "transfer": "seedance-byteplus-transfer",
    }


@pytest.mark.parametrize(
    ("names", "pinned"),
    [(EventName, EVENTS), (EventSource, SOURCES), (Phase, PHASES), (Attention, ATTENTIONS)],
    ids=["events", "sources", "phases", "attentions"],
)
def test_literals(names: object, pinned: str) -> None:
    assert set(get_args(names)) == set(pinned.split())


def test_names_of_a_gate() -> None:
    queues = Queues("byteplus")
    assert queues.creates == ("seedance-byteplus-create", "seedance-byteplus-create-4k")
    assert gate_id(queues.create) == "seedance-byteplus-create-gate"
    assert probe_queue(queues.create_4k) == "seedance-byteplus-create-4k-probe"


def test_ledger_objects() -> None:
    assert set(KINDS) == {"claim", "outcome", "taken", "end", "again"}
    names = ObjectNames("p", "h")
    found = [*(names.attempt(1, kind) for kind in KINDS), names.late(1, "t"), names.end_of_task(1, "t"), names.record]
    attempt = ["again", "claim", "end-t", "end", "late-t", "outcome", "taken"]
    assert sorted(found) == [*(f"p/h/attempts/0001.{kind}.json" for kind in attempt), "p/h/record.json"]
