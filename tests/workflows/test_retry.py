"""An operator's retry ends every wait of a job. A create that runs already is not sent again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SIGNAL_RETRY
from tests.workflows.fakes import (
    LONG,
    RESULT,
    TASK,
    Held,
    adopt,
    as_written,
    claim,
    created,
    ending,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted

PAUSE = timedelta(minutes=10)
DAMAGED = ApplicationError("gs://videos/a is empty", type="LedgerDamaged")
CONFLICT = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)

# What is waited for: the plan until then, the activity that is tried, and its answer at last.
WAITS: dict[str, tuple[dict[str, Any], str, Any]] = {
    "a closed account": (
        {"read_ledger": (claim(), claim(2)), "create_task": (not_sent(LONG, attention="account"),)},
        "create_task",
        created(seconds=0),
    ),
    "the next poll": ({"read_ledger": (adopt(),), "get_task": (waiting("running", LONG),)}, "get_task", to_store()),
    "a listing": (
        {"read_ledger": (recover(),), "ask_lister": (recover(seconds=LONG),)},
        "ask_lister",
        adopt(),
    ),
    "a damaged ledger": ({"read_ledger": (DAMAGED,)}, "read_ledger", adopt()),
    "another object": (
        {"read_ledger": (adopt(),), "get_task": (to_store(),), "store_video": (CONFLICT,)},
        "store_video",
        RESULT,
    ),
}


ATTENTIONS = {"a damaged ledger": "ledger_damaged", "another object": "object_conflict"}


async def retried(job: Job) -> None:
    await job.signal(SIGNAL_RETRY)


@pytest.mark.parametrize("wait", WAITS)
async def test_wait_ends_by_retry(harness: Harness, wait: str) -> None:
    plan, name, answer = WAITS[wait]
    for activity, answers in plan.items():
        harness.fake.plan(activity, *answers)
    job = await harness.start()
    await harness.fake.called(name)
    await (job.until_state(attention=ATTENTIONS[wait]) if wait in ATTENTIONS else job.until_waiting())
    harness.fake.always(name, answer)
    harness.fake.finish()
    await retried(job)
    assert await job.result() == RESULT
    assert "retry_requested" in noted(await job.state())


@pytest.mark.parametrize("name", ["read_ledger", "get_task", "store_video", "write_end"])
async def test_step_between_its_tries_is_tried_at_once(harness: Harness, name: str) -> None:
    """After some tries, Temporal's own pause is a minute or more."""
    slow = ApplicationError("503", type="ProviderUnavailable", next_retry_delay=PAUSE)
    answers: dict[str, Any] = {"read_ledger": adopt(), "get_task": to_store(), "store_video": RESULT}
    if name == "write_end":
        answers |= {"get_task": ending("failed", "provider"), "write_end": as_written}
    for activity, answer in answers.items():
        harness.fake.always(activity, slow if activity == name else answer)
    job = await harness.start()
    await harness.fake.called(name)
    harness.fake.always(name, answers[name])
    await retried(job)
    if name == "write_end":
        assert (await job.failed()).task_id == TASK
    else:
        assert await job.result() == RESULT


async def test_running_create_hears_no_retry(harness: Harness) -> None:
    held = Held(created(seconds=0))
    harness.fake.create(held)
    harness.fake.finish()
    job = await harness.start_until(held)
    for _ in range(3):
        await retried(job)
    held.release()
    assert await job.result() == RESULT
    assert len(harness.fake.of("create_task")) == 1
