"""A bucket and a provider that live by the clock of a time-skipping server, and can be in trouble for a day.

The activities that use them are the real ones, and read the real clock. So an age is kept by shifting: what was written
a simulated hour ago is shown as an hour old by the real clock.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import httpx
from temporalio import activity

from seedance_temporal.provider.task import PROVIDER_FORGETS_AFTER, RESULT_URL_LIFE
from seedance_temporal.storage.bucket import BucketError, Checksums, StoredObject
from tests.support.memory_bucket import MemoryBucket

Domain = Literal["bucket", "provider", "host"]
Fault = Callable[[], Awaitable[None]]
_ODD = "gateway-7"


def simulated_now() -> datetime:
    """Return the time of the server whose activity this is."""
    return activity.info().started_time


def shown(at: datetime) -> datetime:
    """Return a simulated time as the real clock would show it, with the same age."""
    return datetime.now(UTC) - (simulated_now() - at)


@dataclass
class Trouble:
    """Requests that fail for a time, from the n-th of their domain on.

    Attributes:
        begins: How many requests are served before.
        only: Requests whose label starts otherwise are served all the same.
        lasts: By default a day; an hour less where a task was paid for before, whose URL would die with the trouble.
        failed: The failed requests, with their times.
    """

    domain: Domain
    kind: str
    begins: int = 0
    only: str = ""
    lasts: timedelta | None = None
    began_at: datetime | None = None
    failed: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def ended_at(self) -> datetime:
        assert self.began_at is not None
        assert self.lasts is not None
        return self.began_at + self.lasts

    def strikes(self, label: str, served: int, now: datetime, *, paid: bool) -> bool:
        """Say whether a request fails.

        Args:
            served: The requests of the domain before it.
            paid: Whether a POST was sent before it.
        """
        if not label.startswith(self.only) or served < self.begins:
            return False
        if self.began_at is None:
            self.began_at = now
            self.lasts = self.lasts or (
                timedelta(hours=23) if paid or label.startswith("POST") else timedelta(hours=24)
            )
        if now >= self.ended_at:
            return False
        self.failed.append((now, label))
        return True


@dataclass
class Life:
    """One job's requests to bucket, provider and result host.

    Attributes:
        requests: The labels of all requests, by domain.
        paid: Whether a POST was sent.
        before_each: Called before each request, such as to deliver what is due.
    """

    trouble: Trouble | None = None
    paid: bool = False
    requests: dict[Domain, list[str]] = field(default_factory=lambda: {"bucket": [], "provider": [], "host": []})
    before_each: Callable[[], Awaitable[None]] | None = None

    async def request(self, domain: Domain, label: str) -> str | None:
        """Count a request; return the kind of its trouble, or None where it is served."""
        if self.before_each is not None:
            await self.before_each()
        served = len(self.requests[domain])
        self.requests[domain].append(label)
        trouble = self.trouble
        if trouble is None or trouble.domain != domain:
            return None
        return trouble.kind if trouble.strikes(label, served, simulated_now(), paid=self.paid) else None


BUCKET_TROUBLE: dict[str, Exception] = {
    "403": BucketError("Forbidden: 403 GET https://storage.googleapis.com/storage/v1/b/videos/o: denied"),
    "404": BucketError("NotFound: 404 GET https://storage.googleapis.com/storage/v1/b/videos/o: no such bucket"),
    "400": BucketError("BadRequest: 400 GET https://storage.googleapis.com/storage/v1/b/videos/o: billing"),
    "503": BucketError("RetryError: Timeout of 60.0s exceeded, last exception: 503 GET https://storage.googleapis.com"),
    "refused": BucketError("ConnectionError: HTTPSConnectionPool: [Errno 111] Connection refused"),
    "nonsense": KeyError("crc32c"),
}


@dataclass
class SimulatedBucket:
    """A bucket in memory whose objects have simulated ages."""

    life: Life = field(default_factory=Life)
    inner: MemoryBucket = field(default_factory=MemoryBucket)
    written_at: dict[str, datetime] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.inner.name

    async def _request(self, call: str, name: str) -> None:
        label = f"{activity.info().activity_type}: {call} {_kind_of(name)}"
        if (kind := await self.life.request("bucket", label)) is not None:
            # A new one each time: the traceback of one that is raised again and again would grow.
            raise copy(BUCKET_TROUBLE[kind])

    def _shown(self, stored: StoredObject) -> StoredObject:
        at = self.written_at.get(stored.name)
        return replace(stored, created_at=shown(at)) if at is not None else stored

    def _note(self, name: str) -> None:
        self.written_at.setdefault(name, simulated_now())

    async def list(self, prefix: str) -> list[StoredObject]:
        await self._request("list", prefix)
        return [self._shown(stored) for stored in await self.inner.list(prefix)]

    async def read(self, name: str) -> bytes | None:
        await self._request("read", name)
        return await self.inner.read(name)

    async def stat(self, name: str) -> StoredObject | None:
        await self._request("stat", name)
        stored = await self.inner.stat(name)
        return self._shown(stored) if stored is not None else None

    async def checksums(self, name: str) -> Checksums | None:
        await self._request("checksums", name)
        return await self.inner.checksums(name)

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        await self._request("create", name)
        self._note(name)
        return await self.inner.create(name, content, kind=kind, seconds=seconds)

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        await self._request("upload", name)
        self._note(name)
        return await self.inner.upload(name, path, content_type)

    async def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        await self._request("sign", name)
        return await self.inner.signed_url(bucket, name, generation, lifetime)

    async def signing_problem(self) -> str | None:
        return await self.inner.signing_problem()


def _kind_of(name: str) -> str:
    """Return the kind of an object: names hold hashes and task ids."""
    if "/limits/" in name:
        return "quota"
    if "/task-times/" in name:
        return "task times"
    if name.endswith("/"):
        return "folder"
    stem = PurePosixPath(name).stem
    kind = stem.rpartition(".")[2]
    return next((start for start in ("verified", "echo", "late", "end") if kind.startswith(f"{start}-")), kind)


Answering = Literal["created", "unknown, exists", "unknown, absent"]


@dataclass
class SimulatedTask:
    """A task at the provider. Times of its life are seconds from its creation."""

    id: str
    identifier: str
    attempt: int
    model: str
    created_at: datetime
    runs_after: float
    ends_after: float
    end: str
    cancelled: bool = False

    def status(self, now: datetime) -> str:
        age = (now - self.created_at).total_seconds()
        if self.cancelled:
            return "cancelled"
        return "queued" if age < self.runs_after else "running" if age < self.ends_after else self.end

    def ended_at(self) -> datetime:
        return self.created_at + timedelta(seconds=self.ends_after)


@dataclass
class Post:
    at: datetime
    identifier: str
    answered: str


@dataclass
class SimulatedProvider:
    """The provider's API and its result host, as transports of httpx.

    Attributes:
        answering: How it answers the first POST, where it is in no trouble.
        always: Whether it answers every POST so.
        exists: Whether a POST that gets an answer of trouble by which a task may exist creates one.
        downloads: How often the video was opened.
    """

    video: bytes
    frame: bytes
    life: Life = field(default_factory=Life)
    answering: Answering = "created"
    always: bool = False
    exists: bool = True
    runs_after: float = 20
    ends_after: float = 100
    listed_after: float = 0
    end: str = "succeeded"
    tasks: dict[str, SimulatedTask] = field(default_factory=dict)
    posts: list[Post] = field(default_factory=list)
    after_post: Callable[[SimulatedTask | None], Awaitable[None]] | None = None
    downloads: int = 0

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._answer)

    def result_transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._download)

    # The API

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        task_id = request.url.path.rpartition("/tasks")[2].lstrip("/")
        verb = request.method if task_id or request.method != "GET" else "LIST"
        kind = await self.life.request("provider", f"{verb}: {activity.info().activity_type}")
        if verb == "POST":
            return await self._post(request, kind)
        if kind not in {None, _UNKNOWN_STATUS}:
            return trouble_of(kind or "")
        match verb:
            case "LIST":
                return self._list(kind)
            case "GET":
                return self._get(task_id, kind)
        return self._delete(task_id)

    async def _post(self, request: httpx.Request, kind: str | None) -> httpx.Response:
        body = json.loads(request.content)
        self.life.paid = True
        answered = kind or (self.answering if self.always or not self.posts else "created")
        self.posts.append(Post(simulated_now(), body["safety_identifier"], answered))
        task: SimulatedTask | None = None
        may_exist = answered in MAY_EXIST and self.exists
        if answered in {"created", "unknown, exists", _UNKNOWN_STATUS} or may_exist:
            task = SimulatedTask(
                id=f"cgt-{len(self.tasks) + 1}",
                identifier=body["safety_identifier"],
                attempt=int(body["callback_url"].split("/")[-2]),
                model=body["model"],
                created_at=simulated_now(),
                runs_after=self.runs_after,
                ends_after=self.ends_after,
                end=self.end,
            )
            self.tasks[task.id] = task
        if self.after_post is not None:
            await self.after_post(task)
        if task is not None and answered in {"created", _UNKNOWN_STATUS}:
            return httpx.Response(200, json={"id": task.id})
        if answered.startswith("unknown, "):
            return httpx.Response(500, json=_error("InternalServiceError", "an error inside"))
        return trouble_of(answered)

    def _get(self, task_id: str, kind: str | None) -> httpx.Response:
        task = self.tasks.get(task_id)
        if task is None or simulated_now() - task.created_at > PROVIDER_FORGETS_AFTER:
            return httpx.Response(404, json=_error("ResourceNotFound", "no such task"))
        return httpx.Response(200, json=self._payload(task, kind))

    def _list(self, kind: str | None) -> httpx.Response:
        visible = timedelta(seconds=self.listed_after)
        items = [self._payload(t, kind) for t in self.tasks.values() if simulated_now() - t.created_at >= visible]
        return httpx.Response(200, json={"items": items, "total": len(items)})

    def _delete(self, task_id: str) -> httpx.Response:
        task = self.tasks[task_id]
        if task.status(simulated_now()) != "queued":
            return httpx.Response(409, json=_error("InvalidAction.RunningTaskDeletion", "it runs"))
        task.cancelled = True
        return httpx.Response(204)

    def _payload(self, task: SimulatedTask, kind: str | None) -> dict[str, Any]:
        now = simulated_now()
        status = task.status(now)
        moved = {"queued": 0.0, "running": task.runs_after}.get(status, task.ends_after)
        payload: dict[str, Any] = {
            "id": task.id,
            "model": task.model,
            "status": _ODD if kind == _UNKNOWN_STATUS else status,
            "safety_identifier": task.identifier,
            "created_at": int(shown(task.created_at).timestamp()),
            "updated_at": int(shown(min(task.created_at + timedelta(seconds=moved), now)).timestamp()),
        }
        if status == "succeeded" and kind is None:
            url = "https://results.example.com"
            payload |= {
                "content": {"video_url": f"{url}/v.mp4?X-Tos-Signature=s", "last_frame_url": f"{url}/f.png?s=1"},
                "usage": {"completion_tokens": 40_594, "total_tokens": 40_594},
                "ratio": "16:9",
                "resolution": "480p",
                "duration": 4,
            }
        if status == "failed" and kind is None:
            payload["error"] = {"code": "InternalServiceError", "message": "it broke"}
        return payload

    # The result host

    async def _download(self, request: httpx.Request) -> httpx.Response:
        file = request.url.path
        kind = await self.life.request("host", file)
        if file == "/v.mp4":
            self.downloads += 1
        if kind is not None:
            return _streamed(trouble_of(kind))
        if all(simulated_now() > task.ended_at() + RESULT_URL_LIFE for task in self.tasks.values()):
            return _streamed(httpx.Response(403, text="<Error><Code>AccessDenied</Code></Error>"))
        return _streamed(httpx.Response(200, content=self.video if file == "/v.mp4" else self.frame))


_UNKNOWN_STATUS = "unknown status"
# Answers to a POST after which a task may exist.
MAY_EXIST = {"500", "502 html", "200 no task", "200 empty", "timeout"}
# The words of an Attention name the cause by this.
CAUSE = {
    "401": "AuthenticationError",
    "403": "AccountOverdueError",
    "404 odd": "404",
    "500": "500",
    "502 html": "502",
    "200 no task": "200",
    "200 empty": "200",
    _UNKNOWN_STATUS: _ODD,
    "refused": "ConnectError",
    "timeout": "ReadTimeout",
}


def trouble_of(kind: str) -> httpx.Response:
    """Return the answer of a kind of trouble, or raise as a broken connection does."""
    match kind:
        case "401":
            return httpx.Response(401, json=_error("AuthenticationError", "the API key is not valid"))
        case "403":
            return httpx.Response(403, json=_error("AccountOverdueError", "the account is overdue"))
        case "404 odd":
            return httpx.Response(404, json=_error("ModelNotOpen", "the model is not activated"))
        case "500":
            return httpx.Response(500, json=_error("InternalServiceError", "an error inside"))
        case "502 html":
            return httpx.Response(502, html="<html><body>Bad Gateway</body></html>")
        case "200 no task":
            return httpx.Response(200, json={"hello": "world"})
        case "200 empty":
            return httpx.Response(200)
        case "refused":
            raise httpx.ConnectError("[Errno 111] Connection refused")
        case "timeout":
            raise httpx.ReadTimeout("no answer")
    raise AssertionError(kind)


def _streamed(response: httpx.Response) -> httpx.Response:
    """Return an answer whose body is not read yet, as one from a network is."""
    return httpx.Response(response.status_code, headers=response.headers, stream=httpx.ByteStream(response.content))


def _error(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"{message}. Request id: 1", "param": "", "type": ""}}
