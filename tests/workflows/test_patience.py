"""A step that keeps failing is repeated, and after an hour says why and what to do; it goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from activities.limits import QuotaResult
from activities.poll import CancelResult
from seedance_temporal.job import Attention
from seedance_temporal.ledger.facts import Outcome
from tests.support.jobs import detail_of
from tests.workflows.conftest import QUEUES, hold_to_account
from tests.workflows.scripted import (
    RESULT,
    TASK,
    Handle,
    Stage,
    a_listing,
    as_written,
    ending,
    failed,
    failure,
    listed,
    noted,
    now,
    scheduled,
    shows,
    state,
    to_store,
    until,
)
from workflows import policies

DENIED = ApplicationError("403 the account may not read https://storage.example.com/x?signature=abc", type="Forbidden")
GATEWAY = ApplicationError("the provider gave no usable answer: HTTP 404", type="ProviderUnavailable")


@dataclass(frozen=True)
class Step:
    """A step that is repeated until it succeeds.

    Attributes:
        name: The activity.
        plan: Writes the script of everything before it, and after.
        good: Its answer in the end.
        error: What it fails with until then.
        attention: What is raised.
        stored: Whether the job then ends with its video.
    """

    name: str
    plan: Callable[[Stage], None]
    good: Any
    error: ApplicationError = DENIED
    attention: Attention = "storage"
    stored: bool = True


def _to_the_end(stage: Stage) -> None:
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)


def _look(stage: Stage) -> None:
    _to_the_end(stage)


def _limits(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim(limited=True))
    stage.script.plan("create_task", stage.created(again=0))
    _to_the_end(stage)


def _outcome(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.claim())
    stage.script.plan("create_task", stage.created(again=0, written=False))
    _to_the_end(stage)


def _ask(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.recover())
    _to_the_end(stage)


def _get(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.always("store_video", RESULT)


def _cancel(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", ending("cancelled", "cancelled"))
    stage.script.plan("write_end", as_written)


def _end(stage: Stage) -> None:
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", ending("failed", "provider"))


STEPS = [
    Step("read_ledger", _look, lambda stage: stage.adopt()),
    Step("reserve_quota", _limits, lambda _: QuotaResult()),
    Step("write_outcome", _outcome, lambda _: None),
    Step("ask_lister", _ask, lambda stage: stage.adopt()),
    Step("get_task", _get, lambda _: to_store()),
    Step("get_task", _get, lambda _: to_store(), GATEWAY, "provider"),
    Step(
        "cancel_task",
        _cancel,
        lambda _: CancelResult(outcome="cancelled", status="cancelled"),
        GATEWAY,
        "provider",
        stored=False,
    ),
    Step("write_end", _end, lambda _: as_written, stored=False),
]


# On the real server, an hour is this long.
HOUR = timedelta(seconds=4)


@pytest_asyncio.fixture(loop_scope="session")
async def hasty(
    temporal: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Stage]:
    """A route with all its workers, whose patience is short."""
    monkeypatch.setattr(policies, "PATIENCE", HOUR)
    stage = Stage(temporal, sandboxed=False)
    await stage.serve(*QUEUES)
    yield stage
    await stage.close()
    await hold_to_account(stage, caplog)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}, {step.attention}")
async def test_failing_step_raises_an_attention_and_goes_on(hasty: Stage, step: Step) -> None:
    stage = hasty
    step.plan(stage)
    stage.script.always(step.name, step.error)
    job = await stage.start()
    if step.name == "cancel_task":
        await job.cancel()
    await stage.script.called(step.name)
    assert (await state(job)).attention is None, "shorter outages pass by themselves"
    shown = await shows(job, attention=step.attention)
    assert step.error.message.partition("?")[0] in (detail_of(shown).advice or ""), "the last failure, in words"
    assert "signature" not in (detail_of(shown).advice or "")
    await stage.script.called(step.name, len(stage.script.of(step.name)) + 1)
    stage.script.always(step.name, step.good(stage))
    if step.stored:
        assert await job.result() == RESULT
    else:
        assert (await failed(job)).task_id == TASK
    shown = await state(job)
    assert shown.attention is None
    assert f"attention_settled {step.attention}" in noted(shown)


async def test_failing_absence_raises_an_attention(hasty: Stage) -> None:
    stage = hasty
    stage.script.plan("read_ledger", stage.recover())
    stage.script.always("ask_lister", stage.recover())
    stage.script.always("settle_absent", DENIED)
    job = await stage.start()
    await stage.script.called("ask_lister")
    for _ in range(2):
        await listed(job, a_listing())
    await shows(job, attention="storage")
    await job.terminate()


async def test_step_without_a_worker_raises_no_attention(hasty: Stage) -> None:
    """That none runs is an alert of its own; a job cannot tell, and its step did not fail."""
    stage = hasty
    stage.script.plan("read_ledger", stage.adopt())
    await stage.stop("get")
    job = await stage.start()
    await until(lambda: _scheduled_again(job), "an hour without a worker has passed")
    assert (await state(job)).attention is None
    await stage.serve("get")
    _to_the_end(stage)
    assert await job.result() == RESULT
    assert not [event for event in noted(await state(job)) if event.startswith("attention_raised")]


async def _scheduled_again(job: Handle) -> bool:
    return len(await scheduled(job, "get_task")) > 1


async def test_an_hour_of_failures_is_told(skipping: Stage) -> None:
    stage = skipping
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.always("get_task", GATEWAY)
    job = await stage.start()
    await stage.script.called("get_task", 2)
    await stage.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await state(job)).attention is None
    await stage.skip(policies.PATIENCE.total_seconds() * 0.3)
    assert (await state(job)).attention == "provider"
    stage.script.always("get_task", to_store())
    stage.script.always("store_video", RESULT)
    assert await job.result() == RESULT


async def test_object_in_the_way_is_told_at_once_and_tried_again(skipping: Stage) -> None:
    stage = skipping
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store())
    stage.script.plan("store_video", *[conflict] * 20, RESULT)
    job = await stage.start()
    await stage.script.called("store_video")
    await stage.skip(1)
    shown = await state(job)
    assert shown.attention == "object_conflict"
    assert "gs://videos/a/output.mp4" in (detail_of(shown).advice or "")
    await stage.skip(2 * policies.COPY_AT_RISK.total_seconds())
    assert (await state(job)).attention == "object_conflict", "it says more than that the video is at risk"
    assert await job.result() == RESULT
    assert (await state(job)).attention is None


async def test_object_in_the_way_to_the_end_loses_the_video_in_words(skipping: Stage) -> None:
    stage = skipping
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store(within=3600))
    stage.script.always("store_video", conflict)
    stage.script.plan("write_end", as_written)
    error = await failed(await stage.start())
    assert (error.failure_class, error.task_id) == ("lost", TASK)
    assert "gs://videos/a/output.mp4" in error.message
    assert failure("lost").failure_class == error.failure_class


async def test_copy_after_a_pause_without_workers_gets_a_try(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative time-out would block the run for good."""
    stage = Stage(temporal, sandboxed=False)
    monkeypatch.setattr(policies, "COPY_AT_LEAST", timedelta(seconds=6))
    monkeypatch.setattr(policies, "CONFLICT_PAUSE", timedelta(seconds=2))
    await stage.serve("workflows", "ledger", "get", "transfer")
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    stage.script.plan("read_ledger", stage.adopt())
    stage.script.plan("get_task", to_store(within=6))
    stage.script.plan("store_video", conflict, RESULT)
    job = await stage.start()
    await shows(job, attention="object_conflict")
    await stage.stop("workflows")
    await asyncio.sleep(7)  # the URL dies, by the server's clock
    await stage.serve("workflows")
    assert await job.result() == RESULT
    await stage.close()
    await stage.replay()


@pytest.mark.parametrize(("code", "attention"), [("not_connected", "provider"), ("bucket_unreachable", "storage")])
async def test_create_that_never_leaves_is_told(skipping: Stage, code: str, attention: str) -> None:
    stage = skipping
    outcome = Outcome(kind="not_sent", source="create", at=now(), code=code, message="no")
    stage.script.always("read_ledger", stage.claim())
    stage.script.always("create_task", stage.report("not_sent", outcome, 900, message=f"{code}: no"))
    job = await stage.start()
    await stage.script.called("create_task")
    await stage.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await state(job)).attention is None
    await stage.skip(policies.PATIENCE.total_seconds() * 0.6)
    shown = await state(job)
    assert shown.attention == attention
    assert code in (detail_of(shown).advice or "")
    stage.script.always("create_task", stage.created(again=0))
    _to_the_end(stage)
    assert await job.result() == RESULT
    assert (await state(job)).attention is None
