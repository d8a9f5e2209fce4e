"""The provider's task: what is read of a payload, and what its end means."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seedance_temporal.identity import ObjectNames
from seedance_temporal.provider.task import (
    LONGEST_TASK_ID,
    TERMINAL,
    Task,
    TaskContent,
    TaskError,
    Usage,
    failure_class,
    is_task_id,
    known_status,
    new_attempt_could_help,
    parse_task,
    quoted_id,
    rank,
    refusal_class,
    usable_task_id,
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


def test_payload_is_unchanged() -> None:
    task = parse_task(SUCCEEDED)
    assert task.content is not None
    assert task.usage is not None
    video_url = SUCCEEDED["content"]["video_url"]
    assert (task.id, task.content.video_url, task.usage.total_tokens) == (SUCCEEDED["id"], video_url, 108900)
    assert {
        name: value for name, value in task.model_dump(exclude_unset=True).items() if name in SUCCEEDED
    } == SUCCEEDED


def test_smallest_task() -> None:
    task = parse_task({"id": "cgt-1", "status": "something new"})
    assert task == Task(id="cgt-1", status="something new")


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, word) for word in ("queued", "running", "succeeded", "failed", "expired", "cancelled")),
        ("SUCCEEDED", "succeeded"),
        ("Completed", "succeeded"),
        ("success", "succeeded"),
        ("processing", "running"),
        ("in_progress", "running"),
        ("pending", "queued"),
        ("canceled", "cancelled"),
        ("error", "error"),
        ("something new", "something new"),
    ],
)
def test_gateways_word_is_understood(word: str, status: str) -> None:
    assert known_status(word) == status
    assert parse_task({"id": "cgt-1", "status": word}).status == status


@pytest.mark.parametrize(
    ("word", "status"),
    [("archived", "succeeded"), ("error", "succeeded"), ("running", "running"), ("failed", "failed")],
)
def test_unknown_status_with_video_is_success(word: str, status: str) -> None:
    assert parse_task(SUCCEEDED | {"status": word}).status == status


ODD: list[dict[str, Any]] = [
    *({"created_at": "yesterday"}, {"usage": [1]}, {"content": "https://cdn.example.com/v.mp4"}),
    *({"error": "boom"}, {"seed": 1.5, "duration": {}}),
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_field_counts_as_absent(odd: dict[str, Any]) -> None:
    task = parse_task(SUCCEEDED | odd)
    assert task.id == SUCCEEDED["id"]
    assert all(getattr(task, name) is None for name in odd)
    assert task.model == SUCCEEDED["model"]


def test_one_odd_part_leaves_the_others() -> None:
    content = {"video_url": "https://cdn.example.com/v.mp4", "last_frame_url": 7}
    usage = {"completion_tokens": "many", "total_tokens": 108900}
    task = parse_task(SUCCEEDED | {"content": content, "usage": usage, "error": {"code": 500, "message": "oops"}})
    assert task.content == TaskContent(video_url="https://cdn.example.com/v.mp4")
    assert task.usage == Usage(total_tokens=108900)
    assert task.error == TaskError(code="", message="oops")


@pytest.mark.parametrize("count", [True, -1, 2**53 + 1, 10**400, 5.5, float("inf"), float("nan"), "9" * 5000, [1]])
@pytest.mark.parametrize("name", ["completion_tokens", "total_tokens"])
def test_number_that_counts_nothing_is_absent(name: str, count: Any) -> None:
    usage = parse_task(SUCCEEDED | {"usage": {"completion_tokens": 2**53, "total_tokens": 7.0, name: count}}).usage
    assert usage is not None
    assert usage == Usage.model_validate({"completion_tokens": 2**53, "total_tokens": 7} | {name: None})


def test_point_in_time_is_one_of_the_calendar() -> None:
    task = parse_task(SUCCEEDED | {"created_at": 10**15, "updated_at": 253_402_300_799})
    assert (task.created_at, task.updated_at) == (None, 253_402_300_799)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([10**400, -(10**400), 2**53, 2**53 + 1, 1e308, float("nan"), float("inf"), -1, "\ud800", ""])
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=4),
    max_leaves=10,
).flatmap(lambda value: st.sampled_from([value, [value] * 3000, str(value)[:9] * 3000, _nested(value)]))
NAMES = st.sampled_from([*Task.model_fields, "more", "x" * 5000, "\ud800", "usage.total_tokens", "content.video_url"])


def _nested(value: Any) -> Any:
    for _ in range(5000):
        value = [value]
    return value


def scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = [*value.values()]
    if isinstance(value, list):
        for part in value:
            yield from scalars(part)
    else:
        yield value


@given(fields=st.dictionaries(NAMES, JSON, max_size=4))
@settings(max_examples=300, suppress_health_check=list(HealthCheck))
def test_any_payload_parses_to_storable_task(fields: dict[str, Any]) -> None:
    payload: dict[str, Any] = dict(SUCCEEDED)
    for name, value in fields.items():
        outer, _, inner = name.partition(".")
        payload[outer] = {inner: value} if inner else value
    try:
        task = parse_task(payload)
    except ValueError:
        assert fields.keys() & {"id", "status"}
        return
    written = task.model_dump_json()
    assert len(written.encode()) < 250_000
    assert Task.model_validate_json(written) == task
    for value in scalars(json.loads(written)):
        if isinstance(value, str):
            assert len(value) <= 16 * 1024
        elif value is not None:
            assert abs(value) <= 2**53
    for field in ("status", "model", "ratio", "resolution", "service_tier", "safety_identifier"):
        assert len(getattr(task, field) or "") <= 200
    assert len(task.failure.code) <= 200
    assert len(task.failure.message) <= 1000


IDS = st.text(st.characters(codec=None), max_size=600)


@given(IDS | st.sampled_from([".", "..", "a/../b", "%2e", "\ud800", "한" * 56, "한" * 57, "x" * 512, "x" * 513]))
def test_task_id_is_opaque_and_bounded(task_id: str) -> None:
    if not is_task_id(task_id):
        assert not task_id or len(task_id.encode(errors="replace")) > 170 or max(task_id) >= "\ud800"
        with pytest.raises(ValueError, match="is no task id"):
            usable_task_id(task_id)
        return
    quoted = quoted_id(task_id)
    assert unquote(quoted) == task_id
    assert quoted not in {".", ".."}
    assert not set(quoted) & set("/?#\\ ")
    assert len(quoted) <= LONGEST_TASK_ID
    assert len(json.dumps(task_id)) <= 2048
    longest = ObjectNames("p" * 200, "0" * 64)
    names = (longest.late(9999, task_id), longest.end_of_task(9999, task_id), longest.of_task(task_id, "output.mp4"))
    for name in names:
        assert len(name.encode()) <= 1024


NO_TASKS: list[Any] = [
    *({}, {"id": "cgt-1"}, {"status": "queued"}, [], "x"),
    *({"id": 1, "status": "queued"}, {"id": "cgt-1", "status": None}),
]


@pytest.mark.parametrize("payload", NO_TASKS)
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
def test_failure_of_a_task(fields: dict[str, Any], error: TaskError) -> None:
    assert parse_task({"id": "cgt-1", "status": "failed"} | fields).failure == error


def test_progress_never_goes_back() -> None:
    assert rank("queued") < rank("running") == rank("something new")
    assert {rank(status) for status in TERMINAL} == {2}
    assert rank("running") < 2
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


def test_resubmit_cannot_help_a_faulty_request() -> None:
    assert not new_attempt_could_help("moderation")
    assert not new_attempt_could_help("invalid")
    assert all(new_attempt_could_help(of) for of in ("provider", "expired", "cancelled", "lost"))
