"""The state query, and the search attributes that the namespace has."""

from __future__ import annotations

from collections import Counter
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
from tests.support.jobs import detail_of, present
from tests.support.polling import until
from tests.workflows.fakes import (
    RESULT,
    TASK,
    Held,
    adopt,
    claim,
    create_result,
    created,
    ended,
    ending,
    failure,
    not_sent,
    stored,
    to_store,
    waiting,
)
from tests.workflows.harness import Harness

UPSERT = EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES


async def test_phases_follow_steps(harness: Harness) -> None:
    read, create, copy = Held(claim()), Held(None), Held(RESULT)
    find, get = Held(adopt()), Held(waiting("running"))

    async def creating(input: Any) -> Any:
        await create(input)
        return await create_result("unknown")(input)

    harness.fake.plan("read_ledger", read)
    harness.fake.plan("create_task", creating)
    harness.fake.plan("ask_lister", find)
    harness.fake.plan("get_task", get, to_store())
    harness.fake.plan("store_video", copy)
    job = await harness.start()
    seen = []
    for held in (read, create, find, get):
        await held.reached.wait()
        seen.append((await job.state()).phase)
        held.release()
    seen.append((await job.until_state(phase="running")).phase)
    await job.callback("succeeded")
    await copy.reached.wait()
    seen.append((await job.state()).phase)
    copy.release()
    await job.result()
    seen.append((await job.state()).phase)
    assert seen == ["checking", "creating", "recovering", "queued", "running", "storing", "stored"]


async def test_list_shows_attempt_and_estimate_without_worker(harness: Harness) -> None:
    estimate = {"estimated_tokens": 40_000, "estimated_usd": 0.14}
    harness.fake.plan("read_ledger", claim(1, **estimate), claim(2, **estimate))
    harness.fake.plan("create_task", created("cgt-1", seconds=0), created(TASK, seconds=0))
    harness.fake.plan("get_task", ending("expired", "expired"), to_store())
    harness.fake.plan("write_end", EndResult(error=failure("expired"), continues=True))
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    assert await (await job.describe()).memo() == estimate | {"attempt": 2}
    modified = EventType.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED
    assert sum(event.event_type == modified for event in await job.events()) == 3, (
        "once for each change, not for each poll"
    )


async def test_state_has_contract_shape(harness: Harness) -> None:
    harness.fake.create(created(seconds=600), attempt=3)
    job = await harness.start()
    shown = await job.until_state(phase="queued")
    assert (shown.job_id, shown.request_hash) == (job.id, hash_of_job(job.id))
    assert (shown.task_id, shown.attempt, detail_of(shown).request.route) == (TASK, 3, harness.route)
    assert (shown.result, shown.error, shown.attention, detail_of(shown).advice, detail_of(shown).provider_status) == (
        None,
    ) * 5
    first = detail_of(shown).timeline[0]
    assert (first.event, first.source, first.task_id, first.attempt) == ("task_created", "create", TASK, 3)
    assert (first.detail, first.count) == (None, 1)
    assert detail_of(shown).continues_at == first.at + timedelta(seconds=600)
    raw = await job.query(QUERY_STATE)
    assert set(raw) == set(type(shown).model_fields)


async def test_error_has_contract_names(harness: Harness) -> None:
    harness.fake.plan("read_ledger", ended(failure("expired")))
    job = await harness.start_until_failed()
    raw = await job.query(QUERY_STATE)
    assert raw["error"]["class"] == "expired"


async def test_timeline_keeps_first_and_newest_entries(harness: Harness) -> None:
    job = await harness.start_queued()
    for number in range(150):
        await job.callback(f"step {number}")

    async def bounded() -> bool:
        return (await job.noted())[-1] == "callback_received step 149"

    await until(bounded, "all callbacks are noted")
    timeline = await job.noted()
    assert len(timeline) == 100
    assert timeline[:3] == ["task_created 1", "callback_received step 0", "callback_received step 1"]
    assert timeline[-2:] == ["callback_received step 148", "callback_received step 149"]


async def test_repeated_status_is_counted(harness: Harness) -> None:
    harness.fake.follow(*[waiting("running", 0)] * 25, waiting("running"))
    job = await harness.start()
    await harness.fake.called("get_task", 26)

    async def all_seen() -> bool:
        return (await job.detail()).timeline[-1].count == 26

    await until(all_seen, "all polls are counted")
    assert (await job.noted()) == ["status running"]


async def test_search_attributes_describe_job(harness: Harness) -> None:
    harness.fake.not_ready(waiting("running", 0, second_task="cgt-second"), to_store())
    copy = Held(RESULT)
    harness.fake.plan("store_video", copy)
    job = await harness.start_queued()
    found = await job.attributes()
    given = (await job.detail()).request
    assert [found.get(key) for key in (SEEDANCE_USER, SEEDANCE_ROUTE, SEEDANCE_MODEL)] == [
        given.user_id,
        harness.route,
        given.model,
    ]
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TASK_ID)) == ("queued", TASK)
    assert [found.get(key) for key in (SEEDANCE_ATTENTION, SEEDANCE_TOKENS, SEEDANCE_COST_USD)] == [None] * 3
    await job.callback("succeeded")
    await copy.reached.wait()
    found = await job.attributes()
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_ATTENTION)) == ("storing", "second_task")
    copy.release()
    await job.result()
    found = await job.attributes()
    assert (found.get(SEEDANCE_PHASE), found.get(SEEDANCE_TOKENS), found.get(SEEDANCE_COST_USD)) == ("stored", 42, 0.5)


async def test_stored_task_is_searchable(harness: Harness) -> None:
    harness.fake.plan("read_ledger", stored())
    job = await harness.start_until_stored()
    assert (await job.attributes()).get(SEEDANCE_TASK_ID) == TASK


async def test_no_attributes_without_registration(harness: Harness) -> None:
    """An upsert of one that is not registered would leave the run stuck for good."""
    harness.fake.search_attributes = ()
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", not_sent(attention="account"), created(seconds=0))
    harness.fake.plan("get_task", waiting("running", 0, second_task="x"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    assert not await job.has_event(UPSERT)


@pytest.mark.parametrize("known", ["SeedanceRoute", "SeedancePhase", "SeedanceAttention", "SeedanceCostUsd"])
async def test_only_known_attributes_are_set(harness: Harness, known: str) -> None:
    harness.fake.search_attributes = (known,)
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", not_sent(seconds=0, attention="account"), created(seconds=0))
    harness.fake.finish()
    job = await harness.start_until_stored()
    set_by_us = {
        name
        for event in await job.events()
        if event.event_type == UPSERT
        for name in event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    }
    assert set_by_us == {known}


async def test_long_keyword_does_not_end_a_run(harness: Harness) -> None:
    """The server ends a run with a keyword of more than 2,048 bytes of JSON; an emoji has twelve."""
    task_id = "\N{CLAPPER BOARD}" * 250
    harness.fake.plan("read_ledger", adopt(task_id))
    harness.fake.finish()
    job = await harness.start_until_stored(user_id="\N{CLAPPER BOARD}" * 255)
    shown = present((await job.attributes()).get(SEEDANCE_USER))
    assert set(shown) == {"\N{CLAPPER BOARD}"}


async def test_keyword_has_no_nul(harness: Harness) -> None:
    """PostgreSQL, in which a server may keep its lists, refuses one; the dev server's SQLite does not."""
    harness.fake.plan("read_ledger", adopt("cgt\0-1"))
    harness.fake.plan("get_task", waiting("running"))
    job = await harness.start()
    await job.until_state(phase="running")
    assert (await job.attributes()).get(SEEDANCE_TASK_ID) == "cgt\ufffd-1"


# What Temporal Cloud counts as an action, and a change of the memo, of which its pages say nothing.
BILLED = (
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_EXECUTION_SIGNALED",
    "ACTIVITY_TASK_STARTED",
    "TIMER_STARTED",
    "UPSERT_WORKFLOW_SEARCH_ATTRIBUTES",
    "WORKFLOW_PROPERTIES_MODIFIED",
)


async def test_usual_job_has_few_events(harness: Harness) -> None:
    """Each event is stored, and many are billed on Temporal Cloud."""
    harness.fake.create(created(seconds=600), identifiers_listed=True)
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await job.until_state(phase="queued")
    await job.callback("succeeded")
    assert await job.result() == RESULT
    kinds = Counter(EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in await job.events())
    assert kinds.total() <= 34, kinds
    assert sum(kinds[kind] for kind in BILLED) <= 11, kinds
