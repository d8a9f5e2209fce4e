"""The resolution of an unknown attempt, by the provider's own ledger: what an operator would read in its console."""

from __future__ import annotations

import asyncio
import json
import math
import time

from dev.stack import Stack
from seedance_temporal.contract import Resolve
from seedance_temporal.identity import ObjectNames, hash_of_job

# Far below the recovery window: an attempt that counts as unknown was sent before the ledger was read.
_LEDGER_SECONDS = 2.0


class Truth:
    """Read the provider's own ledger, at most once in two seconds: thousands of jobs ask."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._lock = asyncio.Lock()
        self._tasks: dict[str, str | None] = {}
        self._read_at = -math.inf

    async def of(self, job_id: str, attempt: int) -> Resolve | None:
        """Return the resolution that fits the provider's own ledger; none where the attempt has no claim."""
        names = ObjectNames("seedance", hash_of_job(job_id))
        content = await self._stack.bucket.read(names.attempt(attempt, "claim"))
        if content is None:
            return None
        task_id = (await self._tasks_by_nonce()).get(json.loads(content)["nonce"])
        if task_id is not None:
            return Resolve(attempt=attempt, action="adopt", task_id=task_id)
        # An answer said 200 and no task exists: it was not the provider's, but the job cannot know that.
        without_id = await self._stack.bucket.stat(names.attempt(attempt, "taken"))
        return Resolve(attempt=attempt, action="lost" if without_id is not None else "not_created")

    async def _tasks_by_nonce(self) -> dict[str, str | None]:
        async with self._lock:
            if time.monotonic() - self._read_at > _LEDGER_SECONDS:
                self._read_at = time.monotonic()
                entries = await self._stack.ark.ledger()
                self._tasks = {
                    entry.body["safety_identifier"][-32:]: entry.task_id for entry in entries if entry.committed
                }
            return self._tasks
