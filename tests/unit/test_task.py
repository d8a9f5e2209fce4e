"""The provider's task: what is read of a payload, and what its end means."""

from __future__ import annotations

from typing import Any

import pytest

from seedance_temporal.task import (
    TERMINAL,
    Task,
    TaskError,
    failure_class,
    new_attempt_could_help,
    parse_task,
    progress,
    refusal_class,
)

SUCCEEDED: dict[str, Any] = {
    "id": "cgt-20260525143012-x7k2p",
    "model": "dreamina-seedance-2-0-260128",
    "status": "succeeded",
    "error": None,
    "created_at": 1779719412,
    "updated_at": 1779719530,
    "content": {"video_url": "https://cdn.example.com/v.mp4", "last_frame_url": None},
    "usage": {"completion_tokens": 108900, "total_tokens": 108900},
    "framespersecond": 24,
    "seed": 7,
    "duration": 5,
}


def test_a_payload_is_kept_whole() -> None:
    task = parse_task(SUCCEEDED)
    assert task.content is not None
    assert task.usage is not None
    assert (task.id, task.content.video_url, task.usage.total_tokens) == (
        "cgt-20260525143012-x7k2p",
        "https://cdn.example.com/v.mp4",
        108900,
    )
    assert {name: value for name, value in task.model_dump().items() if name in SUCCEEDED} == SUCCEEDED


def test_the_least_that_is_a_task() -> None:
    task = parse_task({"id": "cgt-1", "status": "something new"})
    assert task == Task(id="cgt-1", status="something new")


@pytest.mark.parametrize(
    "odd",
    [
        {"created_at": "yesterday"},
        {"usage": {"total_tokens": "many"}},
        {"usage": [1]},
        {"content": "https://cdn.example.com/v.mp4"},
        {"error": "boom"},
        {"seed": 1.5, "duration": {}},
    ],
)
def test_a_field_in_an_unknown_form_counts_as_absent(odd: dict[str, Any]) -> None:
    task = parse_task(SUCCEEDED | odd)
    assert task.id == SUCCEEDED["id"]
    assert all(getattr(task, name) is None for name in odd)
    assert task.model == SUCCEEDED["model"]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"id": "cgt-1"},
        {"status": "queued"},
        {"id": 1, "status": "queued"},
        {"id": "cgt-1", "status": None},
        [],
        "x",
    ],
)
def test_no_task(payload: Any) -> None:
    with pytest.raises(ValueError, match="not a task"):
        parse_task(payload)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"error": {"code": "A", "message": "b"}}, TaskError(code="A", message="b")),
        ({"error": None, "failure_reason": {"code": "A", "message": "b"}}, TaskError(code="A", message="b")),
        ({"failure_reason": "out of luck"}, TaskError(code="failed", message="out of luck")),
        ({}, TaskError(code="failed", message="")),
    ],
)
def test_the_providers_own_words(fields: dict[str, Any], error: TaskError) -> None:
    assert parse_task({"id": "cgt-1", "status": "failed"} | fields).failure == error


def test_progress_never_goes_back() -> None:
    assert progress("queued") < progress("running") == progress("something new")
    assert {progress(status) for status in TERMINAL} == {2}
    assert progress("running") < 2
    assert {"succeeded", "failed", "expired", "cancelled"} == TERMINAL


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("expired", "", "expired"),
        ("cancelled", "", "cancelled"),
        ("failed", "OutputVideoSensitiveContentDetected.PolicyViolation", "moderation"),
        ("failed", "InputImageSensitiveContentDetected.PrivacyInformation", "moderation"),
        ("failed", "InvalidParameter.TaskType", "invalid"),
        ("failed", "InternalServiceError", "provider"),
        ("failed", "ServerOverloaded", "provider"),
        ("failed", "", "provider"),
    ],
)
def test_failure_class(status: str, code: str, expected: str) -> None:
    assert failure_class(status, code) == expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("InputTextSensitiveContentDetected", "moderation"),
        ("MissingParameter.content", "invalid"),
        ("ModelNotOpen", "invalid"),
    ],
)
def test_refusal_class(code: str, expected: str) -> None:
    assert refusal_class(code) == expected


def test_only_what_is_not_the_requests_fault_can_be_helped() -> None:
    assert not new_attempt_could_help("moderation")
    assert not new_attempt_could_help("invalid")
    assert all(new_attempt_could_help(of) for of in ("provider", "expired", "cancelled", "lost"))
