"""Polling without callbacks, on the real stack: few GETs, videos that are noticed soon, and an estimate beforehand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.api.enums.v1 import EventType

from dev.stack import Stack, running_stack
from seedance_temporal import VideoJob
from seedance_temporal.ledger.task_times import MOST_A_DAY
from seedance_temporal.provider.poll_plan import first_poll, next_poll
from tests.e2e.command import starter
from tests.e2e.requests import a_request, creates_of, until
from tests.support import polling
from tests.support.observed import Polled, know_times, median_delay, observed_seconds, share_of_fixed

# Tasks are so many times as fast as those that were observed, and so is the plan, as it goes by task times. Temporal's
# timers, HTTP and this machine are not: what a poll is late counts as it is, and not so many times.
SCALE = 6
# Timers are up to a second late. A machine that is busy with other tests is later, which says nothing of the plan.
MOST_LATE = 1.0
# The tail that fits into the time of a test: 40 s of it.
LONGEST = 240.0
# More would make this machine late, and a late poll stands for several.
JOBS = 24
KNOWN = sorted(observed_seconds(60, seed=1))


@pytest.fixture
async def stack() -> AsyncIterator[Stack]:
    """A stack of its own, whose worker gets no callbacks, and has the default plan."""
    async with running_stack(speed=SCALE, workers=False, ark_options=_ARK) as stack:
        await stack.start_worker("worker", SEEDANCE_CALLBACK_URL="", **_DEFAULTS)
        yield stack


_ARK = tuple(word for switch in ("running_limit=1000", "get_per_second=null") for word in ("--set", switch))
_DEFAULTS = {"SEEDANCE_POLL_FIRST_SECONDS": "", "SEEDANCE_POLL_MAX_SECONDS": ""}


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_known_times_make_few_polls_and_short_delays(stack: Stack) -> None:
    """Criterion: at most a quarter of the GETs of fixed polling, at a median delay of at most 5 %."""
    await know_times(stack.bucket, a_request(), [seconds / SCALE for seconds in KNOWN])
    observed = observed_seconds(JOBS, seed=7, longest=LONGEST)
    polled = await asyncio.gather(*(_followed(stack, seconds) for seconds in observed))
    shown = f"{share_of_fixed(polled):.3f} of the GETs, median delay {median_delay(polled):.3f}"
    assert share_of_fixed(polled) <= 0.25, shown
    assert median_delay(polled) <= 0.05, shown
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    learnt = [each for each in await stack.bucket.list("seedance/task-times/") if f"/{today}/" in each.name]
    assert len(learnt) == MOST_A_DAY, "their copies have noted how long they took"


@pytest.mark.timeout(300)
async def test_estimate_is_shown_to_all(stack: Stack) -> None:
    request = a_request()
    await know_times(stack.bucket, request, range(15, 35))
    await stack.ark.fault("task", "seconds", contains=request.prompt, queued_seconds=0, running_seconds=15)
    before = datetime.now(UTC)
    submitted = await stack.jobs.submit(request)
    job = await until(stack, submitted.id, lambda job: job.phase == "queued" and job.expected_at is not None)
    assert job.expected_at is not None
    assert timedelta(seconds=20) < job.expected_at - before < timedelta(seconds=45)
    shown = await starter(stack, "show", submitted.id)
    assert datetime.fromisoformat(shown.answer["expected_at"]) == job.expected_at

    async def listed() -> bool:
        found = await stack.jobs.list(job_ids=[submitted.id])
        return [each.expected_at for each in found] == [job.expected_at]

    await polling.until(listed, "the list shows the estimate")
    await submitted.result()
    assert (await submitted.state()).expected_at is None
    assert [each.expected_at for each in await stack.jobs.list(job_ids=[submitted.id])] == [None]


async def _followed(stack: Stack, seconds: float) -> Polled:
    """Have a task take so long, divided by the scale; return how it was polled, at the pace that was observed."""
    request = a_request()
    took = seconds / SCALE
    await stack.ark.fault("task", "seconds", contains=request.prompt, queued_seconds=0, running_seconds=took)
    submitted = await stack.jobs.submit(request)
    result = await submitted.result()
    (entry,) = await creates_of(stack, request)
    polls = await _polls(stack, submitted)
    gets = (await stack.ark.requests()).tasks[result.task_id].get
    assert gets == len(polls) + 1, "one for each poll, and one by the copy"
    return _at_observed_pace(seconds, entry.time, polls)


def _at_observed_pace(seconds: float, created_at: float, polls: list[tuple[float, float]]) -> Polled:
    """Return what the waits of a scaled task come to without the scale.

    Each wait is the same part of the task's age as on the stack. Polls that were late there, in scaled time, saw more
    tasks ended: where one is too early at the observed pace, the plan goes on.
    """
    age, count, before = 0.0, 0, created_at
    for wait, seen in polls:
        late = min(seen - before - wait, MOST_LATE)
        age += (wait / (before - created_at) * age if count else SCALE * wait) + late
        before, count = seen, count + 1
    while age < seconds:
        age += next_poll(age, KNOWN, first=first_poll(a_request(), KNOWN), longest=300) + MOST_LATE
        count += 1
    return Polled(seconds, count, age - seconds)


async def _polls(stack: Stack, job: VideoJob) -> list[tuple[float, float]]:
    """Return of each poll for how many seconds the run had waited, and when its answer was there, in Unix seconds."""
    wait, gets, polls = 0.0, set[int](), list[tuple[float, float]]()
    async for event in stack.client.get_workflow_handle(job.id).fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_TIMER_STARTED:
            wait = event.timer_started_event_attributes.start_to_fire_timeout.ToNanoseconds() / 1e9
        elif event.activity_task_scheduled_event_attributes.activity_type.name == "get_task":
            gets.add(event.event_id)
        elif event.activity_task_completed_event_attributes.scheduled_event_id in gets:
            polls.append((wait, event.event_time.ToNanoseconds() / 1e9))
    return polls
