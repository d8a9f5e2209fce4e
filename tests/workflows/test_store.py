"""The copy: retried while the URL lives, a person called in time, and no loss kept quiet."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.ledger import EndResult
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_PHASE
from tests.support.jobs import detail_of
from tests.workflows.scripted import (
    RESULT,
    TASK,
    Held,
    Stage,
    as_written,
    failed,
    failure,
    noted,
    scheduled,
    shows,
    state,
    to_store,
)
from workflows import policies

DAY = timedelta(days=1)


async def test_a_video_is_copied_and_told(stage: Stage) -> None:
    held = Held(RESULT)
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0))
    stage.script.plan("get_task", to_store(86_000))
    stage.script.plan("store_video", held)
    job = await stage.start()
    await held.reached.wait()
    shown = await shows(job, phase="storing")
    # Nothing is asked of the provider any more.
    assert (shown.attention, shown.result, detail_of(shown).next_poll_at) == (None, None, None)
    held.let_go()
    assert await job.result() == RESULT
    order = stage.script.order("store_video")
    assert (order.job_id, order.attempt, order.task_id, order.request.route) == (job.id, 1, TASK, stage.route)
    assert noted(order.timeline) == ["task_created 1", "status succeeded"]
    (event,) = await scheduled(job, "store_video")
    assert event.schedule_to_close_timeout.ToTimedelta() == timedelta(seconds=86_000)
    # A worker that dies is noticed long before the try's time is over.
    assert timedelta(0) < event.heartbeat_timeout.ToTimedelta() <= timedelta(minutes=2)
    shown = await state(job)
    assert (shown.phase, shown.result, shown.task_id, detail_of(shown).next_poll_at) == ("stored", RESULT, TASK, None)
    assert noted(shown)[-2:] == ["status succeeded", "stored"]
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_PHASE) == "stored"


async def test_a_broken_copy_is_tried_again(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", ApplicationError("reset by peer", type="DownloadFailed"), RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    assert [call.tries for call in stage.script.of("store_video")] == [1, 2]
    assert stage.script.of("write_end") == []


async def test_a_copy_that_fails_for_long_is_at_risk_and_then_safe(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", *[ApplicationError("no bucket", type="StoreFailed")] * 30, RESULT)
    job = await stage.start()
    await stage.skip(50 * 60)
    assert (await state(job)).attention is None
    await stage.skip(20 * 60)
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("storing", "video_at_risk")
    assert TASK in (detail_of(shown).advice or "")
    # 24 hours after the task succeeded, as get_task has said.
    told = re.search(r"expires at about (\d{4}-\d\d-\d\d \d\d:\d\d) UTC", detail_of(shown).advice or "")
    assert told is not None
    dies_at = datetime.strptime(told[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(dies_at - (detail_of(shown).timeline[0].at + DAY)) < timedelta(minutes=2)
    assert await job.result() == RESULT
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("stored", None)
    assert "attention_settled video_at_risk" in noted(shown)


async def test_a_video_that_could_not_be_copied_in_time_is_lost_and_that_is_said(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt(attempt=2))
    stage.script.plan("get_task", to_store())
    stage.script.always("store_video", ApplicationError("the bucket is gone", type="StoreFailed"))
    stage.script.plan("write_end", as_written)
    job = await stage.start()
    error = await failed(job)
    assert (error.failure_class, error.task_id, error.attempt) == ("lost", TASK, 2)
    assert error.resubmit_could_help
    assert "A paid video was lost" in error.message
    assert TASK in error.message
    order = stage.script.order("write_end")
    assert (order.error, order.usage, order.cost_usd) == (error, RESULT.usage, RESULT.cost_usd)
    # The whole day was used, and the URL's 100 downloads were not.
    assert 60 < len(stage.script.of("store_video")) < 95
    shown = await state(job)
    assert (shown.phase, shown.attention) == ("lost", None)
    timeline = stage.script.order("write_end").timeline
    assert timeline[-1].at - timeline[0].at < DAY


async def test_the_end_that_stands_wins_over_a_loss(skipping: Stage) -> None:
    stage = skipping
    standing = failure("expired")
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.always("store_video", ApplicationError("no"))
    stage.script.plan("write_end", EndResult(error=standing))
    assert await failed(await stage.start()) == standing


@pytest.mark.parametrize("within", [-90_000.0, 0.0, 1.0])
async def test_a_url_that_should_be_dead_is_tried_all_the_same(stage: Stage, within: float) -> None:
    """A clock that stood still, or an outage: a negative time-out would leave the run stuck for good."""
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store(within))
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    assert await job.result() == RESULT
    (event,) = await scheduled(job, "store_video")
    assert event.schedule_to_close_timeout.ToTimedelta() == policies.COPY_AT_LEAST


async def test_little_time_is_at_risk_sooner(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store(0))
    stage.script.plan("store_video", *[ApplicationError("no")] * 8, RESULT)
    job = await stage.start()
    await stage.skip(policies.COPY_GRACE.total_seconds() / 2)
    assert (await state(job)).attention is None
    await stage.skip(policies.COPY_GRACE.total_seconds())
    assert (await state(job)).attention == "video_at_risk"
    assert await job.result() == RESULT


async def test_video_that_was_ready_for_hours_is_at_risk_at_once(skipping: Stage) -> None:
    """The hour counts from the success, and not from when a worker noticed it."""
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store(18 * 3600))
    stage.script.plan("store_video", *[ApplicationError("no")] * 8, RESULT)
    job = await stage.start()
    await stage.script.called("store_video")
    await stage.skip(2 * policies.COPY_GRACE.total_seconds())
    assert (await state(job)).attention == "video_at_risk"
    assert await job.result() == RESULT


async def test_a_video_at_risk_is_searchable(still: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = still
    stage.sandboxed = False
    monkeypatch.setattr(policies, "COPY_AT_RISK", timedelta(seconds=0.2))
    monkeypatch.setattr(policies, "COPY_GRACE", timedelta(seconds=0.2))
    await stage.serve("workflows", "ledger", "get", "transfer")
    held = Held(RESULT)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", held)
    job = await stage.start()
    await shows(job, attention="video_at_risk")
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) == "video_at_risk"
    held.let_go()
    await job.result()
    assert (await job.describe()).typed_search_attributes.get(SEEDANCE_ATTENTION) is None


# --- whether identifiers are listed ----------------------------------------------------------------------------------


async def test_the_first_job_that_is_stored_has_the_listing_looked_at_once(stage: Stage) -> None:
    """Recovery relies on what LIST shows, and only an account with a task of ours can tell."""
    stage.script.plan("read_ledger", stage.adopt(identifiers_listed=False))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    stage.script.plan("ask_lister", stage.stored())
    job = await stage.start()
    assert await job.result() == RESULT
    order = stage.script.order("ask_lister")
    assert (order.job_id, order.attempt) == (job.id, None)


async def test_a_lister_that_cannot_be_asked_keeps_no_video_from_its_owner(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt(identifiers_listed=False))
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    stage.script.always("ask_lister", ApplicationError("Temporal is busy"))
    job = await stage.start()
    assert await job.result() == RESULT
    assert len(stage.script.of("ask_lister")) == 2
    assert "lister_unavailable" in noted(await state(job))
