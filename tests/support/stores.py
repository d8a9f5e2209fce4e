"""A job whose video is to be stored, for tests of the copy: provider, result host and bucket are real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.store import StoreActivities, StoreInput
from dev.ark.media import Clip, last_frame, video
from seedance_temporal.events import Event
from seedance_temporal.job import VideoResult
from seedance_temporal.media.public_http import PublicTransport
from seedance_temporal.provider.ark import Ark
from seedance_temporal.request import VideoRequest
from tests.support.jobs import a_request
from tests.support.result_host import Answer, ResultHost
from tests.support.world import World

TASK = "cgt-20261122101010-abcde"
CLIP = Clip(864, 496, 4, audio=True)
VIDEO = video(CLIP, TASK)
PNG = last_frame(CLIP, TASK)
GET = f"/api/v3/contents/generations/tasks/{TASK}"
SIGNATURE = "X-Tos-Signature=SECRET"


def a_stored_request(**fields: Any) -> VideoRequest:
    """Return a request with a last frame, that no other test has."""
    return a_request(**{"return_last_frame": True} | fields)


@dataclass
class StoreWorld(World):
    """A job whose video is to be stored; one server is its provider and its result host.

    Attributes:
        attempt: The number of Temporal's attempt of the activity.
        scratch: The directory of temporary files; it must be empty after each run.
    """

    request: VideoRequest = field(default_factory=a_stored_request)
    task_id: str = TASK
    host: ResultHost = field(kw_only=True)
    scratch: Path = field(kw_only=True)
    attempt: int = 1
    transport: Callable[[], PublicTransport] | None = None
    heartbeats: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.task()
        self.host.answers["/v.mp4"] = [Answer(VIDEO)]
        self.host.answers["/f.png"] = [Answer(PNG)]
        self.client = Ark(self.host.url("/api/v3"), "ark-key")

    @property
    def input(self) -> StoreInput:
        created = Event(at=datetime(2026, 11, 22, 10, 0, tzinfo=UTC), event="task_created", source="create", attempt=1)
        given = {"job_id": self.job_id, "request": self.request, "attempt": 1, "task_id": self.task_id}
        return StoreInput.model_validate(given | {"timeline": (created,)})

    def name(self, file: str) -> str:
        return self.names.of_task(TASK, file)

    def payload(self, video: str = "/v.mp4", frame: str | None = "/f.png", **fields: Any) -> dict[str, Any]:
        content = {"video_url": self.host.url(f"{video}?{SIGNATURE}")}
        if frame is not None:
            content["last_frame_url"] = self.host.url(f"{frame}?{SIGNATURE}")
        return {
            "id": TASK,
            "model": "dreamina-seedance-2-0-260128",
            "status": "succeeded",
            "content": content,
            "usage": {"completion_tokens": 40_594, "total_tokens": 40_594},
            "seed": 7,
            "ratio": "16:9",
            "resolution": "480p",
            "duration": 4,
            "generate_audio": True,
            "framespersecond": 24,
        } | fields

    def task(self, *payloads: dict[str, Any]) -> None:
        """Set the answers of GET, in turn."""
        self.host.answers[GET] = [Answer(json.dumps(payload).encode()) for payload in payloads or (self.payload(),)]

    def forgets(self) -> None:
        error = {"error": {"code": "ResourceNotFound", "message": "no such task"}}
        self.host.answers[GET] = [Answer(json.dumps(error).encode(), 404)]

    async def store(self) -> VideoResult:
        """Run the activity once, and assert the invariants."""
        activities = StoreActivities(self.bucket, self.client, self.settings, self.transport)
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=self.attempt)
        environment.on_heartbeat = self.heartbeats.append
        try:
            return await environment.run(activities.store_video, self.input)
        finally:
            assert list(self.scratch.iterdir()) == []
            for stored in await self.bucket.list(self.names.root):
                content = await self.bucket.read(stored.name)
                assert content is not None
                assert b"SECRET" not in content

    async def fails(self, kind: str, match: str = "", *, final: bool = False) -> None:
        """Run the activity once, and assert its failure; final: it must not be retried."""
        with pytest.raises(ApplicationError, match=match or None) as failed:
            await self.store()
        assert failed.value.type == kind
        assert failed.value.non_retryable == final
        assert failed.value.__cause__ is None
        assert self.job_id in str(failed.value)
        assert TASK in str(failed.value)
        assert "SECRET" not in str(failed.value)

    async def files(self) -> list[str]:
        return [stored.name.removeprefix(self.names.root) for stored in await self.bucket.list(self.names.root)]

    async def record(self) -> dict[str, Any]:
        content = await self.bucket.read(self.names.record)
        assert content is not None
        record: dict[str, Any] = json.loads(content)
        return record

    async def put(self, file: str, content: bytes) -> None:
        """Create an object beside the video."""
        assert await self.bucket.create(self.name(file), content)

    async def verify(self, content: bytes, file: str = "output.mp4") -> None:
        """Write, as an earlier run does, that a content was verified."""
        assert await self.bucket.create(*self.verified(content, file))
