"""A history of every way through the workflows is recorded, and the present ones follow them all."""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from typing import Any

import pytest

from tests.replay.conftest import Replayed
from tests.replay.crossing import activity_definitions, workflow_definitions
from tests.replay.guard import assert_followed
from tests.replay.histories import ROOT, Recorded, events_of, files, sets, shapes_file
from tests.replay.lines import lines_of

# Lines that no recorded history runs, by their text: one entry for each line.
NOT_REPLAYED = Counter(
    [
        # Only where a run leaves a worker's cache.
        ("workflows/waits.py", "raise"),
        # Only where the real server has waited for an hour.
        ("workflows/messages.py", "reason = reason.cause"),
        # A day of outage, which the tests shorten.
        ("workflows/late_tasks.py", "return False"),
        ("workflows/late_tasks.py", "return False"),
        # A race with the end of a run.
        ("workflows/inbox.py", "return"),
        ("workflows/inbox.py", "return False"),
        # An activity that fails for good, which would be a fault of the code.
        ("workflows/steps.py", "raise"),
        # A server that does not describe its own run.
        ("workflows/steps.py", "except ActivityError:"),
        ("workflows/steps.py", "return None"),
        # No test of tests/workflows takes these ways: answers that cannot be sent; no worker for LIST; a listing
        # without end; a task followed beside damage; a second task that becomes the followed one.
        ("workflows/list_tasks.py", "except ActivityError:"),
        ("workflows/list_tasks.py", "self._keep(requests)"),
        ("workflows/list_tasks.py", "return  # no worker has tried it"),
        ("workflows/list_tasks.py", "break"),
        ("workflows/messages.py", 'return advice_on_damage(seen.note or "")'),
        ("workflows/progress.py", "self._second_task = None"),
        ("workflows/progress.py", 'self.clear("second_task")'),
    ]
)
RECORD = (
    "Add a test to tests/workflows that takes this way, and record it: make histories; where it is the new way of a "
    "gate, record it beside the old one: make histories SET=name-of-the-change TESTS=\"-k 'the tests of it'\""
)
MOST_BYTES = 4_000_000


def test_histories_are_followed(replayed: Replayed) -> None:
    assert_followed(replayed.explained)


def test_sets_have_their_fields() -> None:
    assert [name for name in sets() if not shapes_file(name).exists()] == []


def test_histories_stay_small() -> None:
    assert sum(file.stat().st_size for file in files()) < MOST_BYTES, "remove the sets of code that runs nowhere"


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="later compilers number lines in other ways")
def test_every_line_is_replayed(replayed: Replayed) -> None:
    """Queries are left out: a replay runs none."""
    assert not replayed.explained, "the histories are not followed to their ends"
    never = [line for defined in workflow_definitions().values() for line in _unreplayed(defined)]
    lines = {line: text for line, text in lines_of(ROOT / "workflows").items() if line not in never}
    allowed, missing = NOT_REPLAYED.copy(), list[str]()
    for line, text in sorted(lines.items()):
        if line not in replayed.seen:
            allowed[line[0], text] -= 1
            if allowed[line[0], text] < 0:
                missing.append(f"{line[0]}:{line[1]}: {text}")
    assert not missing, "\n".join(["no recorded history runs these lines:", *missing, RECORD])


def _unreplayed(defined: Any) -> list[tuple[str, int]]:
    """Return the lines of a workflow's handlers that are not replayed."""
    found = []
    for query in defined.queries.values():
        text, first = inspect.getsourcelines(query.fn)
        file = inspect.getsourcefile(query.fn)
        assert file is not None
        found += [(file.removeprefix(f"{ROOT}/"), first + number) for number in range(len(text))]
    return found


def test_every_name_is_recorded(records: list[Recorded]) -> None:
    """Every workflow, activity and signal."""
    found = set[tuple[str, str]]()
    for event in events_of(records):
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                found.add(("workflow", event.workflow_execution_started_event_attributes.workflow_type.name))
            case "activity_task_scheduled_event_attributes":
                found.add(("activity", event.activity_task_scheduled_event_attributes.activity_type.name))
            case "workflow_execution_signaled_event_attributes":
                found.add(("signal", event.workflow_execution_signaled_event_attributes.signal_name))
    expected = {("activity", name) for name in activity_definitions()}
    for name, defined in workflow_definitions().items():
        expected |= {("workflow", name)}
        expected |= {("signal", str(signal)) for signal in defined.signals}
    assert expected - found == set(), RECORD
