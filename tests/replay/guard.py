"""Replay recorded histories, and explain each that the present workflows would not follow."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from itertools import zip_longest

from temporalio.client import WorkflowHistory
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Replayer

from tests.replay.histories import Recorded
from tests.replay.steps import NotingRunner, Step, Turns, present_steps, recorded_steps
from workers.build import WORKFLOWS

# Steps that are shown before the one that differs, and runs that are shown of many.
_BEFORE = 3
_SHOWN = 4
_LONGEST_ERROR = 600
# Its own message, within those of the layers around it.
_SAID = re.compile(r'message: "((?:[^"\\]|\\.)*)"')
_MISSING = "  Where a field is missing: what is added later to a model that crosses Temporal needs a default."
WAYS_OUT = """\
A job of this code that runs now would stop there, and stay open until code comes that follows its history. Either gate
the change, so that such jobs keep their old way, and record the new way beside it:
    if workflow.patched("name-of-the-change"):  # the new way
    else:                                       # the old way
    make histories SET=name-of-the-change TESTS="-k 'the tests of it'"
Or, while nothing is released, and no history of the old code can exist any more: make histories, and say so in the
commit. CONTRIBUTING.md has the steps."""


def assert_followed(explained: Sequence[str]) -> None:
    """Assert that the present workflows follow all histories.

    Args:
        explained: What :func:`unlike` returns.

    Raises:
        AssertionError: It says which history is not followed, where, and what to do.
    """
    if explained:
        more = [f"… and {len(explained) - _SHOWN} more runs."] if len(explained) > _SHOWN else list[str]()
        raise AssertionError("\n\n".join(["", *explained[:_SHOWN], *more, WAYS_OUT]))


async def unlike(records: Sequence[Recorded], *workflows: type) -> list[str]:
    """Replay recorded runs; return an explanation for each that cannot be followed.

    Args:
        workflows: By default the present ones.
    """
    runner = NotingRunner()
    replayer = Replayer(
        workflows=workflows or WORKFLOWS,
        data_converter=pydantic_data_converter,
        # The sandbox was active when they were recorded; here only the commands are compared.
        workflow_runner=runner,
        # In this thread; on a busy machine a turn can take longer than the two seconds that the SDK otherwise gives it.
        debug_mode=True,
    )
    runs = [(record, number, run) for record in records for number, run in enumerate(record.runs, 1)]

    async def one_by_one() -> AsyncIterator[WorkflowHistory]:
        for _, _, run in runs:
            yield run

    explained, replayed = list[str](), 0
    async with replayer.workflow_replay_iterator(one_by_one()) as results:
        async for result in results:
            record, number, run = runs[replayed]
            replayed += 1
            if result.replay_failure is not None:
                turns = runner.turns.get(run.run_id, Turns())
                explained.append(explanation(record, number, turns, str(result.replay_failure)))
    assert replayed == len(runs)
    return explained


def explanation(record: Recorded, number: int, turns: Turns, failure: str) -> str:
    """Explain why a run cannot be replayed.

    Args:
        number: The place of the run among those of its path, from 1.
        turns: What the present workflow asked for.
        failure: The SDK's own message.
    """
    head = f"{record.file}, run {number} of {len(record.runs)}: this history cannot be replayed."
    if turns.errors:
        return f"{head}\n  the workflow now raises: {turns.errors[0][:_LONGEST_ERROR]}\n{_MISSING}"
    was, now = recorded_steps(record.runs[number - 1].events), present_steps(turns.commands)
    # The cancel of an activity that has just ended is recorded nowhere, so it decides only where nothing else differs.
    certain = [[step for step in steps if not step.cancels] for steps in (was, now)]
    if _first_difference(*certain) < len(certain[0]):
        was, now = certain
    at = _first_difference(was, now)
    shown = [f"  after:     {step}" for step in was[max(0, at - _BEFORE) : at]]
    shown += [f"  recorded:  {_at(was, at)}", f"  now:       {_at(now, at)}"]
    said = _SAID.search(failure)
    return "\n".join([head, *shown, f"  Temporal:  {(said[1] if said else failure)[:_LONGEST_ERROR]}"])


def _first_difference(was: Sequence[Step], now: Sequence[Step]) -> int:
    pairs = enumerate(zip_longest(was, now))
    return next((number for number, (before, present) in pairs if before != present), len(was))


def _at(steps: Sequence[Step], number: int) -> str:
    return str(steps[number]) if number < len(steps) else "nothing"
