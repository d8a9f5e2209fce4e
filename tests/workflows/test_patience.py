"""A step that keeps failing raises an Attention after an hour, with reason and advice; the job goes on by itself."""

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
from tests.workflows.conftest import QUEUES, check_harness
from tests.workflows.scripted import (
    RESULT,
    TASK,
    Handle,
    Harness,
    a_listing,
    as_written,
    ending,
    failed,
    failure,
    listed,
    noted,
    now,
    scheduled,
    state,
    to_store,
    until,
    until_state,
)
from workflows import policies

DENIED = ApplicationError("403 the account may not read https://storage.example.com/x?signature=abc", type="Forbidden")
GATEWAY = ApplicationError("the provider gave no usable answer: HTTP 404", type="ProviderUnavailable")


@dataclass(frozen=True)
class Step:
    """A step that is repeated until it succeeds.

    Attributes:
        name: The activity.
        plan: Plans the answers of all other steps.
        good: Its answer in the end.
        error: Its failure until then.
        attention: The Attention that is raised.
        stored: Whether the job then ends with its video.
    """

    name: str
    plan: Callable[[Harness], None]
    good: Any
    error: ApplicationError = DENIED
    attention: Attention = "storage"
    stored: bool = True


def _to_the_end(harness: Harness) -> None:
    harness.fake.always("get_task", to_store())
    harness.fake.always("store_video", RESULT)


def _read_ledger(harness: Harness) -> None:
    _to_the_end(harness)


def _limits(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.claim(limited=True))
    harness.fake.plan("create_task", harness.created(seconds=0))
    _to_the_end(harness)


def _outcome(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.claim())
    harness.fake.plan("create_task", harness.created(seconds=0, written=False))
    _to_the_end(harness)


def _ask(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.recover())
    _to_the_end(harness)


def _get(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.always("store_video", RESULT)


def _cancel(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", ending("cancelled", "cancelled"))
    harness.fake.plan("write_end", as_written)


def _end(harness: Harness) -> None:
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", ending("failed", "provider"))


STEPS = [
    Step("read_ledger", _read_ledger, lambda harness: harness.adopt()),
    Step("reserve_quota", _limits, lambda _: QuotaResult()),
    Step("write_outcome", _outcome, lambda _: None),
    Step("ask_lister", _ask, lambda harness: harness.adopt()),
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
async def impatient(
    temporal: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Harness]:
    """A route with all its workers, whose patience is short."""
    monkeypatch.setattr(policies, "PATIENCE", HOUR)
    harness = Harness(temporal, sandboxed=False)
    await harness.start_workers(*QUEUES)
    yield harness
    await harness.close()
    await check_harness(harness, caplog)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.name}, {step.attention}")
async def test_failing_step_raises_attention(impatient: Harness, step: Step) -> None:
    harness = impatient
    step.plan(harness)
    harness.fake.always(step.name, step.error)
    job = await harness.start()
    if step.name == "cancel_task":
        await job.cancel()
    await harness.fake.called(step.name)
    assert (await state(job)).attention is None, "shorter outages pass by themselves"
    shown = await until_state(job, attention=step.attention)
    assert step.error.message.partition("?")[0] in (detail_of(shown).advice or ""), "the last failure, in words"
    assert "signature" not in (detail_of(shown).advice or "")
    await harness.fake.called(step.name, len(harness.fake.of(step.name)) + 1)
    harness.fake.always(step.name, step.good(harness))
    if step.stored:
        assert await job.result() == RESULT
    else:
        assert (await failed(job)).task_id == TASK
    shown = await state(job)
    assert shown.attention is None
    assert f"attention_settled {step.attention}" in noted(shown)


async def test_failing_absence_raises_an_attention(impatient: Harness) -> None:
    harness = impatient
    harness.fake.plan("read_ledger", harness.recover())
    harness.fake.always("ask_lister", harness.recover())
    harness.fake.always("settle_absent", DENIED)
    job = await harness.start()
    await harness.fake.called("ask_lister")
    for _ in range(2):
        await listed(job, a_listing())
    await until_state(job, attention="storage")
    await job.terminate()


async def test_step_without_worker_raises_no_attention(impatient: Harness) -> None:
    """That no worker runs is an alert of its own; the job cannot know it, and its step did not fail."""
    harness = impatient
    harness.fake.plan("read_ledger", harness.adopt())
    await harness.stop("get")
    job = await harness.start()
    await until(lambda: _scheduled_again(job), "an hour without a worker has passed")
    assert (await state(job)).attention is None
    await harness.start_workers("get")
    _to_the_end(harness)
    assert await job.result() == RESULT
    assert not [event for event in noted(await state(job)) if event.startswith("attention_raised")]


async def _scheduled_again(job: Handle) -> bool:
    return len(await scheduled(job, "get_task")) > 1


async def test_hour_of_failures_raises_attention(skipping: Harness) -> None:
    harness = skipping
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.always("get_task", GATEWAY)
    job = await harness.start()
    await harness.fake.called("get_task", 2)
    await harness.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await state(job)).attention is None
    await harness.skip(policies.PATIENCE.total_seconds() * 0.3)
    assert (await state(job)).attention == "provider"
    harness.fake.always("get_task", to_store())
    harness.fake.always("store_video", RESULT)
    assert await job.result() == RESULT


async def test_conflict_is_reported_at_once_and_retried(skipping: Harness) -> None:
    harness = skipping
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", to_store())
    harness.fake.plan("store_video", *[conflict] * 20, RESULT)
    job = await harness.start()
    await harness.fake.called("store_video")
    await harness.skip(1)
    shown = await state(job)
    assert shown.attention == "object_conflict"
    assert "gs://videos/a/output.mp4" in (detail_of(shown).advice or "")
    await harness.skip(2 * policies.COPY_AT_RISK.total_seconds())
    assert (await state(job)).attention == "object_conflict", "it says more than that the video is at risk"
    assert await job.result() == RESULT
    assert (await state(job)).attention is None


async def test_lasting_conflict_is_reported_as_lost(skipping: Harness) -> None:
    harness = skipping
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", to_store(within=3600))
    harness.fake.always("store_video", conflict)
    harness.fake.plan("write_end", as_written)
    error = await failed(await harness.start())
    assert (error.failure_class, error.task_id) == ("lost", TASK)
    assert "gs://videos/a/output.mp4" in error.message
    assert failure("lost").failure_class == error.failure_class


async def test_late_copy_gets_one_try(temporal: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A negative time-out would block the run for good."""
    harness = Harness(temporal, sandboxed=False)
    monkeypatch.setattr(policies, "COPY_AT_LEAST", timedelta(seconds=6))
    monkeypatch.setattr(policies, "CONFLICT_PAUSE", timedelta(seconds=2))
    await harness.start_workers("workflows", "ledger", "get", "transfer")
    conflict = ApplicationError("gs://videos/a/output.mp4 holds another", type="ObjectConflict", non_retryable=True)
    harness.fake.plan("read_ledger", harness.adopt())
    harness.fake.plan("get_task", to_store(within=6))
    harness.fake.plan("store_video", conflict, RESULT)
    job = await harness.start()
    await until_state(job, attention="object_conflict")
    await harness.stop("workflows")
    await asyncio.sleep(7)  # the URL dies, by the server's clock
    await harness.start_workers("workflows")
    assert await job.result() == RESULT
    await harness.close()
    await harness.replay()


@pytest.mark.parametrize(("code", "attention"), [("not_connected", "provider"), ("bucket_unreachable", "storage")])
async def test_unsent_create_raises_attention(skipping: Harness, code: str, attention: str) -> None:
    harness = skipping
    outcome = Outcome(kind="not_sent", source="create", at=now(), code=code, message="no")
    harness.fake.always("read_ledger", harness.claim())
    harness.fake.always("create_task", harness.result_of("not_sent", outcome, 900, message=f"{code}: no"))
    job = await harness.start()
    await harness.fake.called("create_task")
    await harness.skip(policies.PATIENCE.total_seconds() * 0.8)
    assert (await state(job)).attention is None
    await harness.skip(policies.PATIENCE.total_seconds() * 0.6)
    shown = await state(job)
    assert shown.attention == attention
    assert code in (detail_of(shown).advice or "")
    harness.fake.always("create_task", harness.created(seconds=0))
    _to_the_end(harness)
    assert await job.result() == RESULT
    assert (await state(job)).attention is None
