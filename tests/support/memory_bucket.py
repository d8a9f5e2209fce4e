"""A bucket in memory, for tests of other parts.

``test_bucket.py`` tests it by the same contract as the real one.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path, PurePosixPath

import google_crc32c

from seedance_temporal.storage.bucket import Checksums, StoredObject

Hook = Callable[[], Awaitable[object]]


@dataclass
class MemoryBucket:
    """Create-only, as the real one is.

    Attributes:
        name: The bucket's name.
        contents: The objects' contents, by name. To put another age on an object, change ``stored``.
        stored: The objects as the bucket lists them.
        broken: If set, every call raises it.
        writes: The names of all objects that were created, in sequence.
        before: Hooks by kind of object, such as ``claim`` or ``output``: called before one is written.
        after: The same, called afterwards.
        signed: The arguments of each signed URL.
        signing_fails: If set, signing raises it.
    """

    name: str = "videos"
    contents: dict[str, bytes] = field(default_factory=dict)
    stored: dict[str, StoredObject] = field(default_factory=dict)
    broken: Exception | None = None
    writes: list[str] = field(default_factory=list)
    before: dict[str, Hook] = field(default_factory=dict)
    after: dict[str, Hook] = field(default_factory=dict)
    signed: list[tuple[str, str, int, timedelta]] = field(default_factory=list)
    signing_fails: Exception | None = None

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # other tasks run, as during a call to a real bucket
        if self.broken is not None:
            raise self.broken

    async def list(self, prefix: str) -> list[StoredObject]:
        await self._reach()
        return [self.stored[name] for name in sorted(self.stored) if name.startswith(prefix)]

    async def read(self, name: str) -> bytes | None:
        await self._reach()
        return self.contents.get(name)

    async def stat(self, name: str) -> StoredObject | None:
        await self._reach()
        return self.stored.get(name)

    async def checksums(self, name: str) -> Checksums | None:
        await self._reach()
        return Checksums.of(BytesIO(self.contents[name])) if name in self.contents else None

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        await self._reach()
        return await self._hooked(name, content, kind)

    async def upload(self, name: str, path: Path, content_type: str) -> StoredObject | None:
        await self._reach()
        content = await asyncio.to_thread(path.read_bytes)
        return self.stored[name] if await self._hooked(name, content) else None

    async def _hooked(self, name: str, content: bytes, kind: str | None = None) -> bool:
        of = PurePosixPath(name).stem.rpartition(".")[2]
        if of in self.before:
            await self.before[of]()
        created = self._put(name, content, kind)
        if of in self.after:
            await self.after[of]()
        return created

    def _put(self, name: str, content: bytes, kind: str | None = None) -> bool:
        if name in self.stored:
            return False
        self.writes.append(name)
        self.contents[name] = content
        self.stored[name] = StoredObject(
            name=name,
            generation=len(self.writes),
            size=len(content),
            crc32c=base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode(),
            md5=base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode(),
            created_at=datetime.now(UTC),
            kind=kind,
        )
        return True

    async def signed_url(self, bucket: str, name: str, generation: int, lifetime: timedelta) -> str:
        if self.signing_fails is not None:
            raise self.signing_fails
        self.signed.append((bucket, name, generation, lifetime))
        return a_signed_url(bucket, name, generation)

    async def signing_problem(self) -> str | None:
        return None


def a_signed_url(bucket: str, name: str, generation: int) -> str:
    return f"https://storage.googleapis.com/{bucket}/{name}?generation={generation}&X-Goog-Signature=0"


class LosingAnswers(MemoryBucket):
    """Each write lands, and then meets itself: its answer was lost, and the library repeated it, which got a 412."""

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        await super().create(name, content, kind=kind, seconds=seconds)
        return False


@dataclass
class CountingBucket(MemoryBucket):
    """Counts requests by kind."""

    requests: Counter[str] = field(default_factory=Counter)

    async def list(self, prefix: str) -> list[StoredObject]:
        self.requests["list"] += 1
        return await super().list(prefix)

    async def read(self, name: str) -> bytes | None:
        self.requests["read"] += 1
        return await super().read(name)

    async def create(self, name: str, content: bytes, *, kind: str | None = None, seconds: float = 60) -> bool:
        self.requests["create"] += 1
        return await super().create(name, content, kind=kind, seconds=seconds)
