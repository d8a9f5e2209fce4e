"""Shared by the tests of ledger and provider: a request, its claims, and a clock for the bucket's objects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar, cast

from pydantic import SecretStr
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from dev.ark.control import ArkControl
from dev.process import running_ark
from seedance_temporal import VideoJob
from seedance_temporal.events import EventSource
from seedance_temporal.identity import ObjectNames, job_id_of, key_fingerprint, request_hash
from seedance_temporal.job import JobDetail, JobError, JobState, VideoResult
from seedance_temporal.ledger.facts import Claim, End, Listing, Outcome
from seedance_temporal.provider.ark import Ark
from seedance_temporal.provider.task import Usage
from seedance_temporal.request import VideoRequest
from seedance_temporal.settings import Settings
from tests.support.memory_bucket import MemoryBucket

KEY = "local-ark-key"
FINGERPRINT = key_fingerprint(KEY)
TODAY = "today=2026-11-01"
SECRET = "a-secret-that-only-the-relay-knows"
BODY: dict[str, Any] = {
    "model": "dreamina-seedance-2-0-260128",
    "content": [{"type": "text", "text": "a cat"}],
    "duration": 4,
    "resolution": "480p",
}
_T = TypeVar("_T")
_takes = count(1)


def a_request(**fields: Any) -> VideoRequest:
    """Return a request that no other test has."""
    given = {
        "user_id": "user-42",
        "route": "byteplus",
        "model": "dreamina-seedance-2-0-260128",
        "prompt": "a cat",
        "resolution": "480p",
        "duration": 4,
        "take": next(_takes),
    }
    return VideoRequest.model_validate(given | fields)


def names(request: VideoRequest) -> ObjectNames:
    return ObjectNames("seedance", request_hash(request))


def a_claim(request: VideoRequest, attempt: int = 1, nonce: str | None = None) -> Claim:
    return Claim(
        job_id=job_id_of(request),
        attempt=attempt,
        nonce=nonce or f"{next(_takes):032x}",
        namespace="default",
        run_id="run-1",
        claimed_at=datetime.now(UTC),
        request=request,
        key=FINGERPRINT,
    )


def created(task_id: str, source: EventSource = "create") -> Outcome:
    return Outcome(kind="created", source=source, at=datetime.now(UTC), task_id=task_id)


def not_sent() -> Outcome:
    return Outcome(kind="not_sent", source="create", at=datetime.now(UTC), code="RateLimitExceeded")


def refused(code: str = "InvalidParameter") -> Outcome:
    return Outcome(kind="refused", source="create", at=datetime.now(UTC), code=code, failure_class="invalid")


def a_result(task_id: str, usage: Usage | None = None) -> VideoResult:
    return VideoResult(
        video_uri=f"gs://videos/seedance/hash/{task_id}/output.mp4",
        size=1234,
        crc32c="yZRlqg==",
        md5=None,
        last_frame_uri=None,
        record_uri="gs://videos/seedance/hash/record.json",
        task_id=task_id,
        usage=usage,
        seed=7,
        ratio="16:9",
        resolution="720p",
        duration=5,
        generate_audio=False,
        cost_usd=0.5,
    )


def absent() -> Outcome:
    return Outcome(kind="absent", source="operator", at=datetime.now(UTC))


def accepted() -> Outcome:
    return Outcome(kind="accepted_without_id", source="create", at=datetime.now(UTC), code="no_task_id")


def present(value: _T | None) -> _T:
    """A value that a test expects to be there."""
    assert value is not None, "nothing is there"
    return value


def found(job: VideoJob) -> JobState:
    """The state in which a job was submitted."""
    return present(job.submitted)


def detail_of(state: JobState) -> JobDetail:
    """What a worker says of a job."""
    assert state.detail is not None, "no worker answered"
    return state.detail


def an_end(attempt: int, task_id: str | None, failure_class: str = "provider", code: str = "failed") -> End:
    error = JobError.model_validate(
        {"code": code, "message": "it ended", "class": failure_class, "task_id": task_id, "attempt": attempt}
    )
    return End(error=error, at=datetime.now(UTC))


def a_listing(claim: Claim, began_at: datetime, **fields: Any) -> Listing:
    """Return a complete listing that does not show the task of a claim."""
    known = {"attempt": claim.attempt, "safety_identifier": claim.safety_identifier, "key": claim.key}
    nothing = {"began_at": began_at, "complete": True, "task_id": None, "unmarked": False}
    return Listing.model_validate(known | nothing | fields)


def a_record(task_id: str) -> bytes:
    video = {"name": f"seedance/x/{task_id}/output.mp4", "generation": 1, "size": 3, "crc32c": "AAAAAA=="}
    return json.dumps({"task_id": task_id, "objects": {"video": video}}).encode()


def make_older(bucket: MemoryBucket, name: str, **by: float) -> None:
    """Give an object another age: the age of a claim is that of its object."""
    stored = bucket.stored[name]
    bucket.stored[name] = replace(stored, created_at=stored.created_at - timedelta(**by))


def content(bucket: MemoryBucket, name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(bucket.contents[name])
    return value


def some_settings(ark: ArkControl | None = None, **fields: Any) -> Settings:
    """Return settings for the local Ark, independent of the environment."""
    given: dict[str, Any] = {"ark_api_key": SecretStr(KEY), "seedance_insecure_hosts": frozenset({"127.0.0.1"})}
    if ark is not None:
        given["ark_base_url"] = ark.base_url("byteplus")
    return Settings.model_validate(given | fields)


def a_client(ark: ArkControl, *secrets: str, key: str = KEY) -> Ark:
    return Ark(ark.base_url("byteplus"), key, (key, *secrets), list_spacing=0)


class _NoWorkflows:
    """A client of a server that knows no workflow."""

    def get_workflow_handle(self, workflow_id: str) -> _NoWorkflows:
        return self

    async def describe(self) -> None:
        raise RPCError("workflow not found for ID", RPCStatusCode.NOT_FOUND, b"")


async def in_activity(
    call: Callable[..., Awaitable[_T]], *args: Any, attempt: int = 1, client: Client | None = None
) -> _T:
    """Run an activity, as Temporal's attempt of that number."""
    environment = ActivityEnvironment(client=client or cast(Client, _NoWorkflows()))
    environment.info = replace(environment.info, attempt=attempt, namespace="default", workflow_run_id="run-1")
    result: _T = await environment.run(call, *args)
    return result


@asynccontextmanager
async def local_ark() -> AsyncIterator[ArkControl]:
    """The local Ark as a process, with tasks that stay queued until a test says otherwise."""
    # By its calendar, all models of this release can be used.
    options = ("create_per_minute=null", "get_per_second=null", "delete_per_second=null", "callbacks=off", TODAY)
    flags = [word for option in options for word in ("--set", option)]
    async with running_ark("--queued-seconds", "3600", "--running-seconds", "3600", *flags) as control:
        yield control


async def as_new(ark: ArkControl) -> ArkControl:
    """Reset the process for the next test: no faults, and the account in order."""
    await ark.clear_faults()
    await ark.set_key_valid("byteplus", True)
    await ark.set_key("byteplus", KEY)
    await ark.set_standing("byteplus", "ok")
    await ark.configure(queued_seconds=3600, running_seconds=3600, running_limit=100, list_per_second=None)
    return ark
