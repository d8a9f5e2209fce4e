"""The requests that reached the service, and their outcomes: tests compare their client with these."""

import time
from collections import Counter, defaultdict
from typing import Any, Literal

from pydantic import BaseModel

from .catalog import Route


class CreateEntry(BaseModel):
    """One POST to create, also one that was refused or lost."""

    number: int
    time: float  # Unix seconds, when its body had been read
    route: Route
    body: Any  # as received: parsed JSON, or the text that was none
    request_id: str
    client_request_id: str | None = None
    committed: bool = False  # does a task exist because of it
    task_id: str | None = None
    answer: int | Literal["lost"] | None = None  # the status sent; "lost": no (whole) answer; None: not yet
    code: str | None = None  # of the error envelope
    fault: str | None = None
    billed_tokens: int | None = None  # once the task has succeeded


class Leak(BaseModel):
    """A request that carried an `Authorization` header to a result URL."""

    time: float
    path: str
    scheme: str  # the word before the key, never the key


class TaskRequests(BaseModel):
    """The number of requests for a task. Refused ones count as well."""

    get: int = 0
    delete: int = 0
    download: int = 0


class Requests(BaseModel):
    """Counters of everything but the creates, which the ledger has."""

    tasks: dict[str, TaskRequests]
    list: dict[str, int]  # by route
    rate_limited: dict[str, int]  # by operation: answers 429 that the service's own limits gave
    most_alive: dict[str, int]  # tasks that were alive at once, by route, and "<route> 4k"
    seconds: dict[
        Route, dict[str, dict[int, int]]
    ]  # by operation and Unix second: get, delete, list; also refused ones


class Ledger:
    """Append-only: an entry's outcome is filled in, and no entry is ever taken away."""

    def __init__(self) -> None:
        self.creates: list[CreateEntry] = []
        self.leaks: list[Leak] = []
        self.lists: Counter[str] = Counter()
        self.rate_limited: Counter[str] = Counter()
        self.most_alive: Counter[str] = Counter()
        self._tasks: defaultdict[str, TaskRequests] = defaultdict(TaskRequests)
        self._seconds: defaultdict[Route, defaultdict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
        self._by_task: dict[str, CreateEntry] = {}

    def received(self, route: Route, body: Any, request_id: str, client_request_id: str | None) -> CreateEntry:
        """Open the entry of a POST."""
        entry = CreateEntry(
            number=len(self.creates) + 1,
            time=time.time(),
            route=route,
            body=body,
            request_id=request_id,
            client_request_id=client_request_id,
        )
        self.creates.append(entry)
        return entry

    def committed(self, entry: CreateEntry, task_id: str, limit: str, alive: int) -> None:
        """Note that the POST has made a task, and how many are alive that count against the same running limit."""
        entry.committed, entry.task_id = True, task_id
        self.most_alive[limit] = max(self.most_alive[limit], alive)
        self._by_task[task_id] = entry

    def billed(self, task_id: str, tokens: int) -> None:
        """Note that the task has succeeded."""
        self._by_task[task_id].billed_tokens = tokens

    def leaked(self, path: str, authorization: str) -> None:
        """Note that a result URL was requested with a key."""
        self.leaks.append(Leak(time=time.time(), path=path, scheme=authorization.split(" ")[0]))

    def asked(self, operation: Literal["get", "delete", "download"], task_id: str) -> None:
        """Count a request for one task."""
        counters = self._tasks[task_id]
        setattr(counters, operation, getattr(counters, operation) + 1)

    def arrived(self, operation: Literal["get", "delete", "list"], route: Route) -> None:
        """Count a request in its second."""
        self._seconds[route][operation][int(time.time())] += 1

    def requests(self) -> Requests:
        """Return all counters."""
        return Requests(
            tasks=dict(self._tasks),
            list=dict(self.lists),
            rate_limited=dict(self.rate_limited),
            most_alive=dict(self.most_alive),
            seconds={route: {name: dict(each) for name, each in by.items()} for route, by in self._seconds.items()},
        )
