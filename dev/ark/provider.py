"""The tasks, and the life of each: queued, running, and its end."""

import asyncio
import random
import string
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .catalog import Route
from .errors import ArkError
from .faults import ENDINGS, Armed, Faults
from .keys import Key
from .media import FPS
from .request import TaskRequest
from .settings import Settings

_TICK = 0.01  # seconds between two rounds over the living tasks
_HOLDING = ("stay_queued", "stay_running", "unknown_status")
ENDED = ("succeeded", "failed", "expired", "cancelled")


@dataclass
class Task:
    """One task. Moments named `…_at` are Unix seconds, the others monotonic."""

    id: str
    route: Route
    project: str  # of the key that created it
    request: TaskRequest
    created_at: int
    updated_at: int
    born: float
    entered: float  # when it came to its present status
    status: str = "queued"
    ending: Armed | None = None  # the fault chosen for it at its creation
    pace: Armed | None = None  # its own durations, likewise
    held: bool = True  # a fault that keeps it in a status does so until it is released
    error: dict[str, str] | None = None
    ended: float | None = None
    erased: bool = False

    @property
    def alive(self) -> bool:
        return self.status not in ENDED

    @property
    def occupies(self) -> bool:
        """Whether it counts against the running limit."""
        return self.alive and self.status != "queued"

    @property
    def limit(self) -> tuple[Route, bool]:
        """The running limit that it counts against."""
        return self.route, self.request.limited_as_4k

    def enter(self, status: str) -> None:
        self.status, self.entered, self.updated_at = status, time.monotonic(), int(time.time())
        if not self.alive:
            self.ended = self.entered

    def fate(self) -> str | None:
        return None if self.ending is None else self.ending.fault


@dataclass
class Provider:
    """The task store.

    Args:
        settings: the switchboard.
        faults: where a task's fate is taken from, at its creation.
        on_change: called with a task after each change of its status.
    """

    settings: Settings
    faults: Faults
    on_change: Callable[[Task], None]
    tasks: dict[str, Task] = field(default_factory=dict)
    _living: list[Task] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def create(self, route: Route, project: str, request: TaskRequest, body: bytes) -> Task:
        """Commit a create: from here on the task runs, and bills if it succeeds."""
        task_id = new_id()
        now = int(time.time())
        task = Task(
            id=task_id,
            route=route,
            project=project,
            request=request,
            created_at=now,
            updated_at=now,
            born=time.monotonic(),
            entered=time.monotonic(),
            ending=self.faults.take("task", ENDINGS, route=route, task_id=task_id, body=body),
            pace=self.faults.take("task", ("seconds",), route=route, task_id=task_id, body=body),
        )
        self.tasks[task.id] = task
        self._living.append(task)
        self.on_change(task)
        self._wake.set()
        return task

    def find(self, route: Route, key: Key, task_id: str) -> Task:
        """Return a task that the key can still see.

        Raises:
            ArkError: 404 `ResourceNotFound`, the same for an unknown task and for one that the key may not see.
        """
        task = self.tasks.get(task_id)
        if task is None or not self._visible(task, route, key):
            raise ArkError(404, "ResourceNotFound", f"The task {task_id} could not be found.", param="id")
        return task

    def alive_beside(self, task: Task) -> tuple[str, int]:
        """Return the name of the running limit that a task counts against, and how many living tasks do, with it."""
        route, is_4k = task.limit
        return f"{route} 4k" if is_4k else route, sum(each.alive and each.limit == task.limit for each in self._living)

    def add_foreign(self, route: Route, project: str, request: TaskRequest, status: str, age_seconds: float) -> Task:
        """Add a task that another application of the account created: it stays as it is, and bills nobody here.

        Faults, limits and callbacks have nothing to do with it.
        """
        born, created_at = time.monotonic() - age_seconds, int(time.time() - age_seconds)
        task = Task(
            id=new_id(),
            route=route,
            project=project,
            request=request,
            created_at=created_at,
            updated_at=created_at,
            born=born,
            entered=born,
            status=status,
        )
        if not task.alive:
            task.ended = born
        if status == "failed":
            task.error = _failure(task)
        self.tasks[task.id] = task
        return task

    def listed(self, route: Route, key: Key) -> list[Task]:
        """Return the tasks that LIST shows this key, in the order that is set."""
        youngest = time.monotonic() - self.settings.list_delay_seconds
        seen = [task for task in self.tasks.values() if self._visible(task, route, key) and task.born <= youngest]
        seen.sort(key=lambda task: task.born, reverse=self.settings.list_order == "newest")
        if self.settings.list_order == "shuffled":
            random.shuffle(seen)
        return seen

    def delete(self, task: Task) -> None:
        """Cancel a queued task, or erase the record of an ended one.

        Raises:
            ArkError: 409: it runs, or has been cancelled.
        """
        if task.status == "queued":
            task.enter("cancelled")
            self.on_change(task)
        elif task.status == "cancelled":
            raise ArkError(409, "InvalidAction", f"The task {task.id} has been cancelled already.")
        elif task.alive:
            raise ArkError(
                409, "InvalidAction.RunningTaskDeletion", f"The task {task.id} is running; it cannot be deleted."
            )
        else:
            task.erased = True

    def release(self, task_id: str | None = None) -> list[str]:
        """Release a task that a fault holds in a status, or all, and return their ids."""
        held = [
            task
            for task in self.tasks.values()
            if task.alive and task.held and task.fate() in _HOLDING and task_id in (None, task.id)
        ]
        for task in held:
            task.held = False
        return [task.id for task in held]

    async def run(self) -> None:
        """Move the tasks along until this is cancelled."""
        while True:
            self._living = [task for task in self._living if task.alive]
            if not self._living:
                self._wake.clear()
                await self._wake.wait()
            running = Counter(task.limit for task in self._living if task.occupies)
            for task in list(self._living):
                most = self.settings.running_limit_4k if task.request.limited_as_4k else self.settings.running_limit
                status = self._next_status(task, time.monotonic(), has_room=running[task.limit] < most)
                if status is not None:
                    running[task.limit] += task.status == "queued"
                    self._move(task, status)
            await asyncio.sleep(_TICK)

    def _visible(self, task: Task, route: Route, key: Key) -> bool:
        return task.route == route and key.sees(task.project, task.request) and self._kept(task)

    def _kept(self, task: Task) -> bool:
        if task.erased:
            return False
        cancelled = task.status == "cancelled"
        limit = self.settings.cancelled_kept_seconds if cancelled else self.settings.kept_seconds
        return time.monotonic() - task.born < limit

    def _move(self, task: Task, status: str) -> None:
        if status == "failed":
            task.error = _failure(task)
        task.enter(status)
        self.on_change(task)

    def _next_status(self, task: Task, now: float, *, has_room: bool) -> str | None:
        """Return the next status of a living task, or None while it stays."""
        spent = now - task.entered
        if now - task.born >= task.request.execution_expires_after / self.settings.speed:
            return "expired"
        if task.status == "queued":
            if task.fate() == "stay_queued" and task.held:
                return None
            if spent < self._seconds(task, "queued_seconds") or not has_room:
                return None
            unknown = task.ending if task.fate() == "unknown_status" else None
            return "running" if unknown is None else unknown.status
        if task.status != "running":
            shown = task.ending.seconds if task.ending else None
            return "running" if not task.held or (shown is not None and spent >= shown) else None
        if task.fate() == "stay_running" and task.held:
            return None
        if spent < self._seconds(task, "running_seconds"):
            return None
        fates = {"fail": "failed", "expire": "expired"}
        return fates.get(task.fate() or "", "succeeded" if task.request.doom is None else "failed")

    def _seconds(self, task: Task, name: str) -> float:
        own: float | None = getattr(task.pace, name, None)
        shared: float = getattr(self.settings, name)
        return shared if own is None else own


def new_id() -> str:
    """Make a task id that no task has yet."""
    stamp = time.strftime("%Y%m%d%H%M%S")
    return f"cgt-{stamp}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=8))}"


def _failure(task: Task) -> dict[str, str]:
    ending, doom = task.ending, task.request.doom
    if doom is not None:
        return {"code": doom.code, "message": doom.message}
    return {
        "code": (ending and ending.code) or "OutputVideoSensitiveContentDetected",
        "message": (ending and ending.message)
        or "The request failed because the output video may contain sensitive information.",
    }


def payload(task: Task, urls: dict[str, str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task as GET, LIST and callbacks show it: never the prompt, the references, or the callback URL.

    Args:
        task: the task.
        urls: the result URLs, for a task that has succeeded.
        extra: fields that no document knows.
    """
    request = task.request
    shown: dict[str, Any] = {
        "id": task.id,
        "model": request.model,
        "status": task.status,
        "error": task.error,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "service_tier": request.service_tier,
        "execution_expires_after": request.execution_expires_after,
        "generate_audio": request.generate_audio,
        "draft": request.draft,
        "priority": request.priority,
    }
    if request.safety_identifier is not None:
        shown["safety_identifier"] = request.safety_identifier
    searches = {"tool_usage": {"web_search": 1}} if request.web_search else {}
    if task.status == "succeeded":
        shown |= {
            "content": urls,
            "usage": {"completion_tokens": request.tokens, "total_tokens": request.tokens} | searches,
            "seed": request.seed,
            "resolution": request.resolution,
            "ratio": request.ratio,
            "duration": request.duration,
            "framespersecond": FPS,
        }
    return dict(extra) | shown
