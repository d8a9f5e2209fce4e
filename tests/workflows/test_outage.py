"""A callback names a task while GET is away: it is asked for before each step that cannot be undone, and after it."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SIGNAL_RETRY
from tests.support.jobs import detail_of
from tests.workflows.fakes import (
    LONG,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    Held,
    adopt,
    claim,
    ended,
    failure,
    not_sent,
    refused,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

REFUSED = failure("invalid", task_id=None, attempt=2)
AWAY = ApplicationError("500 the provider is away", type="ProviderUnavailable")


@pytest.fixture
def harness(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> Harness:
    """A route with all its workers, on which a name soon waits for the end of the outage."""
    monkeypatch.setattr(policies, "IDENTIFY_PAUSES", ())
    return unsandboxed


async def named_in_outage(harness: Harness, held: Held) -> Job:
    """Start a job that is kept at an activity, and name the task of its first attempt while GET is away."""
    harness.fake.always("identify_task", AWAY)
    job = await harness.start_until(held)
    await job.callback("running", TASK, attempt=1)
    await job.until_noted("task_not_checked callback")
    return job


async def test_end_of_outage_is_noticed_before_next_create(harness: Harness) -> None:
    held = Held(not_sent(0))
    harness.fake.plan("read_ledger", claim(2), claim(3), adopt(TASK, attempt=1))
    harness.fake.plan("create_task", held)
    harness.fake.finish()
    job = await named_in_outage(harness, held)
    harness.fake.always("identify_task", OURS)
    held.release()
    # Otherwise the next question comes after five minutes.
    assert await asyncio.wait_for(job.result(), 60) == RESULT
    assert len(harness.fake.of("create_task")) == 1


async def test_answer_after_the_end_is_followed(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run waits for a name in question, but not for ever."""
    monkeypatch.setattr(policies, "LISTEN_AT_MOST", timedelta(seconds=1))
    held, identified = Held(refused()), Held(OURS)
    harness.fake.plan("read_ledger", claim(2), ended(REFUSED), adopt(TASK, attempt=1))
    harness.fake.plan("create_task", held)
    harness.fake.finish()
    job = await named_in_outage(harness, held)
    harness.fake.always("identify_task", identified)
    held.release()
    shown = await job.until_state(phase="refused")
    assert shown.error is not None
    identified.release()
    assert await job.result() == RESULT
    shown = await job.state()
    assert (shown.phase, shown.error, shown.task_id) == ("stored", None, TASK)


async def test_task_is_asked_for_after_the_end(harness: Harness) -> None:
    held = Held(refused())
    harness.fake.plan("read_ledger", claim(2), ended(REFUSED))
    harness.fake.plan("create_task", held)
    harness.fake.plan("ask_later", None)
    job = await named_in_outage(harness, held)
    held.release()
    assert (await job.failed()).failure_class == "invalid"
    (later,) = harness.fake.input("ask_later").named
    assert (later.task_id, later.attempt) == (TASK, 1)


async def test_retries_keep_no_step_silent(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "PATIENCE", timedelta(seconds=6))
    monkeypatch.setattr(policies, "ONE_TRY", timedelta(seconds=2))
    unsandboxed.fake.plan("read_ledger", adopt())
    unsandboxed.fake.always("get_task", AWAY)
    job = await unsandboxed.start_until_called("get_task")
    asked = time.monotonic()
    while (await job.state()).attention is None and time.monotonic() - asked < 60:
        await job.signal(SIGNAL_RETRY)
        await asyncio.sleep(1)
    shown = await job.state()
    assert shown.attention == "provider"
    assert "500 the provider is away" in (detail_of(shown).advice or "")
    unsandboxed.fake.finish()
    assert await job.result() == RESULT


async def test_made_up_ends_hide_no_real_one(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    held = Held(waiting("running", LONG))
    harness.fake.plan("get_task", held, to_store())
    harness.fake.plan("store_video", RESULT)
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    await job.callback("failed")
    for number in range(policies.MOST_CALLBACKS + 5):
        await job.callback("succeeded", f"{OTHER_TASK}-{number}")
    held.release()
    assert await job.result() == RESULT
    assert "stored" in noted(await job.state())
