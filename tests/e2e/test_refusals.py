"""Refused creates and tasks that end without a video: named, and never paid for twice."""

from __future__ import annotations

from typing import Any

import pytest

from dev.stack import Stack
from tests.e2e.requests import a_faulty_request, a_request, creates_of, until, until_created, until_ended
from tests.support.jobs import detail_of, found, present


@pytest.mark.parametrize(
    ("fault", "fields", "code", "failure_class"),
    [
        ("400", {"code": "InvalidParameter", "message": "no such thing"}, "InvalidParameter", "invalid"),
        (
            "400",
            {"code": "InputTextSensitiveContentDetected.PolicyViolation", "message": "no"},
            "InputTextSensitiveContentDetected.PolicyViolation",
            "moderation",
        ),
        ("404", {"code": "ModelNotOpen", "message": "activate it"}, "ModelNotOpen", "invalid"),
    ],
)
async def test_refused_create_is_final(
    stack: Stack, fault: str, fields: dict[str, str], code: str, failure_class: str
) -> None:
    request, armed = await a_faulty_request(stack, "create", fault, **fields)
    submitted = await stack.jobs.submit(request)
    job = await until_ended(stack, submitted.id)
    assert len(await stack.ark.fired(armed)) == 1
    assert job.phase == "refused"
    assert job.error is not None
    assert (job.error.code, job.error.failure_class, job.error.attempt) == (code, failure_class, 1)
    assert fields["message"] in job.error.message
    again = await stack.jobs.submit(request)
    assert found(again).error == job.error
    assert len(await creates_of(stack, request)) == 1


@pytest.mark.parametrize("retry_after", [None, 1, pytest.param(12, marks=pytest.mark.faults)])
async def test_rate_limited_create_is_sent_later(stack: Stack, retry_after: int | None) -> None:
    fields: dict[str, Any] = {} if retry_after is None else {"retry_after": retry_after}
    request, armed = await a_faulty_request(stack, "create", "429", **fields)
    submitted = await stack.jobs.submit(request)
    await submitted.result()
    assert len(await stack.ark.fired(armed)) == 1
    first, second = await creates_of(stack, request)
    assert (first.committed, second.committed) == (False, True)
    assert second.time - first.time >= (retry_after or 0)


@pytest.mark.parametrize(("fault", "attention"), [("401", "credentials"), ("403", "account")])
async def test_account_problem_waits_for_operator(stack: Stack, fault: str, attention: str) -> None:
    request, armed = await a_faulty_request(stack, "create", fault, times=None)
    submitted = await stack.jobs.submit(request)
    state = await until(stack, submitted.id, lambda job: job.attention == attention)
    assert state.phase == "waiting"
    assert await stack.ark.fired(armed)
    await stack.ark.clear_faults(armed)
    await submitted.result()
    assert (await submitted.state()).attention is None
    assert [entry.committed for entry in await creates_of(stack, request)].count(True) == 1


@pytest.mark.parametrize(
    ("fault", "fields", "phase", "failure_class"),
    [
        ("fail", {"code": "OutputVideoSensitiveContentDetected", "message": "no"}, "failed", "moderation"),
        ("fail", {"code": "InternalServiceError", "message": "sorry"}, "failed", "provider"),
        ("expire", {}, "expired", "expired"),
    ],
)
async def test_task_without_video_is_final(
    stack: Stack, fault: str, fields: dict[str, str], phase: str, failure_class: str
) -> None:
    request, armed = await a_faulty_request(stack, "task", fault, **fields)
    submitted = await stack.jobs.submit(request)
    job = await until_ended(stack, submitted.id)
    assert len(await stack.ark.fired(armed)) == 1
    assert job.phase == phase
    assert job.error is not None
    assert job.error.failure_class == failure_class
    assert present(job.error.task_id) in job.error.message
    assert found(await stack.jobs.submit(request)).error == job.error
    assert len(await creates_of(stack, request)) == 1


async def test_unknown_status_is_shown(stack: Stack) -> None:
    fields: dict[str, Any] = {"status": "warming", "seconds": 6}
    request, armed = await a_faulty_request(stack, "task", "unknown_status", "volcengine", **fields)
    submitted = await stack.jobs.submit(request)
    state = await until(stack, submitted.id, lambda job: detail_of(job).provider_status == "warming")
    assert state.phase == "running"
    await submitted.result()
    assert len(await stack.ark.fired(armed)) == 1


@pytest.mark.parametrize("fault", ["truncate", "refuse", "not_ready", "html", "reset", "wrong_length"])
async def test_failed_download_is_repeated(stack: Stack, fault: str) -> None:
    request = a_request()
    submitted = await stack.jobs.submit(request)
    job = await until_created(stack, submitted.id)
    armed = await stack.ark.fault("download", fault, task_id=job.task_id)
    result = await submitted.result()
    assert len(await stack.ark.fired(armed)) == 1, "the fault did not happen"
    name = result.video_uri.removeprefix(f"gs://{stack.bucket.name}/")
    assert await stack.bucket.read(name) == await stack.ark.video_bytes(result.task_id)
