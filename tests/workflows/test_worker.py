"""Workers come and go, and forget what they cached: the story goes on where it was."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from tests.support.jobs import detail_of
from tests.workflows.scripted import RESULT, Held, Stage, callback, shows, to_store, waiting


async def test_a_worker_that_caches_nothing_tells_the_whole_story(still: Stage) -> None:
    """Each workflow task replays the run from its beginning, and evicts it afterwards."""
    stage = still
    stage.cached = 0
    await stage.serve("workflows", "ledger", "create", "get", "list", "transfer")
    stage.script.plan("read_ledger", stage.claim(1), stage.claim(2))
    stage.script.plan("create_task", stage.not_sent(again=0, written=False), stage.created(written=False))
    stage.script.plan("write_outcome", None, None)
    stage.script.plan("get_task", waiting("running"), to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    await stage.script.called("write_outcome", 2)
    await callback(job, "succeeded")
    await stage.script.called("get_task")
    await callback(job, "succeeded")
    assert await job.result() == RESULT


async def test_a_stopping_worker_drops_its_runs_quietly(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine that awaits while it is thrown away could wake up in the event loop of another run."""
    complaints: list[Any] = []
    held = Held(waiting())
    stage.script.plan("read_ledger", stage.adopt(), Held(stage.claim()))
    stage.script.plan("get_task", held)
    await stage.start()
    await stage.start(take=2)
    await held.reached.wait()
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    await stage.stop("workflows")
    gc.collect()
    assert [complaint.exc_value for complaint in complaints] == []


async def test_another_worker_goes_on_where_one_stopped(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", RESULT)
    job = await stage.start()
    before = await shows(job, phase="queued")
    await stage.stop("workflows")
    await callback(job, "succeeded")
    await stage.serve("workflows")
    assert await job.result() == RESULT
    assert stage.script.names() == ["read_ledger", "create_task", "get_task", "store_video"]
    assert (
        detail_of(before).timeline
        == detail_of(await shows(job, phase="stored")).timeline[: len(detail_of(before).timeline)]
    )
