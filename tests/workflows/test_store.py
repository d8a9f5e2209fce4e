"""The copy: retried while the URL lives, with an Attention in time, and every loss reported."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.exceptions import ApplicationError

from activities.ledger import EndResult
from seedance_temporal.contract import SEEDANCE_ATTENTION, SEEDANCE_PHASE
from tests.support.jobs import detail_of, present
from tests.workflows.fakes import RESULT, TASK, Held, adopt, as_written, created, failure, stored, to_store
from tests.workflows.harness import Harness, noted
from workflows import policies

DAY = timedelta(days=1)


async def test_video_is_copied_and_returned(harness: Harness) -> None:
    held = Held(RESULT)
    harness.fake.create(created(seconds=0))
    harness.fake.plan("get_task", to_store(86_000))
    harness.fake.plan("store_video", held)
    job = await harness.start_until(held)
    shown = await job.until_state(phase="storing")
    # Nothing is asked of the provider any more.
    assert (shown.attention, shown.result, detail_of(shown).continues_at) == (None, None, None)
    held.release()
    assert await job.result() == RESULT
    input = harness.fake.input("store_video")
    assert (input.job_id, input.attempt, input.task_id, input.request.route) == (job.id, 1, TASK, harness.route)
    assert noted(input.timeline) == ["task_created 1", "status succeeded"]
    (event,) = await job.scheduled("store_video")
    assert event.schedule_to_close_timeout.ToTimedelta() == timedelta(seconds=86_000)
    # A worker that dies is noticed long before the try's time is over.
    assert timedelta(0) < event.heartbeat_timeout.ToTimedelta() <= timedelta(minutes=2)
    shown = await job.state()
    assert (shown.phase, shown.result, shown.task_id, detail_of(shown).continues_at) == ("stored", RESULT, TASK, None)
    assert noted(shown)[-2:] == ["status succeeded", "stored"]
    assert (await job.attributes()).get(SEEDANCE_PHASE) == "stored"


async def test_broken_copy_is_retried(harness: Harness) -> None:
    harness.fake.follow(to_store())
    harness.fake.plan("store_video", ApplicationError("reset by peer", type="DownloadFailed"), RESULT)
    await harness.start_until_stored()
    assert [call.tries for call in harness.fake.of("store_video")] == [1, 2]
    assert harness.fake.of("write_end") == []


async def test_long_failing_copy_is_at_risk_then_stored(skipping: Harness) -> None:
    skipping.fake.follow(to_store())
    skipping.fake.plan("store_video", *[ApplicationError("no bucket", type="StoreFailed")] * 30, RESULT)
    job = await skipping.start()
    await skipping.skip(50 * 60)
    assert (await job.state()).attention is None
    await skipping.skip(20 * 60)
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("storing", "video_at_risk")
    assert TASK in (detail_of(shown).advice or "")
    assert "The last failure: no bucket." in (detail_of(shown).advice or "")
    # 24 hours after the task succeeded, as get_task has reported.
    match = present(re.search(r"expires at about (\d{4}-\d\d-\d\d \d\d:\d\d) UTC", detail_of(shown).advice or ""))
    dies_at = datetime.strptime(match[1], "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
    assert abs(dies_at - (detail_of(shown).timeline[0].at + DAY)) < timedelta(minutes=2)
    assert await job.result() == RESULT
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("stored", None)
    assert "attention_settled video_at_risk" in noted(shown)


async def test_video_not_copied_in_time_is_lost(skipping: Harness) -> None:
    skipping.fake.follow(to_store(), attempt=2)
    skipping.fake.always("store_video", ApplicationError("the bucket is gone", type="StoreFailed"))
    skipping.fake.plan("write_end", as_written)
    job = await skipping.start()
    error = await job.failed()
    assert (error.failure_class, error.task_id, error.attempt) == ("lost", TASK, 2)
    assert error.resubmit_could_help
    assert "A paid video was lost" in error.message
    assert TASK in error.message
    input = skipping.fake.input("write_end")
    assert (input.error, input.usage, input.cost_usd) == (error, RESULT.usage, RESULT.cost_usd)
    # The whole day was used, and fewer than the URL's 100 downloads.
    assert 60 < len(skipping.fake.of("store_video")) < 95
    shown = await job.state()
    assert (shown.phase, shown.attention) == ("lost", None)
    timeline = skipping.fake.input("write_end").timeline
    assert timeline[-1].at - timeline[0].at < DAY


async def test_existing_end_beats_loss(skipping: Harness) -> None:
    standing = failure("expired")
    skipping.fake.follow(to_store())
    skipping.fake.always("store_video", ApplicationError("no"))
    skipping.fake.plan("write_end", EndResult(error=standing))
    assert await (await skipping.start()).failed() == standing


@pytest.mark.parametrize("within", [-90_000.0, 0.0, 1.0])
async def test_expired_url_is_tried_once(harness: Harness, within: float) -> None:
    """After a stopped clock, or an outage: a negative time-out would block the run for good."""
    harness.fake.follow(to_store(within))
    harness.fake.plan("store_video", RESULT)
    job = await harness.start_until_stored()
    (event,) = await job.scheduled("store_video")
    assert event.schedule_to_close_timeout.ToTimedelta() == policies.COPY_AT_LEAST


async def test_little_time_is_at_risk_sooner(skipping: Harness) -> None:
    skipping.fake.follow(to_store(0))
    skipping.fake.plan("store_video", *[ApplicationError("no")] * 8, RESULT)
    job = await skipping.start()
    await skipping.skip(policies.COPY_GRACE.total_seconds() / 2)
    assert (await job.state()).attention is None
    await skipping.skip(policies.COPY_GRACE.total_seconds())
    assert (await job.state()).attention == "video_at_risk"
    assert await job.result() == RESULT


async def test_old_finished_video_is_at_risk_at_once(skipping: Harness) -> None:
    """The hour counts from the success, and not from the poll that saw it."""
    skipping.fake.follow(to_store(18 * 3600))
    skipping.fake.plan("store_video", *[ApplicationError("no")] * 8, RESULT)
    job = await skipping.start_until_called("store_video")
    await skipping.skip(2 * policies.COPY_GRACE.total_seconds())
    assert (await job.state()).attention == "video_at_risk"
    assert await job.result() == RESULT


async def test_video_at_risk_is_searchable(unsandboxed: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "COPY_AT_RISK", timedelta(seconds=0.2))
    monkeypatch.setattr(policies, "COPY_GRACE", timedelta(seconds=0.2))
    job, copy = await unsandboxed.start_copying()
    shown = await job.until_state(attention="video_at_risk")
    assert "No try has failed so far" in (detail_of(shown).advice or "")
    assert (await job.attributes()).get(SEEDANCE_ATTENTION) == "video_at_risk"
    copy.release()
    await job.result()
    assert (await job.attributes()).get(SEEDANCE_ATTENTION) is None


# --- whether identifiers are listed ----------------------------------------------------------------------------------


async def test_first_stored_job_requests_listing(harness: Harness) -> None:
    """Recovery relies on listed identifiers, and only an account with a task of ours can show them."""
    harness.fake.plan("read_ledger", adopt(identifiers_listed=False))
    harness.fake.finish()
    harness.fake.plan("ask_lister", stored())
    job = await harness.start_until_stored()
    input = harness.fake.input("ask_lister")
    assert (input.job_id, input.attempt) == (job.id, None)


async def test_failing_lister_delays_no_stored_video(harness: Harness) -> None:
    harness.fake.plan("read_ledger", adopt(identifiers_listed=False))
    harness.fake.finish()
    harness.fake.always("ask_lister", ApplicationError("Temporal is busy"))
    job = await harness.start_until_stored()
    assert len(harness.fake.of("ask_lister")) == 2
    assert "lister_unavailable" in await job.noted()
