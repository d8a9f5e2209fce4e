"""A bucket whose calls take time, fail, and lose their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from tests.model.executions import current, gate
from tests.support.memory_bucket import MemoryBucket

BucketWeather = Literal["fine", "down", "read_only", "loses_answers", "refuses_outcomes"]
_SECONDS = 0.03


@dataclass
class ModelBucket(MemoryBucket):
    """All objects of the model.

    Attributes:
        weather: ``loses_answers``: each write lands, and its writer is told of an error. ``refuses_outcomes``: the
            outcome of a create cannot be written.
        claims: A copy of the bucket from just before each claim was written, by the claim's nonce.
        after_write: Called with the name of each object that was created.
    """

    weather: BucketWeather = "fine"
    claims: dict[str, MemoryBucket] = field(default_factory=dict)
    after_write: Callable[[str], None] = lambda _: None

    async def _reach(self) -> None:
        await gate("bucket")
        await asyncio.sleep(_SECONDS)
        if self.weather == "down":
            raise ConnectionError("the bucket is away")

    async def _hooked(self, name: str, content: bytes, kind: str | None = None) -> bool:
        if self.weather == "read_only":
            raise PermissionError("403 storage.objects.create")
        execution = current()
        creates = execution is not None and execution.task.name == "create_task"
        if self.weather == "refuses_outcomes" and creates and name.endswith(".outcome.json"):
            raise ConnectionError("the bucket is away")
        before = self.copy() if PurePosixPath(name).name.endswith(".claim.json") and name not in self.stored else None
        created = self._put(name, content, kind)
        if created:
            self.after_write(name)
        if before is not None:
            self.claims[name] = before
        await gate("bucket, after a write")
        if self.weather == "loses_answers":
            raise ConnectionError("the answer of a write was lost")
        await asyncio.sleep(_SECONDS)
        return created

    def copy(self) -> MemoryBucket:
        """Return the bucket as it is now; its content never changes."""
        return MemoryBucket(contents=dict(self.contents), stored={n: replace(s) for n, s in self.stored.items()})
