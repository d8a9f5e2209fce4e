"""A create whose answer is lost is never sent again: its task is found, by callback or by LIST."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from dev.stack import Stack, running_stack
from seedance_temporal.identity import ObjectNames, hash_of_job
from seedance_temporal.job import VideoResult
from tests.e2e import scenarios
from tests.e2e.invariants import check_invariants
from tests.e2e.requests import a_faulty_request, a_request, creates_of, until
from tests.support.jobs import detail_of, present

# As the stack has it.
RECOVERY_SECONDS = 40
LOST_ANSWERS: dict[str, dict[str, float]] = {
    "lost_after_commit": {},
    "hang_after_commit": {"seconds": 60},
    "500_after_commit": {},
    "502_after_commit": {},
    "cut_body": {},
    "cut_json": {},
    "no_id": {},
}
# With callbacks, and by polls.
IN_BRIEF = [
    *(("byteplus", "lost_after_commit"), ("byteplus", "no_id")),
    *(("volcengine", "hang_after_commit"), ("volcengine", "cut_json")),
]


@pytest.mark.parametrize(
    ("route", "fault"),
    [
        pytest.param(route, fault, marks=[pytest.mark.faults] * ((route, fault) not in IN_BRIEF))
        for route in ("byteplus", "volcengine")
        for fault in LOST_ANSWERS
    ],
)
async def test_lost_answer_is_found(stack: Stack, route: str, fault: str) -> None:
    request, armed = await a_faulty_request(stack, "create", fault, route, **LOST_ANSWERS[fault])
    submitted = await stack.jobs.submit(request)
    result = await submitted.result()

    assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
    (entry,) = await creates_of(stack, request)
    assert entry.committed
    assert entry.task_id == result.task_id
    state = await submitted.state()
    assert any(e.event == "outcome_unknown" for e in detail_of(state).timeline)
    outcome = await stack.bucket.read(ObjectNames("seedance", hash_of_job(submitted.id)).attempt(1, "outcome"))
    assert json.loads(outcome or b"")["source"] in ({"callback", "list"} if route == "byteplus" else {"list"})


NEVER_ARRIVED = ("reset_before_commit", "500_before_commit", "502_before_commit")


async def test_creates_that_never_arrived_are_resent(stack: Stack) -> None:
    """On an account that has had a job, so that it is known that LIST shows our identifiers."""
    await (await stack.jobs.submit(a_request("volcengine"))).result()
    faulty = [await a_faulty_request(stack, "create", fault, "volcengine") for fault in NEVER_ARRIVED]
    submitted = [await stack.jobs.submit(request) for request, _ in faulty]
    results = await asyncio.gather(*(_without_attention(stack, job.id) for job in submitted))
    for (request, armed), job, result in zip(faulty, submitted, results, strict=True):
        assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
        first, second = await creates_of(stack, request)
        assert (first.committed, second.committed) == (False, True)
        assert second.task_id == result.task_id
        assert second.billed_tokens is not None
        assert second.time - first.time > RECOVERY_SECONDS, "the window comes first"
        outcome = await stack.bucket.read(ObjectNames("seedance", hash_of_job(job.id)).attempt(1, "outcome"))
        written = json.loads(outcome or b"")
        assert (written["kind"], written["source"]) == ("absent", "list")


async def _without_attention(stack: Stack, job_id: str) -> VideoResult:
    """Return the result of a job that never had an Attention."""
    async with asyncio.timeout(180):
        async for job in stack.jobs.job(job_id).follow(every=0.5):
            assert job.attention is None, "no operator is needed"
    return await stack.jobs.job(job_id).result()


@pytest.mark.faults
async def test_new_account_needs_operator() -> None:
    """It is unknown whether its LIST shows our identifiers, so a task that it does not show may still exist."""
    async with running_stack(speed=60, workers=False) as stack:
        await stack.start_worker("worker-polling", ARK_ROUTE="volcengine", SEEDANCE_CALLBACK_URL="")
        request, armed = await a_faulty_request(stack, "create", "reset_before_commit", "volcengine")
        submitted = await stack.jobs.submit(request)
        early = await until(stack, submitted.id, lambda job: job.phase == "recovering")
        assert early.attention is None, "no operator is needed during the search"
        refused = await submitted.resolve(attempt=1, action="not_created")
        assert not refused.accepted, "it cannot be known before the recovery window is over"

        state = await until(stack, submitted.id, lambda job: job.attention == "unknown_create", seconds=90)
        assert "starter.py resolve" in (detail_of(state).advice or "")
        # Longer than listings need that would prove it elsewhere.
        await asyncio.sleep(RECOVERY_SECONDS / 2)
        assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
        assert len(await creates_of(stack, request)) == 1, "nothing is sent while the outcome is unknown"

        assert (await submitted.resolve(attempt=1, action="not_created")).accepted
        result = await submitted.result()
        first, second = await creates_of(stack, request)
        assert (first.committed, second.committed) == (False, True)
        assert second.task_id == result.task_id
        await check_invariants(stack)


@pytest.mark.faults
async def test_many_lost_answers_need_few_listings(stack: Stack) -> None:
    mark = uuid.uuid4().hex
    requests = [a_request("volcengine", prompt=f"A kite over a field, {mark}, {number}.") for number in range(30)]
    armed = await stack.ark.fault("create", "lost_after_commit", contains=mark, times=len(requests))
    before = (await stack.ark.requests()).list.get("volcengine", 0)
    submitted = await asyncio.gather(*(stack.jobs.submit(request) for request in requests))
    async with asyncio.timeout(180):
        results = await asyncio.gather(*(stack.jobs.job(job.id).result() for job in submitted))
    listings = (await stack.ark.requests()).list["volcengine"] - before
    assert len(await stack.ark.fired(armed)) == len(requests), "the faults did not happen"
    for request, result in zip(requests, results, strict=True):
        (entry,) = await creates_of(stack, request)
        assert entry.task_id == result.task_id
    assert listings <= len(requests) / 2, f"{listings} listings for {len(requests)} jobs"


async def test_operator_gives_attempt_up(stack: Stack) -> None:
    request = a_request("volcengine")
    last = await scenarios.given_up(stack, request)
    assert last.phase == "lost"
    assert present(last.error).failure_class == "lost"
    assert len(await creates_of(stack, request)) == 1
