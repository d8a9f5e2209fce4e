"""Workers stop, start and lose their cache: the job goes on where it was."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from tests.support.jobs import detail_of
from tests.workflows.fakes import RESULT, Held, adopt, claim, created, not_sent, waiting
from tests.workflows.harness import Harness


async def test_worker_without_cache_finishes_job(idle: Harness) -> None:
    """Each workflow task replays the run from its beginning, and evicts it afterwards."""
    idle.cached = 0
    await idle.start_workers()
    idle.fake.plan("read_ledger", claim(1), claim(2))
    idle.fake.plan("create_task", not_sent(seconds=0, written=False), created(written=False))
    idle.fake.plan("write_outcome", None, None)
    idle.fake.not_ready(waiting("running"))
    idle.fake.plan("store_video", RESULT)
    job = await idle.start()
    await idle.fake.called("write_outcome", 2)
    await job.callback("succeeded")
    await idle.fake.called("get_task")
    await job.callback("succeeded")
    assert await job.result() == RESULT


async def test_stopping_worker_logs_no_error(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended coroutine that is garbage-collected could wake up in the event loop of another run."""
    complaints: list[Any] = []
    held = Held(waiting())
    harness.fake.plan("read_ledger", adopt(), Held(claim()))
    harness.fake.plan("get_task", held)
    await harness.start()
    await harness.start(take=2)
    await held.reached.wait()
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    await harness.stop("workflows")
    gc.collect()
    assert [complaint.exc_value for complaint in complaints] == []


async def test_other_worker_continues_job(harness: Harness) -> None:
    harness.fake.create(created())
    harness.fake.finish()
    job = await harness.start()
    before = await job.until_state(phase="queued")
    await harness.stop("workflows")
    await job.callback("succeeded")
    await harness.start_workers("workflows")
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "create_task", "store_video"]
    assert (
        detail_of(before).timeline
        == detail_of(await job.until_state(phase="stored")).timeline[: len(detail_of(before).timeline)]
    )
