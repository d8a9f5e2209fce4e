"""The provider: a script decides how it answers each create, and what weather its other calls meet.

It may do all that is known of the real one, or feared: answers lost before or after the task was made, tasks that GET
and LIST show late, two tasks of one create, callbacks before the answer, late, twice or never.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

from tests.model.clock import JumpingLoop
from tests.model.executions import current, gate

Fate = Literal[
    "created",
    "created_slowly",
    "callback_first",
    "two_tasks",
    "lost_before",
    "lost_after",
    "made_later",
    "too_slow",
    "no_id",
    "cut",
    "500_before",
    "500_after",
    "502_page_before",
    "502_page_after",
    "not_connected",
    "refused",
    "moderated",
    "model_gone",
    "429_now",
    "429_later",
    "quota",
    "401",
    "403",
    "cap",
]
GetWeather = Literal["fine", "lags", "401", "403", "500", "page", "reset", "another", "silent"]
ListWeather = Literal["fine", "down", "lags", "no_identifiers", "hides", "403", "odd_total"]
ResultWeather = Literal["fine", "403", "500", "cut", "not_ready", "no_url"]

# Not created, by the provider's own word.
REFUSALS = frozenset({"refused", "moderated", "model_gone"})
NOT_SENT = frozenset({"429_now", "429_later", "quota", "401", "403", "cap", "not_connected"})
# Answered with the id of the last task that was made.
NAMES_ITS_TASK = frozenset({"created", "created_slowly", "callback_first", "two_tasks"})
TERMINAL = frozenset({"succeeded", "failed", "expired", "cancelled"})
MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(200)
_ANSWER_SECONDS = 0.2
_CALLBACK_SECONDS = 0.5
_LATE_SECONDS = 240.0
_CALLBACK_TRIES = 4


@dataclass
class MadeTask:
    """A task at the provider. Times are Unix seconds; ``hidden_until``: GET and LIST show it from then on."""

    id: str
    identifier: str
    model: str
    callback_url: str | None
    created_at: float
    updated_at: float
    hidden_until: float = 0.0
    status: str = "queued"

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def unpaid(self) -> bool:
        """Whether it ended without being billed."""
        return self.status in {"failed", "expired", "cancelled"}


@dataclass
class Post:
    """A create that arrived: the identifier that it carried, its fate, and the ids of the tasks that it made."""

    at: float
    identifier: str
    fate: Fate
    execution: Any = field(repr=False)
    tasks: list[str] = field(default_factory=list)


class Provider:
    """The provider's API as a transport, and its side of each task.

    Attributes:
        fates: How the next creates are answered, each once; later ones go well.
        callbacks: How callbacks are sent: ``sent``, ``twice``, ``late``, ``lost``.
        opened: How often each result was opened.
        answered: The ids of tasks that an answer to a create told to a living worker.
        alter: Changes an answer, whose call it is given as well, before it is sent.
    """

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop
        self.fates: list[Fate] = []
        self.get_weather: GetWeather = "fine"
        self.list_weather: ListWeather = "fine"
        self.result_weather: ResultWeather = "fine"
        self.callbacks: Literal["sent", "twice", "late", "lost"] = "sent"
        self.tasks: dict[str, MadeTask] = {}
        self.foreign: list[str] = []
        self.posts: list[Post] = []
        self.got_at: dict[str, float] = {}
        self.send: Callable[[str, dict[str, Any]], Awaitable[int]] | None = None
        self.opened = Counter[str]()
        self.lag_seconds = 0.0
        self.alter: Callable[[str, httpx.Response], httpx.Response] = lambda _, response: response
        self._sending: set[asyncio.Task[None]] = set()

    def transport(self) -> httpx.AsyncBaseTransport:
        return httpx.MockTransport(self._answer)

    def results(self) -> httpx.AsyncBaseTransport:
        """Return the transport of the host of results."""
        return httpx.MockTransport(self._result)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        kind = request.method if request.url.path.endswith("/tasks") else f"{request.method} one"
        task_id = request.url.path.rpartition("/")[2]
        await gate(kind)
        await asyncio.sleep(_ANSWER_SECONDS)
        match kind:
            case "POST":
                response = await self._create(json.loads(request.content))
            case "GET":
                response = self._list(request.url.params)
            case "GET one":
                response = await self._get(task_id)
            case _:
                response = self._delete(task_id)
        await gate(f"{kind}, answered")
        return self.alter(kind, response)

    # Creates

    async def _create(self, body: dict[str, Any]) -> httpx.Response:
        fate: Fate = self.fates.pop(0) if self.fates else "created"
        post = Post(self._loop.now(), body["safety_identifier"], fate, current())
        self.posts.append(post)

        def make() -> MadeTask:
            task = self._make(body)
            post.tasks.append(task.id)
            return task

        match fate:
            case "created":
                return _ok({"id": make().id})
            case "created_slowly":
                await asyncio.sleep(60)
                return _ok({"id": make().id})
            case "callback_first":
                task = make()
                self._call_back(task)
                await asyncio.sleep(30)
                return _ok({"id": task.id})
            case "two_tasks":
                first, second = make(), make()
                self._call_back(first)
                self._call_back(second)
                return _ok({"id": second.id})
            case "lost_before":
                raise httpx.ReadError("connection reset")
            case "lost_after":
                make()
                raise httpx.ReadError("connection reset")
            case "made_later":
                self._loop.call_later(100, make)
                raise httpx.ReadError("connection reset")
            case "too_slow":
                make()
                await asyncio.sleep(1_000)
                raise httpx.ReadTimeout("never")
            case "no_id":
                make()
                return _ok({})
            case "cut":
                make()
                return httpx.Response(200, content=b'{"id": "cgt-')
            case "500_before" | "500_after":
                if fate == "500_after":
                    make()
                return _refusal(500, "InternalServiceError")
            case "502_page_before" | "502_page_after":
                if fate == "502_page_after":
                    make()
                return httpx.Response(502, html="<h1>Bad gateway</h1>")
            case "not_connected":
                raise httpx.ConnectError("refused")
            case "refused":
                return _refusal(400, "InvalidParameter")
            case "moderated":
                return _refusal(400, "InputTextSensitiveContentDetected")
            case "model_gone":
                return _refusal(404, "ModelNotOpen")
            case "429_now":
                return _refusal(429, "RateLimitExceeded", {"Retry-After": "0"})
            case "429_later":
                return _refusal(429, "ServerOverloaded", {"Retry-After": "120"})
            case "quota":
                return _refusal(429, "AccountQuotaExceeded", {"Retry-After": "1800"})
            case "401":
                return _refusal(401, "AuthenticationError")
            case "403":
                return _refusal(403, "AccountOverdueError")
            case "cap":
                return _refusal(429, "SetLimitExceeded")

    def _make(self, body: dict[str, Any]) -> MadeTask:
        now = self._loop.now()
        number = len(self.tasks) + 1
        task = MadeTask(
            id=f"cgt-{number}",
            identifier=body["safety_identifier"],
            model=body["model"],
            callback_url=body.get("callback_url"),
            created_at=now,
            updated_at=now,
            hidden_until=now + self.lag_seconds,
        )
        self.tasks[task.id] = task
        return task

    # The other calls

    async def _get(self, task_id: str) -> httpx.Response:
        task = self.tasks.get(task_id)
        match self.get_weather:
            case "401":
                return _refusal(401, "AuthenticationError")
            case "403":
                return _refusal(403, "AccountOverdueError")
            case "500":
                return _refusal(500, "InternalServiceError")
            case "page":
                return httpx.Response(200, html="<p>Maintenance</p>")
            case "reset":
                raise httpx.ReadError("connection reset")
            case "silent":
                await asyncio.sleep(100)
                raise httpx.ReadTimeout("never")
            case "another":
                return _ok({"id": "cgt-other", "status": "running"})
            case "lags":
                return _refusal(404, "ResourceNotFound")
            case "fine":
                pass
        if task_id in self.foreign:
            return _ok({"id": task_id, "status": "succeeded", "safety_identifier": f"{'0' * 16}-{'0' * 32}"})
        if task is None or self._loop.now() < task.hidden_until:
            return _refusal(404, "ResourceNotFound")
        self.got_at[task_id] = self._loop.now()
        return _ok(self.payload(task))

    def payload(self, task: MadeTask) -> dict[str, Any]:
        """Return a task as GET and callbacks show it."""
        shown: dict[str, Any] = {
            "id": task.id,
            "model": task.model,
            "status": task.status,
            "created_at": int(task.created_at),
            "updated_at": int(task.updated_at),
            "service_tier": "default",
            "safety_identifier": task.identifier,
        }
        if task.status == "succeeded":
            urls = {"video_url": f"https://results.example/{task.id}.mp4"} if self.result_weather != "no_url" else {}
            shown |= {"content": urls, "usage": {"completion_tokens": 1, "total_tokens": 1}, "resolution": "480p"}
        if task.status == "failed":
            shown["error"] = {"code": "InternalServiceError", "message": "it broke"}
        return shown

    def _list(self, params: Any) -> httpx.Response:
        now = self._loop.now()
        match self.list_weather:
            case "down":
                return _refusal(500, "InternalServiceError")
            case "403":
                return _refusal(403, "AccessDenied")
            case _:
                pass
        page, size = int(params["page_num"]), int(params["page_size"])
        lag = 7_200 if self.list_weather == "lags" else 0
        hidden = self.list_weather == "hides"
        tasks = [t for t in self.tasks.values() if now >= max(t.hidden_until, t.created_at + lag) and not hidden]
        items = [self.payload(task) for task in reversed(tasks)]
        # Another application's task is always there, and a job before this one.
        items += [{"id": "cgt-app", "status": "succeeded", "created_at": 1_700_000_000, "model": "other"}]
        items += [
            {
                "id": "cgt-before",
                "status": "succeeded",
                "created_at": 1_700_000_000,
                "model": "other",
                "safety_identifier": f"{'1' * 16}-{'1' * 32}",
            }
        ]
        if self.list_weather == "no_identifiers":
            items = [{name: value for name, value in item.items() if name != "safety_identifier"} for item in items]
        total = len(items) + (1 if self.list_weather == "odd_total" else 0)
        return _ok({"items": items[(page - 1) * size : page * size], "total": total})

    def _delete(self, task_id: str) -> httpx.Response:
        task = self.tasks.get(task_id)
        if task is None:
            return _refusal(404, "ResourceNotFound")
        if task.status == "running":
            return _refusal(409, "InvalidAction.RunningTaskDeletion")
        assert task.status == "queued", f"DELETE would erase the record of {task_id}, which is {task.status}"
        self.move(task, "cancelled")
        return httpx.Response(204)

    async def _result(self, request: httpx.Request) -> httpx.Response:
        self.opened[request.url.path] += 1
        await gate("result")
        await asyncio.sleep(_ANSWER_SECONDS)
        match self.result_weather:
            case "403":
                return httpx.Response(403, text="AccessDenied")
            case "500":
                return httpx.Response(500)
            case "not_ready":
                return httpx.Response(400, text="video_not_ready")
            case "cut":
                return _file(MP4[:100])
            case _:
                return _file(MP4)

    # Its own side

    def move(self, task: MadeTask, status: str) -> bool:
        """Move a task on; return whether its life allows that."""
        allowed = {"queued": TERMINAL | {"running"}, "running": TERMINAL - {"cancelled"}}.get(task.status, frozenset())
        if status not in allowed:
            return False
        task.status, task.updated_at = status, self._loop.now()
        if status != "cancelled":
            self._call_back(task)
        return True

    def _call_back(self, task: MadeTask) -> None:
        """Send a callback as the weather says, as often as the provider does where nobody acknowledges it."""
        if task.callback_url is None or self.callbacks == "lost":
            return
        for _ in range(2 if self.callbacks == "twice" else 1):
            pause = _LATE_SECONDS if self.callbacks == "late" else _CALLBACK_SECONDS
            sending = self._loop.create_task(self._deliver(task.callback_url, self.payload(task), pause))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def _deliver(self, url: str, payload: dict[str, Any], pause: float) -> None:
        assert self.send is not None
        for _ in range(_CALLBACK_TRIES):
            await asyncio.sleep(pause)
            if await self.send(url, payload) == httpx.codes.OK:
                return
            pause = 10.0


def _file(content: bytes) -> httpx.Response:
    return httpx.Response(200, stream=httpx.ByteStream(content), headers={"Content-Length": str(len(MP4))})


def _ok(value: Any) -> httpx.Response:
    return httpx.Response(200, json=value)


def _refusal(status: int, code: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no"}}, headers=headers)
