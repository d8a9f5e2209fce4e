"""A long run continues as new, and no signal of the old run is lost."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from activities.recover import IdentifyResult
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_PHASE, SEEDANCE_TASK_ID
from seedance_temporal.visibility import described
from tests.replay.replaying import replay, runs_of
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.conftest import SUGGESTED_FROM
from tests.workflows.fakes import (
    LONG,
    NOT_YET,
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    TASK,
    TOO_LATE,
    Held,
    a_listing,
    adopt,
    claim,
    created,
    not_sent,
    recover,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, Job, noted
from workflows import policies

CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


@pytest.fixture
def harness(renewing: Harness) -> Harness:
    return renewing


async def noise(job: Job, until_events: int = SUGGESTED_FROM + 5) -> None:
    """Make the history long, by callbacks that change nothing."""
    for _ in range(until_events):
        await job.callback("running")


async def was_continued(job: Job) -> bool:
    return (await job.events())[-1].event_type == CONTINUED


async def test_long_wait_continues_with_timeline(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", claim(), adopt())
    harness.fake.plan("create_task", created(seconds=0))
    harness.fake.plan("get_task", held, waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until(held)
    before = (await job.detail()).timeline
    await noise(job)
    held.release()
    await until(lambda: was_continued(job), "the run continues as new")
    await harness.fake.called("get_task", 2)
    now = job.newest()
    shown = await now.until_state(phase="running")
    assert detail_of(shown).timeline[: len(before)] == before
    assert (shown.task_id, shown.attempt) == (TASK, 1)
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "read_ledger", "get_task"]
    await now.callback("succeeded")
    assert await now.result() == RESULT
    found = await now.attributes()
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("stored", TASK)
    assert await replay(job) == 2


async def test_long_search_continues_with_cancel_request(harness: Harness) -> None:
    held = Held(recover(seconds=0))
    harness.fake.plan("read_ledger", recover(), recover())
    harness.fake.plan("ask_lister", held, adopt())
    harness.fake.cancel()
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    await job.cancel()
    # Within one activation, signals come before a cancel that was sent before them.
    await job.until_noted("cancel_requested")
    await noise(job)
    held.release()
    assert (await job.newest().failed()).failure_class == "cancelled"
    assert await was_continued(job)
    assert harness.fake.of("create_task") == []
    # By the new run, which was never asked itself.
    assert harness.fake.names().count("read_ledger") == 2
    assert len(harness.fake.of("cancel_task")) == 1
    assert (await job.newest().noted())[0] == "cancel_requested"


async def test_new_runs_follow_between_attempts(harness: Harness) -> None:
    times = 8
    harness.fake.plan("read_ledger", *[claim(number, about="**who asked**") for number in range(1, times + 2)], adopt())
    closed = not_sent(seconds=0, attention="account", message="AccountOverdueError: overdue")
    harness.fake.plan("create_task", *[closed] * times, created())
    harness.fake.finish()
    job = await harness.start()
    assert await job.newest().result() == RESULT
    runs = await runs_of(job)
    assert len(runs) > 2
    assert [run[-1].event_type for run in runs[:-1]] == [CONTINUED] * (len(runs) - 1)
    assert all(len(run) < SUGGESTED_FROM + 20 for run in runs), "none goes on for longer than two attempts"
    creates = [call.input for call in harness.fake.of("create_task")]
    assert [(create.attempt, create.refusals) for create in creates] == [(n, n - 1) for n in range(1, times + 2)]
    # An Attention that remains is neither cleared nor raised anew by a new run.
    events = noted(await job.newest().state())
    assert len([event for event in events if event.startswith("attention_raised account")]) == 1
    assert events.count("attention_settled account") == 1


async def test_new_run_keeps_what_support_needs(harness: Harness) -> None:
    closed: dict[str, Any] = {"attention": "account", "message": "AccountOverdueError: overdue"}
    held = Held(not_sent(**closed))
    harness.fake.always("read_ledger", claim(about="**who asked**"))
    # After the first, the callbacks are still being identified.
    harness.fake.plan("create_task", held, not_sent(1, **closed))
    harness.fake.always("create_task", not_sent(LONG, **closed))
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    before = await job.state()
    await noise(job)
    held.release()
    await until(lambda: was_continued(job), "the run continues as new")
    now = job.newest()
    shown = await now.until_state(attention="account", phase="waiting")
    assert (shown.started_at, shown.user, shown.model) == (before.started_at, before.user, before.model)
    assert shown.started_at < (await now.describe()).start_time
    assert (await described(await now.describe())).started_at == before.started_at
    assert "**who asked**" in await now.current_details()
    assert detail_of(shown).timeline[0].event == "callback_received"


async def test_unhandled_callback_survives_new_run(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("identify_task", OURS)
    job = await harness.start_until(held)
    await noise(job)
    await job.callback("succeeded", OTHER_TASK)
    held.release()
    await harness.fake.called("identify_task")
    assert harness.fake.input("identify_task").task_id == OTHER_TASK
    await until(lambda: was_continued(job), "the job continues in a new run")


@pytest.mark.faults
async def test_new_run_goes_on_asking_where_get_lags(harness: Harness) -> None:
    """The run before had no time for its pauses: one "not yet" in a new run is not the last word."""
    answers = [NOT_YET, NOT_YET, NOT_YET, OURS]

    async def identified(_: object) -> IdentifyResult:
        answer = answers.pop(0)
        if not answers:
            harness.fake.always("read_ledger", adopt(OTHER_TASK))
        return answer

    async def is_followed() -> bool:
        return any(call.input.task_id == OTHER_TASK for call in harness.fake.of("get_task"))

    held = Held(waiting("running"))
    harness.fake.always("read_ledger", adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.always("identify_task", identified)
    job = await harness.start_until(held)
    await job.callback("running", OTHER_TASK)
    await harness.fake.called("identify_task")
    await noise(job)
    held.release()
    await until(lambda: was_continued(job), "the run continues as new")
    await until(is_followed, "the task is found, and followed")


async def test_flood_ends_a_wait(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a worker that takes the run over would replay tens of thousands of events."""
    monkeypatch.setattr(policies, "MOST_EVENTS_OF_A_WAIT", 60)
    monkeypatch.setattr(policies, "MOST_EVENTS", 30)
    unsandboxed.fake.always("read_ledger", adopt())
    unsandboxed.fake.always("get_task", waiting("running", 3_600))
    job = await unsandboxed.start_until_called("get_task")
    for _ in range(60):
        await job.callback("running")
    await until(lambda: was_continued(job), "the run continues as new")


async def test_new_run_keeps_the_limit_of_callbacks(harness: Harness) -> None:
    """Or a sender of made-up names would have as many questions again with each run that they fill."""
    held = Held(waiting("running"))
    harness.fake.always("read_ledger", adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until(held)
    for number in range(policies.MOST_CALLBACKS):
        await job.callback("queued", f"{OTHER_TASK}-{number}")
    await harness.fake.called("identify_task", policies.MOST_CALLBACKS)
    held.release()
    await until(lambda: was_continued(job), "the run continues as new")
    now = job.newest()
    for number in range(5):
        await now.callback("queued", f"{OTHER_TASK}-again-{number}")
    await harness.fake.called("read_ledger", 2)
    await now.until_state(phase="running")
    # One more is allowed each minute.
    assert len(harness.fake.of("identify_task")) <= policies.MOST_CALLBACKS + 1


async def test_new_run_remembers_a_listed_task(harness: Harness) -> None:
    """GET does not show it, and all later listings hide it: the attempt must not count as absent."""
    harness.fake.always("read_ledger", recover())
    harness.fake.always("ask_lister", recover())
    harness.fake.always("identify_task", OTHER)
    job = await harness.start_until_called("ask_lister")
    await job.listed(a_listing(task_id=OTHER_TASK))
    await harness.fake.called("identify_task")
    await noise(job)
    await job.listed(a_listing())
    await until(lambda: was_continued(job), "the run continues as new")
    now = job.newest()
    await now.listed(*[a_listing() for _ in range(3)])
    await until(lambda: _count(now, "not_listed", 3), "the new run has handled them")
    assert harness.fake.of("settle_absent") == []


async def _count(job: Job, event: str, least: int) -> bool:
    return sum(one.count for one in (await job.detail()).timeline if one.event == event) >= least


async def test_callback_during_search_is_handled(harness: Harness) -> None:
    held = Held(recover(seconds=0))
    harness.fake.plan("read_ledger", recover(), adopt(), adopt())
    harness.fake.plan("ask_lister", held)
    harness.fake.plan("identify_task", OTHER, OURS)
    harness.fake.finish()
    job = await harness.start_until(held)
    for _ in range(SUGGESTED_FROM):
        await job.callback("running", OTHER_TASK, attempt=1)
    await job.callback("running", TASK, attempt=1)
    held.release()
    assert await job.newest().result() == RESULT
    assert [call.input.task_id for call in harness.fake.of("identify_task")] == [OTHER_TASK, TASK]


async def test_cancel_before_new_run_is_served_by_it(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", held)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("cancel_task", TOO_LATE)
    job = await harness.start_until(held)
    await noise(job)
    await job.ask_to_cancel()
    held.release()
    await job.newest().until_noted(f"cancel_answered {TOO_LATE.outcome}, {TOO_LATE.status}")


async def test_fixed_attention_is_cleared_in_new_run(harness: Harness) -> None:
    held = Held(waiting("", attention="credentials", note="401"))
    harness.fake.plan("read_ledger", adopt(), adopt())
    harness.fake.plan("get_task", waiting("", 0, attention="credentials", note="401"), held, waiting("running"))
    job = await harness.start_until(held)
    assert (await job.state()).attention == "credentials"
    await noise(job)
    held.release()
    now = job.newest()
    await harness.fake.called("get_task", 3)
    assert (await now.until_state(phase="running")).attention is None
    await now.until_unset(SEEDANCE_ATTENTION)


async def test_lasting_refusal_is_raised_once(harness: Harness) -> None:
    refused, held = waiting("", 0, attention="credentials", note="401"), Held(waiting("running"))
    harness.fake.always("read_ledger", adopt())
    harness.fake.plan("get_task", *[refused] * 20, held)
    job = await harness.start_until(held)
    assert await was_continued(job)
    now = job.newest()
    events = noted(await now.state())
    assert events.count("attention_raised credentials") == 1
    assert "attention_settled credentials" not in events
    held.release()
    await now.until_unset(SEEDANCE_ATTENTION)


@pytest.mark.faults
async def test_month_of_closed_account_ends_with_one_video(skipping: Harness) -> None:
    """A create an hour, for 30 days: no run grows long, and what support needs is kept."""
    hours = 30 * 24
    closed = not_sent(3600, attention="account", message="AccountOverdueError: overdue")
    skipping.fake.plan("read_ledger", *[claim(number) for number in range(1, hours + 2)])
    skipping.fake.plan("create_task", *[closed] * hours, created())
    skipping.fake.finish()
    job = await skipping.start()
    assert await job.result() == RESULT
    runs = await runs_of(job)
    assert len(runs) > 3
    assert max(map(len, runs)) < 2_000
    assert max(sum(event.ByteSize() for event in run) for run in runs) < 2_000_000
    assert runs[-1][-1].event_time.ToDatetime() - runs[0][0].event_time.ToDatetime() > timedelta(days=30)
    creates = [call.input for call in skipping.fake.of("create_task")]
    assert [create.refusals for create in creates] == [*range(hours + 1)]
    shown = await job.newest().state()
    assert abs(shown.started_at - runs[0][0].event_time.ToDatetime(UTC)) < timedelta(seconds=1)
    assert len([event for event in noted(shown) if event.startswith("attention_raised")]) == 1
