"""Workers stop, start and lose their cache: the job goes on where it was."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from tests.support.jobs import detail_of
from tests.workflows.scripted import RESULT, Harness, Held, callback, to_store, until_state, waiting


async def test_worker_without_cache_finishes_job(idle: Harness) -> None:
    """Each workflow task replays the run from its beginning, and evicts it afterwards."""
    harness = idle
    harness.cached = 0
    await harness.start_workers("workflows", "ledger", "create", "get", "list", "transfer")
    harness.fake.plan("read_ledger", harness.claim(1), harness.claim(2))
    harness.fake.plan("create_task", harness.not_sent(seconds=0, written=False), harness.created(written=False))
    harness.fake.plan("write_outcome", None, None)
    harness.fake.plan("get_task", waiting("running"), to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    await harness.fake.called("write_outcome", 2)
    await callback(job, "succeeded")
    await harness.fake.called("get_task")
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_stopping_worker_logs_no_error(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended coroutine that is garbage-collected could wake up in the event loop of another run."""
    complaints: list[Any] = []
    held = Held(waiting())
    harness.fake.plan("read_ledger", harness.adopt(), Held(harness.claim()))
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
    harness.fake.plan("read_ledger", harness.claim())
    harness.fake.plan("create_task", harness.created())
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", RESULT)
    job = await harness.start()
    before = await until_state(job, phase="queued")
    await harness.stop("workflows")
    await callback(job, "succeeded")
    await harness.start_workers("workflows")
    assert await job.result() == RESULT
    assert harness.fake.names() == ["read_ledger", "create_task", "get_task", "store_video"]
    assert (
        detail_of(before).timeline
        == detail_of(await until_state(job, phase="stored")).timeline[: len(detail_of(before).timeline)]
    )
