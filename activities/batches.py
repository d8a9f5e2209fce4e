"""Send what many jobs ask of one workflow in few calls.

A server accepts the signals of one workflow one after another, and lets few queries of it wait: hundreds of jobs that
ask at once would block it for minutes. So a worker collects their requests for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from temporalio import activity
from temporalio.client import Client

# Requests are collected for so long, and sent so many at a time: some 150 kB in one signal.
_COLLECT_SECONDS = 0.2
_MOST_AT_ONCE = 500

T = TypeVar("T")


class Batches(Generic[T]):
    """The requests of one worker to one workflow.

    Args:
        deliver: Sends a batch in one call.
    """

    def __init__(self, deliver: Callable[[Client, list[T]], Awaitable[None]]) -> None:
        self._deliver = deliver
        self._batch: list[T] = []
        self._delivery: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()

    async def send(self, request: T) -> None:
        """Send a request with those of the same moment; return when they are delivered."""
        if self._delivery is None or len(self._batch) == _MOST_AT_ONCE:
            self._batch = []
            self._delivery = asyncio.create_task(self._deliver_soon(activity.client(), self._batch))
        self._batch.append(request)
        # The other requests of the batch are sent where this activity is cancelled.
        await asyncio.shield(self._delivery)

    async def _deliver_soon(self, client: Client, batch: list[T]) -> None:
        async with self._sending:
            await asyncio.sleep(_COLLECT_SECONDS)
            if batch is self._batch:
                self._delivery = None
            await self._deliver(client, batch)
