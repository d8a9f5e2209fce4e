"""Bucket and provider of the ledger's model: each call waits at a gate until the model decides how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from seedance_temporal.storage.bucket import StoredObject
from tests.support.memory_bucket import MemoryBucket


@dataclass(eq=False)
class Call:
    """A call that waits at a gate: ``effect`` is its effect on the other side, once."""

    run: int
    kind: str
    effect: Callable[[], Any]
    answered: asyncio.Future[Any]

    def __repr__(self) -> str:
        return f"{self.kind} of run {self.run}"


class Gates:
    """The waiting calls, and those without a caller that may still arrive."""

    def __init__(self) -> None:
        self.waiting: list[Call] = []
        self.travelling: list[Call] = []

    async def __call__(self, run: int, kind: str, effect: Callable[[], Any]) -> Any:
        call = Call(run, kind, effect, asyncio.get_running_loop().create_future())
        self.waiting.append(call)
        try:
            return await call.answered
        finally:
            # The caller may have been killed meanwhile: it does not wait any more.
            if call in self.waiting:
                self.waiting.remove(call)

    def answer(self, call: Call, fate: str) -> None:
        """End a call: with its effect or without, now or later, and with an answer or without."""
        self.waiting.remove(call)
        if fate in {"lands_later", "commits_later"}:
            self.travelling.append(call)
        arrives = fate in {"ok", "lost_answer", "created", "500_after", "no_id"}
        effect = call.effect() if arrives else None
        if fate in {"lost_answer", "never_arrived", "lands_later", "commits_later"}:
            error = httpx.ReadError("lost") if call.kind == "POST" else ConnectionError("lost")
            call.answered.set_exception(error)
        else:
            call.answered.set_result(_response(fate, effect) if call.kind == "POST" else effect)


@dataclass
class GatedBucket(MemoryBucket):
    """A bucket of one run, over the objects that all runs share. Objects never change, so reads pass at once."""

    gates: Gates = field(default_factory=Gates)
    run: int = 0

    async def list(self, prefix: str) -> list[StoredObject]:
        def decision() -> list[StoredObject]:
            return [self.stored[name] for name in sorted(self.stored) if name.startswith(prefix)]

        listed: list[StoredObject] = await self.gates(self.run, "listing", decision)
        return listed

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        written = name.split("/")[-1].split(".")[1].split("-")[0]
        return bool(await self.gates(self.run, written, lambda: self._put(name, content, kind)))


@dataclass
class Provider:
    """Accepts creates, also a second time for one nonce: that is under test.

    Attributes:
        posts: The nonces of all POSTs that arrived or may arrive, in order.
        closed: Nonces of which a POST may have been accepted: another one with it could be paid twice.
        tasks: The nonce of each task, by task id.
    """

    posts: list[str] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)
    tasks: dict[str, str] = field(default_factory=dict)

    def commit(self, nonce: str) -> str:
        task_id = f"cgt-{len(self.tasks) + 1}"
        self.tasks[task_id] = nonce
        return task_id


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose sleepers can be woken before their time."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


def _response(fate: str, task_id: str | None) -> httpx.Response:

    def refusal(status: int, code: str, **headers: str) -> httpx.Response:
        return httpx.Response(status, json={"error": {"code": code, "message": "no"}}, headers=headers)

    match fate:
        case "created":
            return httpx.Response(200, json={"id": task_id})
        case "no_id":
            return httpx.Response(200, json={})
        case "refused":
            return refusal(400, "InvalidParameter")
        case "401":
            return refusal(401, "AuthenticationError")
        case "429_at_once":
            return refusal(429, "RateLimitExceeded", **{"Retry-After": "0"})
        case "429_soon":
            return refusal(429, "RateLimitExceeded")
        case "429_later":
            return refusal(429, "RateLimitExceeded", **{"Retry-After": "60"})
        case _:
            return refusal(500, "InternalServiceError")
