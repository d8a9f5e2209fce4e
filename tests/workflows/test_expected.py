"""When the provider should have the video: shown while a task is waited for, and renewed by polls."""

from __future__ import annotations

from datetime import UTC, datetime

from seedance_temporal.contract import MEMO_EXPECTED_AT
from tests.workflows.fakes import (
    RESULT,
    TASK,
    Held,
    and_again,
    claim,
    created,
    ending,
    waiting,
)
from tests.workflows.harness import Harness

EARLY, LATE = (datetime(2030, 1, 1, 12, minute, tzinfo=UTC) for minute in (2, 5))


async def test_estimate_is_shown_until_video_is_made(harness: Harness) -> None:
    copy = Held(RESULT)
    harness.fake.create(created(expected_at=EARLY))
    harness.fake.not_ready(waiting("running", expected_at=LATE))
    harness.fake.plan("store_video", copy)
    job = await harness.start()
    await job.until_state(phase="queued", expected_at=EARLY)
    assert "- **expected**: 2030-01-01 12:02:00 UTC, an estimate" in await job.current_details()
    await job.callback("succeeded")
    await job.until_state(phase="running", expected_at=LATE)
    await job.callback("succeeded")
    await copy.reached.wait()
    assert (await job.state()).expected_at is None
    assert "expected" not in (await job.current_details()).replace("(expected", "")
    copy.release()
    await job.result()
    assert (await job.state()).expected_at is None


async def test_list_shows_estimate_of_newest_create(harness: Harness) -> None:
    """It is written with the attempt, so it costs no event of its own; without one, the old one goes."""
    second = Held(created(TASK))
    harness.fake.plan("read_ledger", claim(1), claim(2))
    harness.fake.plan("create_task", created("cgt-1", seconds=0, expected_at=EARLY), second)
    harness.fake.plan("get_task", ending("expired", "expired"))
    harness.fake.plan("write_end", and_again)
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await second.reached.wait()
    assert (await (await job.describe()).memo())[MEMO_EXPECTED_AT] == EARLY.isoformat()
    second.release()
    await job.until_state(phase="queued")
    await job.callback("succeeded")
    await job.result()
    assert (await (await job.describe()).memo()).get(MEMO_EXPECTED_AT) is None
