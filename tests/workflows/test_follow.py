"""Waiting for a task: a callback that announces its end, or the timer, and then a poll. Only polls are believed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from seedance_temporal.contract import SIGNAL_RETRY, SIGNAL_TASK_CHANGED, TaskChanged
from seedance_temporal.job import Attention
from seedance_temporal.provider.task import SUCCEEDED, TERMINAL
from tests.support.jobs import detail_of
from tests.support.polling import until
from tests.workflows.fakes import (
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Held,
    adopt,
    created,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness, noted
from workflows import policies

TIMER_FIRED = EventType.EVENT_TYPE_TIMER_FIRED
TIMER_CANCELED = EventType.EVENT_TYPE_TIMER_CANCELED


@pytest.mark.parametrize("status", sorted(TERMINAL - {SUCCEEDED}))
async def test_end_callback_causes_poll_at_once(harness: Harness, status: str) -> None:
    harness.fake.finish()
    job = await harness.start_queued()
    await job.callback(status)
    assert await job.result() == RESULT
    assert not await job.has_event(TIMER_FIRED)
    assert [call.input.announced for call in harness.fake.of("get_task")] == [True]
    assert [(e.source, e.task_id) for e in (await job.detail()).timeline if e.event == "status"] == [("callback", TASK)]


async def test_success_callback_causes_copy_at_once(harness: Harness) -> None:
    """The copy asks the provider itself."""
    held = Held(RESULT)
    harness.fake.plan("store_video", held)
    job = await harness.start_queued()
    await job.callback("succeeded")
    await held.reached.wait()
    assert (await job.state()).phase == "storing"
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "create_task", "store_video"]
    assert [(e.source, e.detail) for e in (await job.detail()).timeline if e.event == "status"] == [
        ("copy", "succeeded")
    ]


@pytest.mark.parametrize("kind", ["NotReady", "ProviderUnavailable", "StoreFailed", "ObjectConflict", "TaskGone"])
async def test_failed_copy_at_once_is_polled(harness: Harness, kind: str) -> None:
    harness.fake.plan("store_video", ApplicationError("no", type=kind, non_retryable=kind == "ObjectConflict"))
    job = await harness.start_queued()
    harness.fake.plan("get_task", waiting("queued"))
    await job.callback("succeeded")
    await job.until_noted("status queued")
    assert harness.fake.input("get_task").announced
    assert (await job.state()).phase == "queued"
    harness.fake.plan("store_video", RESULT)
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert harness.fake.names()[2:] == ["store_video", "get_task", "store_video"]


async def test_endless_copy_at_once_is_polled(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "COPY_AT_ONCE", timedelta(seconds=0.5))
    held = Held(RESULT)
    unsandboxed.fake.plan("store_video", held)
    unsandboxed.fake.finish()
    job = await unsandboxed.start_queued()
    await job.callback("succeeded")
    assert await job.result() == RESULT
    assert unsandboxed.fake.names()[2:] == ["store_video", "get_task", "store_video"]


async def test_retry_ends_copy_at_once(harness: Harness) -> None:
    held = Held(RESULT)
    harness.fake.plan("store_video", held)
    harness.fake.finish()
    job = await harness.start_queued()
    await job.callback("succeeded")
    await held.reached.wait()
    await job.signal(SIGNAL_RETRY)
    assert await job.result() == RESULT
    assert harness.fake.names()[2:] == ["store_video", "get_task", "store_video"]


@pytest.mark.parametrize("status", ["queued", "running", "polishing"])
async def test_other_callback_is_noted_without_poll(harness: Harness, status: str) -> None:
    harness.fake.finish()
    job = await harness.start_queued()
    for _ in range(3):
        await job.callback(status)
    await job.until_noted(f"callback_received {status}")
    assert harness.fake.names() == ["read_ledger", "create_task"]
    assert not await job.has_event(TIMER_CANCELED)
    assert len([e for e in await job.events() if e.event_type == EventType.EVENT_TYPE_TIMER_STARTED]) == 1
    # A callback is not believed either.
    # What one says is only shown.
    assert (await job.state()).phase == ("running" if status == "running" else "queued")
    await job.callback("succeeded")
    await job.result()
    assert harness.fake.names() == ["read_ledger", "create_task", "store_video"]


async def test_timer_polls_without_callbacks(harness: Harness) -> None:
    harness.fake.create(created(seconds=SHORT))
    harness.fake.plan("get_task", waiting("queued", SHORT), waiting("running", SHORT), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    inputs = [call.input for call in harness.fake.of("get_task")]
    assert [(input.polls, input.announced) for input in inputs] == [(0, False), (1, False), (2, False)]
    assert {
        e.source for e in (await job.detail()).timeline if e.event == "status" and e.detail in {"queued", "running"}
    } == {"poll"}


async def test_interval_comes_from_answer(skipping: Harness) -> None:
    skipping.fake.create(created(seconds=90))
    skipping.fake.plan("get_task", *[waiting("running", seconds) for seconds in (15, 22.5, 300)], to_store())
    skipping.fake.plan("store_video", RESULT)
    job = await skipping.start_until_stored()
    started = [
        e.timer_started_event_attributes for e in await job.events() if e.HasField("timer_started_event_attributes")
    ]
    waits = [timer.start_to_fire_timeout.ToTimedelta().total_seconds() for timer in started]
    assert waits[:4] == [90, 15, 22.5, 300]


@pytest.mark.parametrize("first", ["callback", "timer"])
async def test_callback_with_timer_causes_one_poll(harness: Harness, first: str) -> None:
    harness.fake.end("failed", "provider")
    job = await harness.start_queued(1)
    await harness.stop("workflows")
    if first == "callback":
        await job.callback("failed")
    await until(lambda: job.has_event(TIMER_FIRED), "the timer fires while no worker is there")
    if first == "timer":
        await job.callback("failed")
    await harness.start_workers("workflows")
    await job.failed()
    assert [call.input.announced for call in harness.fake.of("get_task")] == [True]


async def test_callback_before_timer_replaces_it(harness: Harness) -> None:
    harness.fake.finish()
    job = await harness.start_queued(5)
    await harness.stop("workflows")
    await job.callback("succeeded")
    await harness.start_workers("workflows")
    await job.result()
    assert not await job.has_event(TIMER_FIRED)


async def test_callback_after_timer_causes_one_poll(harness: Harness) -> None:
    held = Held(waiting("running"))
    harness.fake.create(created(seconds=SHORT))
    harness.fake.plan("get_task", held)
    harness.fake.end("failed", "provider")
    job = await harness.start_until(held)
    await job.callback("failed")
    held.release()
    await job.failed()
    assert [call.input.announced for call in harness.fake.of("get_task")] == [False, True]


# Callbacks that come early


async def test_early_end_callback_is_remembered(harness: Harness) -> None:
    harness.fake.finish()
    job, held = await harness.start_creating(created())
    await job.callback("succeeded")
    held.release()
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "create_task", "store_video"]
    assert not await job.has_event(TIMER_FIRED)


async def test_early_running_callback_causes_no_poll(harness: Harness) -> None:
    harness.fake.finish()
    job, held = await harness.start_creating(created())
    await job.callback("queued")
    held.release()
    await job.until_state(phase="queued")
    await job.callback("running")
    await job.until_noted("callback_received running")
    assert harness.fake.names() == ["read_ledger", "create_task"]


async def test_callback_with_start_is_handled(idle: Harness) -> None:
    idle.fake.plan("read_ledger", adopt())
    idle.fake.finish()
    job = await idle.start(first_signal=TaskChanged(task_id=TASK, status="succeeded", attempt=1))
    await idle.start_workers()
    assert await job.result() == RESULT
    assert idle.fake.names() == ["read_ledger", "store_video"]


# Callbacks that name other tasks


async def test_callback_with_unknown_task_is_checked(harness: Harness) -> None:
    harness.fake.follow(waiting("running"), waiting("running", second_task=OTHER_TASK), attempt=2)
    harness.fake.plan("identify_task", OURS)
    job = await harness.start_until_state(phase="running")
    await job.callback("succeeded", OTHER_TASK, attempt=1)
    shown = await job.until_state(attention="second_task")
    assert OTHER_TASK in (detail_of(shown).advice or "")
    input = harness.fake.input("identify_task")
    assert (input.attempt, input.task_id) == (1, OTHER_TASK)
    # The first task is still followed.
    assert (shown.task_id, shown.attempt, shown.phase) == (TASK, 2, "running")
    assert {call.input.task_id for call in harness.fake.of("get_task")} == {TASK}


async def test_repeated_unknown_task_is_checked_once(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("identify_task", OTHER)
    job = await harness.start_until_state(phase="running")
    await job.callback("queued", OTHER_TASK)
    await harness.fake.called("identify_task")
    await job.callback("running", OTHER_TASK)
    await job.callback("failed", OTHER_TASK)
    await job.until_noted("callback_received failed")
    assert len(harness.fake.of("identify_task")) == 1


async def test_poll_shows_second_task(harness: Harness) -> None:
    harness.fake.follow(waiting("running", second_task=OTHER_TASK), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_state(attention="second_task", phase="running")
    await job.callback("succeeded")
    await job.result()
    # No step of this job settles it.
    assert (await job.state()).attention == "second_task"


# Malformed callbacks


ODD: dict[str, list[Any]] = {
    "nothing": [],
    "two": [TaskChanged(task_id=TASK, status="running", attempt=1), "more"],
    "null": [None],
    "text": ["succeeded"],
    "number": [7],
    "list": [[1, 2, 3]],
    "empty": [{}],
    "wrong types": [{"task_id": 1, "status": [], "attempt": "x"}],
    "nested": [{"task_id": {"task_id": {"task_id": TASK}}, "status": "succeeded", "attempt": 1}],
    "more fields": [{"task_id": TASK, "status": "running", "attempt": 1, "content": {"video_url": "http://x"}}],
    "huge status": [{"task_id": TASK, "status": "s" * 500_000, "attempt": 1}],
    "huge task id": [{"task_id": "t" * 500_000, "status": "succeeded", "attempt": 1}],
    "long task id": [{"task_id": "t" * 5_000, "status": "running", "attempt": 1}],
    "odd task id": [{"task_id": "../../\x00\n\u202e\U0001f600", "status": "succeeded", "attempt": 1}],
    "no task id": [{"task_id": "", "status": "succeeded", "attempt": 1}],
    "huge attempt": [{"task_id": OTHER_TASK, "status": "succeeded", "attempt": 10**30}],
    "negative attempt": [{"task_id": OTHER_TASK, "status": "succeeded", "attempt": -1}],
    "no JSON": [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{nonsense"))],
    "no encoding": [RawValue(Payload(data=b"\xff\xfe"))],
    "unknown encoding": [RawValue(Payload(metadata={"encoding": b"binary/odd"}, data=b"\x00"))],
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_nonsense_stops_no_job(harness: Harness, odd: list[Any]) -> None:
    job = await harness.start_running()
    harness.fake.always("identify_task", OTHER)
    harness.fake.always("get_task", waiting("running"))
    harness.fake.plan("store_video", RESULT)
    await job.signal(SIGNAL_TASK_CHANGED, args=odd)
    await asyncio.sleep(0.1)
    harness.fake.always("get_task", to_store())
    await job.callback("succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT
    # No long part of it is copied into the history, or shown.
    assert len((await job.state()).model_dump_json()) < 20_000
    signalled = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
    assert sum(event.ByteSize() for event in await job.events() if event.event_type != signalled) < 50_000


async def test_thousand_callbacks_cause_few_gets(harness: Harness) -> None:
    """A leaked callback URL costs the account's rate limit little."""
    harness.fake.plan("read_ledger", adopt())
    harness.fake.always("get_task", waiting("running"))
    harness.fake.always("identify_task", OTHER)
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_state(phase="running")
    for start in range(0, 1000, 100):
        numbers = range(start, start + 100)
        await asyncio.gather(
            *(
                job.callback("succeeded", TASK if number % 2 else f"{OTHER_TASK}-{number}", attempt=number % 3)
                for number in numbers
            )
        )
    await until(lambda: _quiet(harness), "the job is quiet again")
    assert len(harness.fake.of("identify_task")) <= policies.MOST_CALLBACKS
    assert len(harness.fake.of("get_task")) <= policies.MOST_CALLBACKS + policies.MOST_FRUITLESS_CALLBACKS + 1
    shown = await job.state()
    assert len(detail_of(shown).timeline) <= 100
    assert shown.task_id == TASK


async def _quiet(harness: Harness) -> bool:
    before = len(harness.fake.calls)
    await asyncio.sleep(0.5)
    return len(harness.fake.calls) == before


async def test_fruitless_callbacks_leave_only_timer(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt())
    polls = policies.MOST_FRUITLESS_CALLBACKS
    harness.fake.plan("get_task", *[waiting("running")] * polls, waiting("running", seconds=3), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    for number in range(polls):
        await harness.fake.called("get_task", number + 1)
        await job.callback("failed")
    await harness.fake.called("get_task", polls + 1)
    for _ in range(5):
        await job.callback("failed")
    assert len(harness.fake.of("get_task")) == polls + 1
    assert await job.result() == RESULT
    assert len(harness.fake.of("get_task")) == polls + 2
    assert await job.has_event(TIMER_FIRED)


# Results of a poll


async def test_status_never_goes_back(harness: Harness) -> None:
    harness.fake.follow(waiting("running", 0), waiting("queued"))
    job = await harness.start()
    shown = await job.until_state(provider_status="queued")
    assert shown.phase == "running"
    assert noted(shown)[-2:] == ["status running", "status queued"]


async def test_unknown_status_is_shown_and_polled(harness: Harness) -> None:
    held = Held(to_store())
    harness.fake.follow(waiting("polishing", 0), waiting("polishing", 0), held)
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until(held)
    shown = await job.state()
    assert (shown.phase, detail_of(shown).provider_status, shown.attention) == ("running", "polishing", None)
    assert [(e.event, e.detail, e.count) for e in detail_of(shown).timeline[-1:]] == [("status", "polishing", 2)]
    held.release()
    assert await job.result() == RESULT


async def test_gateways_word_for_success_causes_poll(harness: Harness) -> None:
    job = await harness.start_running()
    harness.fake.finish()
    await job.callback("Completed")
    assert await asyncio.wait_for(job.result(), 10) == RESULT


@pytest.mark.parametrize("attention", ["task_gone", "credentials", "account"])
@pytest.mark.parametrize("then", [waiting("running"), to_store()], ids=["running", "succeeded"])
async def test_task_problem_needs_operator_until_fixed(harness: Harness, attention: Attention, then: Any) -> None:
    held = Held(then)
    harness.fake.follow(waiting("", 0, attention=attention, note="the key is refused (401)"), held)
    harness.fake.plan("store_video", Held(RESULT))
    job = await harness.start_until(held)
    shown = await job.state()
    assert (shown.attention, shown.phase, shown.task_id) == (attention, "queued", TASK)
    assert "401" in (detail_of(shown).advice or "")
    held.release()
    shown = await job.until_state(phase="running" if then.next == "wait" else "storing")
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert f"attention_settled {attention}" in noted(shown)


async def test_unanswered_poll_is_repeated(harness: Harness) -> None:
    harness.fake.follow(RuntimeError("503"), to_store())
    harness.fake.plan("store_video", RESULT)
    await harness.start_until_stored()
    assert [call.tries for call in harness.fake.of("get_task")] == [1, 2]


async def test_stored_video_is_returned(harness: Harness) -> None:
    """A Reset brings a run back to an earlier step."""
    harness.fake.follow(waiting("running", 0), _stored())
    await harness.start_until_stored()
    assert harness.fake.names() == ["read_ledger", "get_task", "get_task"]


def _stored() -> Any:
    return to_store().model_copy(update={"next": "already_stored", "result": RESULT})


async def test_next_poll_is_announced(harness: Harness) -> None:
    harness.fake.follow(waiting("running", 600))
    job = await harness.start_until_state(phase="running")
    shown = await job.state()
    assert (due := detail_of(shown).continues_at) is not None
    seen = next(entry for entry in detail_of(shown).timeline if entry.detail == "running")
    assert timedelta(seconds=599) < due - seen.at < timedelta(seconds=605)
