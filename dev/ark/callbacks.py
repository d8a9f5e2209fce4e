"""Callbacks: a task's JSON, posted to the URL of its create request, unsigned, as the service does."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
from pydantic import BaseModel

from .provider import ENDED, Task
from .settings import Settings

_ANNOUNCED = ("queued", "running", "succeeded", "failed", "expired")
_TRIES = 4  # the first, and three more
_REPEATS = 3


class Delivery(BaseModel):
    """One try to deliver one callback."""

    time: float  # Unix seconds, when it was sent
    task_id: str
    status: str
    url: str
    attempt: int  # from 1
    answer: int | None = None  # HTTP status; None: no answer (yet)
    error: str | None = None


@dataclass
class Callbacks:
    """Send callbacks in the background.

    Args:
        settings: the switchboard: `callbacks`, `callback_queued`, and the seconds.
        payload: the task's JSON, as it is now.
    """

    settings: Settings
    payload: Callable[[Task], dict[str, Any]]
    deliveries: list[Delivery] = field(default_factory=list)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _held: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by task, until its end is known

    def changed(self, task: Task) -> None:
        """Announce a task's status, in the mode that is set."""
        mode, url = self.settings.callbacks, task.request.callback_url
        if url is None or mode == "off" or task.status not in _ANNOUNCED:
            return
        if task.status == "queued" and not self.settings.callback_queued:
            return
        if mode == "ends" and task.status not in ENDED:
            return
        now = self.payload(task)
        if mode == "reversed" and task.status not in ENDED:
            self._held.setdefault(task.id, []).append(now)
            return
        bodies = [now, *reversed(self._held.pop(task.id, []))]
        if mode == "repeated":
            bodies *= _REPEATS
        sending = asyncio.get_running_loop().create_task(self._send(url, bodies))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """Cancel the deliveries that are under way."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await self._http.aclose()

    async def _send(self, url: str, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            await self._deliver(self._http, url, body)

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        # No proxy from the environment: a callback goes where its URL says. A fresh connection each time: one
        # that the receiver has closed meanwhile would count as a refusal.
        limits = httpx.Limits(max_keepalive_connections=0)
        return httpx.AsyncClient(trust_env=False, timeout=None, limits=limits)  # noqa: S113 - _deliver has one

    async def _deliver(self, client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> None:
        for attempt in range(1, _TRIES + 1):
            if attempt > 1:
                await asyncio.sleep(self.settings.callback_retry_seconds)
            delivery = Delivery(time=time.time(), task_id=body["id"], status=body["status"], url=url, attempt=attempt)
            self.deliveries.append(delivery)
            try:
                async with asyncio.timeout(self.settings.callback_timeout_seconds):
                    response = await client.post(url, json=body)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                delivery.error = type(error).__name__
                continue
            delivery.answer = response.status_code
            if response.is_success:
                return
