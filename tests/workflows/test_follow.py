"""Waiting for a task: a callback that announces its end, or the timer, and then a look. Only looks are believed."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.common import RawValue

from seedance_temporal.contract import SIGNAL_TASK_CHANGED, TaskChanged
from seedance_temporal.job import Attention
from seedance_temporal.provider.task import TERMINAL
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    OTHER,
    OTHER_TASK,
    OURS,
    RESULT,
    SHORT,
    TASK,
    Handle,
    Held,
    Stage,
    callback,
    events,
    has_event,
    noted,
    shows,
    state,
    to_store,
    until,
    waiting,
)
from workflows import policies

TIMER_FIRED = EventType.EVENT_TYPE_TIMER_FIRED
TIMER_CANCELED = EventType.EVENT_TYPE_TIMER_CANCELED


def finish(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


async def heard(job: Handle, event: str) -> None:
    """Wait until the workflow has noted an event."""

    async def is_noted() -> bool:
        return event in noted(await state(job))

    await until(is_noted, f"the timeline has {event!r}")


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_a_callback_that_announces_an_end_is_followed_by_a_look_at_once(stage: Stage, status: str) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    finish(stage)
    job = await stage.start()
    await shows(job, phase="queued")
    await callback(job, status)
    assert await job.result() == RESULT
    assert not await has_event(job, TIMER_FIRED)
    assert [call.order.announced for call in stage.script.of("get_task")] == [True]
    assert [(e.source, e.task_id) for e in detail_of(await state(job)).timeline if e.event == "status"] == [
        ("callback", TASK)
    ]


@pytest.mark.parametrize("status", ["queued", "running", "polishing"])
async def test_any_other_callback_is_noted_and_the_timer_kept(stage: Stage, status: str) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    finish(stage)
    job = await stage.start()
    await shows(job, phase="queued")
    for _ in range(3):
        await callback(job, status)
    await heard(job, f"callback_received {status}")
    assert stage.script.of("get_task") == []
    assert not await has_event(job, TIMER_CANCELED)
    assert len([e for e in await events(job) if e.event_type == EventType.EVENT_TYPE_TIMER_STARTED]) == 1
    # What a callback says is not believed either.
    assert (await state(job)).phase == "queued"
    await callback(job, "succeeded")
    await job.result()
    assert len(stage.script.of("get_task")) == 1


async def test_without_callbacks_the_timer_looks(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=SHORT))
    stage.script.plan("get_task", waiting("queued", SHORT), waiting("running", SHORT), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    orders = [call.order for call in stage.script.of("get_task")]
    assert [(order.polls, order.announced) for order in orders] == [(0, False), (1, False), (2, False)]
    assert {
        e.source
        for e in detail_of(await state(job)).timeline
        if e.event == "status" and e.detail in {"queued", "running"}
    } == {"poll"}


async def test_the_interval_is_the_one_that_came_with_the_answer(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=90))
    stage.script.plan("get_task", *[waiting("running", seconds) for seconds in (15, 22.5, 300)], to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await job.result()
    started = [
        e.timer_started_event_attributes for e in await events(job) if e.HasField("timer_started_event_attributes")
    ]
    waits = [timer.start_to_fire_timeout.ToTimedelta().total_seconds() for timer in started]
    assert waits[:4] == [90, 15, 22.5, 300]


@pytest.mark.parametrize("first", ["callback", "timer"])
async def test_callback_and_timer_in_one_step_make_one_look(stage: Stage, first: str) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=1))
    finish(stage)
    job = await stage.start()
    await shows(job, phase="queued")
    await stage.stop("workflows")
    if first == "callback":
        await callback(job, "succeeded")
    await until(lambda: has_event(job, TIMER_FIRED), "the timer fires while no worker is there")
    if first == "timer":
        await callback(job, "succeeded")
    await stage.serve("workflows")
    assert await job.result() == RESULT
    assert [call.order.announced for call in stage.script.of("get_task")] == [True]


async def test_a_callback_just_before_the_time_is_over_needs_no_timer(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=5))
    finish(stage)
    job = await stage.start()
    await shows(job, phase="queued")
    await stage.stop("workflows")
    await callback(job, "succeeded")
    await stage.serve("workflows")
    await job.result()
    assert not await has_event(job, TIMER_FIRED)


async def test_a_callback_just_after_the_time_is_over_makes_one_more_look(stage: Stage) -> None:
    held = Held(waiting("running"))
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=SHORT))
    stage.script.plan("get_task", held)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "succeeded")
    held.let_go()
    assert await job.result() == RESULT
    assert [call.order.announced for call in stage.script.of("get_task")] == [False, True]


# Callbacks that come early


async def test_an_end_that_is_announced_before_the_create_is_answered_is_not_forgotten(stage: Stage) -> None:
    held = Held(None)

    async def create(order: Any) -> Any:
        await held(order)
        return await stage.created()(order)

    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", create)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "succeeded")
    held.let_go()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "store_video"]
    assert not await has_event(job, TIMER_FIRED)


async def test_a_beginning_that_is_announced_before_the_create_is_answered_is_no_reason_to_look(stage: Stage) -> None:
    held = Held(None)

    async def create(order: Any) -> Any:
        await held(order)
        return await stage.created()(order)

    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", create)
    finish(stage)
    job = await stage.start()
    await held.reached.wait()
    await callback(job, "queued")
    held.let_go()
    await shows(job, phase="queued")
    await callback(job, "running")
    await heard(job, "callback_received running")
    assert stage.script.names() == ["read_ledger", "create_task"]


async def test_a_callback_that_comes_with_the_start_is_not_forgotten(still: Stage) -> None:
    stage = still
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start(first_signal=TaskChanged(task_id=TASK, status="succeeded", attempt=1))
    await stage.serve("workflows", "ledger", "create", "get", "list", "transfer")
    assert await job.result() == RESULT
    assert [call.order.announced for call in stage.script.of("get_task")] == [True]


# Callbacks that name something else


async def test_a_callback_of_an_unknown_task_has_it_checked(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(attempt=2))
    stage.script.plan("get_task", waiting("running"), waiting("running", second_task=OTHER_TASK))
    stage.script.plan("identify_task", OURS)
    job = await stage.start()
    await shows(job, phase="running")
    await callback(job, "succeeded", OTHER_TASK, attempt=1)
    shown = await shows(job, attention="second_task")
    assert OTHER_TASK in (detail_of(shown).advice or "")
    order = stage.script.order("identify_task")
    assert (order.attempt, order.task_id) == (1, OTHER_TASK)
    # It is a note beside the story: the first task is still the one.
    assert (shown.task_id, shown.attempt, shown.phase) == (TASK, 2, "running")
    assert {call.order.task_id for call in stage.script.of("get_task")} == {TASK}


async def test_the_same_unknown_task_is_checked_once(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.always("get_task", waiting("running"))
    stage.script.plan("identify_task", OTHER)
    job = await stage.start()
    await shows(job, phase="running")
    await callback(job, "queued", OTHER_TASK)
    await stage.script.called("identify_task")
    await callback(job, "running", OTHER_TASK)
    await callback(job, "failed", OTHER_TASK)
    await heard(job, "callback_received failed")
    assert len(stage.script.of("identify_task")) == 1


async def test_a_look_can_show_a_second_task(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running", second_task=OTHER_TASK), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, attention="second_task", phase="running")
    await callback(job, "succeeded")
    await job.result()
    # Nothing that this job does settles it.
    assert (await state(job)).attention == "second_task"


# Callbacks that are nonsense


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
async def test_nonsense_stops_no_job(stage: Stage, odd: list[Any]) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running"))
    stage.script.always("identify_task", OTHER)
    stage.script.always("get_task", waiting("running"))
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="running")
    await job.signal(SIGNAL_TASK_CHANGED, args=odd)
    await asyncio.sleep(0.1)
    stage.script.always("get_task", to_store())
    await callback(job, "succeeded")
    assert await asyncio.wait_for(job.result(), 10) == RESULT
    # Nothing of it is copied into the history at length, or shown.
    assert len((await state(job)).model_dump_json()) < 20_000
    after = [event for event in await events(job) if not event.HasField("workflow_execution_signaled_event_attributes")]
    assert sum(event.ByteSize() for event in after) < 50_000


async def test_a_thousand_callbacks_cause_few_looks(stage: Stage) -> None:
    """A leaked callback URL costs the account's rate limit little."""
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.always("get_task", waiting("running"))
    stage.script.always("identify_task", OTHER)
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await shows(job, phase="running")
    for start in range(0, 1000, 100):
        numbers = range(start, start + 100)
        await asyncio.gather(
            *(
                callback(job, "succeeded", TASK if number % 2 else f"{OTHER_TASK}-{number}", attempt=number % 3)
                for number in numbers
            )
        )
    await until(lambda: _quiet(stage), "the job is quiet again")
    assert len(stage.script.of("identify_task")) <= policies.MOST_CALLBACKS
    assert len(stage.script.of("get_task")) <= policies.MOST_CALLBACKS + policies.MOST_FRUITLESS_CALLBACKS + 1
    shown = await state(job)
    assert len(detail_of(shown).timeline) <= 100
    assert shown.task_id == TASK


async def _quiet(stage: Stage) -> bool:
    before = len(stage.script.calls)
    await asyncio.sleep(0.5)
    return len(stage.script.calls) == before


async def test_after_many_fruitless_callbacks_the_timer_alone_is_followed(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    looks = policies.MOST_FRUITLESS_CALLBACKS
    stage.script.plan("get_task", *[waiting("running")] * looks, waiting("running", again=3), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    for number in range(looks):
        await stage.script.called("get_task", number + 1)
        await callback(job, "succeeded")
    await stage.script.called("get_task", looks + 1)
    for _ in range(5):
        await callback(job, "succeeded")
    assert len(stage.script.of("get_task")) == looks + 1
    assert await job.result() == RESULT
    assert len(stage.script.of("get_task")) == looks + 2
    assert await has_event(job, TIMER_FIRED)


# What a look shows


async def test_a_status_never_goes_back(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running", 0), waiting("queued"))
    job = await stage.start()
    shown = await shows(job, provider_status="queued")
    assert shown.phase == "running"
    assert noted(shown)[-2:] == ["status running", "status queued"]


async def test_an_unknown_status_is_shown_and_waited_on(stage: Stage) -> None:
    held = Held(to_store())
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("polishing", 0), waiting("polishing", 0), held)
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.phase, detail_of(shown).provider_status, shown.attention) == ("running", "polishing", None)
    assert [(e.event, e.detail, e.count) for e in detail_of(shown).timeline[-1:]] == [("status", "polishing", 2)]
    held.let_go()
    assert await job.result() == RESULT


@pytest.mark.parametrize("attention", ["task_gone", "credentials", "account"])
@pytest.mark.parametrize("then", [waiting("running"), to_store()], ids=["running", "succeeded"])
async def test_trouble_with_a_task_needs_a_person_until_it_is_mended(
    stage: Stage, attention: Attention, then: Any
) -> None:
    held = Held(then)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("", 0, attention=attention, note="the key is refused (401)"), held)
    stage.script.plan("store_video", Held(RESULT))
    job = await stage.start()
    await held.reached.wait()
    shown = await state(job)
    assert (shown.attention, shown.phase, shown.task_id) == (attention, "queued", TASK)
    assert "401" in (detail_of(shown).advice or "")
    held.let_go()
    shown = await shows(job, phase="running" if then.next == "wait" else "storing")
    assert (shown.attention, detail_of(shown).advice) == (None, None)
    assert f"attention_settled {attention}" in noted(shown)


async def test_a_look_that_is_not_answered_is_repeated(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", RuntimeError("503"), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [call.tries for call in stage.script.of("get_task")] == [1, 2]


async def test_a_video_that_is_stored_already_is_returned(stage: Stage) -> None:
    """A Reset brings a run back to before what it did."""
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running", 0), _stored())
    job = await stage.start()
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "get_task", "get_task"]


def _stored() -> Any:
    return to_store().model_copy(update={"next": "stored", "result": RESULT})


async def test_the_next_look_is_announced(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", waiting("running", 600))
    job = await stage.start()
    await shows(job, phase="running")
    shown = await state(job)
    assert (due := detail_of(shown).next_poll_at) is not None
    seen = next(entry for entry in detail_of(shown).timeline if entry.detail == "running")
    assert timedelta(seconds=599) < due - seen.at < timedelta(seconds=605)
