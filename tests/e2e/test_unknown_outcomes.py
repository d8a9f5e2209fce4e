"""A create whose answer is lost is never sent again: its task is found, by callback or by LIST."""

from __future__ import annotations

import json

import pytest

from dev.stack import Stack
from seedance_temporal.identity import ObjectNames
from seedance_temporal.job import Resolve
from tests.e2e.requests import a_request, creates_of, until

LOST_ANSWERS = [
    ("lost_after_commit", {}),
    ("hang_after_commit", {"seconds": 60}),
    ("500_after_commit", {}),
    ("502_after_commit", {}),
    ("cut_body", {}),
    ("cut_json", {}),
    ("no_id", {}),
]


@pytest.mark.parametrize(("fault", "fields"), LOST_ANSWERS, ids=[fault for fault, _ in LOST_ANSWERS])
@pytest.mark.parametrize("route", ["byteplus", "volcengine"], ids=["callbacks", "polling"])
async def test_an_answer_lost_after_the_commit(stack: Stack, route: str, fault: str, fields: dict[str, float]) -> None:
    request = a_request(route)
    armed = await stack.ark.fault("create", fault, contains=request.prompt, **fields)
    submitted = await stack.jobs.submit(request)
    result = await stack.jobs.result(submitted.job_id)

    assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
    (entry,) = await creates_of(stack, request)
    assert entry.committed
    assert entry.task_id == result.task_id
    state = await stack.jobs.state(submitted.job_id)
    assert any("is unknown" in e.what for e in state.timeline)
    outcome = await stack.bucket.read(ObjectNames("seedance", submitted.request_hash).attempt(1, "outcome"))
    assert json.loads(outcome or b"")["how"] in ({"callback", "list"} if route == "byteplus" else {"list"})


async def test_a_create_that_never_arrived_spends_nothing_more_and_asks_a_person(stack: Stack) -> None:
    request = a_request("volcengine")
    armed = await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    submitted = await stack.jobs.submit(request)
    early = await until(stack, submitted.job_id, lambda job: job.phase == "recovering")
    assert early.attention is None, "no person is needed while it is being looked for"
    word = Resolve(attempt=1, action="not_created")
    refused = await stack.jobs.resolve(submitted.job_id, word)
    assert not refused.accepted, "it cannot be known before the recovery window is over"

    state = await until(stack, submitted.job_id, lambda job: job.attention == "unknown_create", seconds=90)
    assert "starter.py resolve" in (state.advice or "")
    assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
    assert len(await creates_of(stack, request)) == 1, "nothing is sent while the outcome is unknown"

    wrong = await stack.jobs.resolve(submitted.job_id, Resolve(attempt=1, action="adopt", task_id="cgt-none"))
    assert not wrong.accepted
    assert (await stack.jobs.resolve(submitted.job_id, word)).accepted
    result = await stack.jobs.result(submitted.job_id)
    first, second = await creates_of(stack, request)
    assert (first.committed, second.committed) == (False, True)
    assert second.task_id == result.task_id


async def test_an_operator_can_give_an_attempt_up(stack: Stack) -> None:
    request = a_request("volcengine")
    await stack.ark.fault("create", "reset_before_commit", contains=request.prompt)
    submitted = await stack.jobs.submit(request)
    await until(stack, submitted.job_id, lambda job: job.phase == "recovering")
    assert (await stack.jobs.resolve(submitted.job_id, Resolve(attempt=1, action="lost"))).accepted
    async for job in stack.jobs.follow(submitted.job_id):
        last = job
    assert last.phase == "lost"
    assert last.error is not None
    assert last.error.failure_class == "lost"
    assert len(await creates_of(stack, request)) == 1
