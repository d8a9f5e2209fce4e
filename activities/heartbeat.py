"""Periodic heartbeats of a long activity: Temporal notices by them that a worker died, and answers with a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio import activity

_BEAT_SECONDS = 5.0


@dataclass
class CopyProgress:
    """The progress of a copy. ``done`` and ``total`` are bytes."""

    step: str = "listing its objects"
    done: int = 0
    total: int | None = None

    def begin(self, step: str, total: int | None = None) -> None:
        self.step, self.done, self.total = step, 0, total
        activity.heartbeat(self.shown())

    def move(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total

    def shown(self) -> dict[str, Any]:
        return {"step": self.step, "bytes": self.done, "of": self.total}


@asynccontextmanager
async def heartbeats(details: Callable[[], Any]) -> AsyncIterator[None]:
    """Send a heartbeat every few seconds while the block runs. Temporal's UI shows its details."""

    async def beat() -> None:
        while True:
            activity.heartbeat(details())
            await asyncio.sleep(_BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
