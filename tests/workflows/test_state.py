"""The state query, and the search attributes that the namespace has."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType

from activities.ledger import EndResult
from seedance_temporal.contract import (
    QUERY_STATE,
    SEEDANCE_ATTENTION,
    SEEDANCE_COST_USD,
    SEEDANCE_MODEL,
    SEEDANCE_PHASE,
    SEEDANCE_ROUTE,
    SEEDANCE_TASK_ID,
    SEEDANCE_TOKENS,
    SEEDANCE_USER,
)
from seedance_temporal.identity import hash_of_job
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    RESULT,
    TASK,
    Held,
    Stage,
    callback,
    ending,
    events,
    failed,
    failure,
    has_event,
    noted,
    shows,
    state,
    to_store,
    until,
    waiting,
)

UPSERT = EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES


async def test_phases_follow_the_job(stage: Stage) -> None:
    look, create, copy = Held(stage.claim()), Held(None), Held(RESULT)
    find, get = Held(stage.adopt()), Held(waiting("running"))

    async def creating(order: Any) -> Any:
        await create(order)
        return await stage.report("unknown", None)(order)

    stage.script.plan("read_ledger", look)
    stage.script.plan("create_task", creating)
    stage.script.plan("ask_lister", find)
    stage.script.plan("get_task", get, to_store())
    stage.script.plan("store_video", copy)
    job = await stage.start()
    seen = []
    for held in (look, create, find, get):
        await held.reached.wait()
        seen.append((await state(job)).phase)
        held.let_go()
    seen.append((await shows(job, phase="running")).phase)
    await callback(job, "succeeded")
    await copy.reached.wait()
    seen.append((await state(job)).phase)
    copy.let_go()
    await job.result()
    seen.append((await state(job)).phase)
    assert seen == ["checking", "creating", "recovering", "queued", "running", "storing", "stored"]


async def test_list_shows_attempt_and_estimate_without_worker(stage: Stage) -> None:
    estimate = {"estimated_tokens": 40_000, "estimated_usd": 0.14}
    stage.script.plan("read_ledger", stage.claim(1, **estimate), stage.claim(2, **estimate))
    stage.script.plan("create_task", stage.created("cgt-1", again=0), stage.created(TASK, again=0))
    stage.script.plan("get_task", ending("expired", "expired"), to_store())
    stage.script.plan("write_end", EndResult(error=failure("expired"), continues=True))
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await job.result()
    assert await (await job.describe()).memo() == estimate | {"attempt": 2}
    modified = EventType.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED
    assert sum(event.event_type == modified for event in await events(job)) == 3, (
        "once for each news, not for each look"
    )


async def test_state_has_the_fields_of_the_contract(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(3))
    stage.script.plan("create_task", stage.created(again=600))
    job = await stage.start()
    shown = await shows(job, phase="queued")
    assert (shown.job_id, shown.request_hash) == (job.id, hash_of_job(job.id))
    assert (shown.task_id, shown.attempt, detail_of(shown).request.route) == (TASK, 3, stage.route)
    assert (shown.result, shown.error, shown.attention, detail_of(shown).advice, detail_of(shown).provider_status) == (
        None,
    ) * 5
    created = detail_of(shown).timeline[0]
    assert (created.event, created.source, created.task_id, created.attempt) == ("task_created", "create", TASK, 3)
    assert (created.detail, created.count) == (None, 1)
    assert detail_of(shown).next_poll_at == created.at + timedelta(seconds=600)
    raw = await job.query(QUERY_STATE)
    assert set(raw) == set(type(shown).model_fields)


async def test_error_has_the_fields_of_the_contract(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.ended(failure("expired")))
    job = await stage.start()
    await failed(job)
    raw = await job.query(QUERY_STATE)
    assert raw["error"]["class"] == "expired"


async def test_timeline_keeps_first_and_newest_events(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    job = await stage.start()
    await shows(job, phase="queued")
    for number in range(150):
        await callback(job, f"step {number}")

    async def bounded() -> bool:
        return noted(await state(job))[-1] == "callback_received step 149"

    await until(bounded, "all callbacks are heard")
    told = noted(await state(job))
    assert len(told) == 100
    assert told[:3] == ["task_created 1", "callback_received step 0", "callback_received step 1"]
    assert told[-2:] == ["callback_received step 148", "callback_received step 149"]


async def test_repeated_event_is_counted(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", *[waiting("running", 0)] * 25, waiting("running"))
    job = await stage.start()
    await stage.script.called("get_task", 26)

    async def all_seen() -> bool:
        return detail_of(await state(job)).timeline[-1].count == 26

    await until(all_seen, "all looks are counted")
    assert noted(await state(job)) == ["status running"]


async def test_search_attributes_show_the_job(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    stage.script.plan("get_task", waiting("running", 0, second_task="cgt-second"), to_store())
    copy = Held(RESULT)
    stage.script.plan("store_video", copy)
    job = await stage.start()
    await shows(job, phase="queued")
    found = (await job.describe()).typed_search_attributes
    given = detail_of(await state(job)).request
    assert [found.get(key) for key in (SEEDANCE_USER, SEEDANCE_ROUTE, SEEDANCE_MODEL)] == [
        given.user_id,
        stage.route,
        given.model,
    ]
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("queued", TASK)
    assert [found.get(key) for key in (SEEDANCE_ATTENTION, SEEDANCE_TOKENS, SEEDANCE_COST_USD)] == [None] * 3
    await callback(job, "succeeded")
    await copy.reached.wait()
    found = (await job.describe()).typed_search_attributes
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_ATTENTION)) == ("storing", "second_task")
    copy.let_go()
    await job.result()
    found = (await job.describe()).typed_search_attributes
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TOKENS), found.get(SEEDANCE_COST_USD)) == ("stored", 42, 0.5)


async def test_stored_task_is_searchable(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.stored())
    job = await stage.start()
    await job.result()
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_TASK_ID) == TASK


async def test_namespace_without_search_attributes_gets_none(stage: Stage) -> None:
    """An upsert of one that is not registered would leave the run stuck for good."""
    stage.search_attributes = ()
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2))
    stage.script.plan("create_task", stage.not_sent(attention="account"), stage.created(again=0))
    stage.script.plan("get_task", waiting("running", 0, second_task="x"), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    assert not await has_event(job, UPSERT)


@pytest.mark.parametrize("known", ["SeedanceRoute", "SeedancePhase", "SeedanceAttention", "SeedanceCostUsd"])
async def test_only_registered_search_attributes_are_set(stage: Stage, known: str) -> None:
    stage.search_attributes = (known,)
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2))
    stage.script.plan("create_task", stage.not_sent(again=0, attention="account"), stage.created(again=0))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await job.result()
    set_by_us = {
        name
        for event in await events(job)
        if event.event_type == UPSERT
        for name in event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    }
    assert set_by_us == {known}


async def test_long_keyword_does_not_end_a_run(stage: Stage) -> None:
    """The server ends a run over a keyword of more than 2,048 bytes of JSON; an emoji has twelve."""
    task_id = "\N{CLAPPER BOARD}" * 250
    stage.script.plan("read_ledger", stage.adopt(task_id))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start(user_id="\N{CLAPPER BOARD}" * 255)
    assert await job.result() == RESULT
    shown = (await job.describe()).typed_search_attributes.get(SEEDANCE_USER)
    assert shown is not None
    assert set(shown) == {"\N{CLAPPER BOARD}"}
