"""Signs of life of a long activity: by them Temporal notices a worker that was killed, and tells of a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from temporalio import activity

_BEAT_SECONDS = 5.0


@dataclass
class Progress:
    """What a copy is at. ``done`` and ``total`` are bytes."""

    step: str = "looking"
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
    """Beats for as long as the block runs.

    Args:
        details: What the UI shows of the activity, asked at each beat.
    """

    async def beat() -> None:
        while True:
            activity.heartbeat(details())
            await asyncio.sleep(_BEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
