"""How long tasks took, for all workers: the plan of polls, and the expected end of a task, come from it.

Each time is the name of an empty object, so that one listing reads many, and nothing is ever changed. They are a help:
a bucket that does not serve them holds up no job, and the objects may be deleted at any time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice

from seedance_temporal.provider.task import PROVIDER_FORGETS_AFTER, Task, quoted_id
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket

# Of a shape and UTC day: enough to place polls by.
MOST_A_DAY = 20
# The newest days that have times are read: 100 times at most.
_DAYS = 5
# A worker reads the times of a shape again after this time, whether it could read them or not.
_READ_AGAIN = timedelta(minutes=10)
# A poll waits no longer for the times, and a copy that is done no longer for its own.
_SECONDS = 3.0
# The longest that the provider allows.
_LONGEST_TASK = timedelta(hours=72).total_seconds()
# Of shapes in memory.
_MOST_SHAPES = 500
_NAME = re.compile(r"(?P<day>\d{4}-\d\d-\d\d)/[0-9a-f]{16}-(?P<seconds>[1-9]\d{0,5})", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass
class _Known:
    """The times of a shape, as they were read last."""

    read_at: datetime | None = None
    times: tuple[int, ...] = ()
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TaskTimes:
    """The task times in a bucket, where all object names start with a prefix. ``clock`` returns the time, in UTC."""

    def __init__(self, bucket: Bucket, prefix: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._full: set[str] = set()
        # Two copies at once must not both take the last place of a day.
        self._turn = asyncio.Lock()

    async def of(self, request: VideoRequest) -> tuple[int, ...]:
        """Return the task times of a request's shape in seconds, in ascending order; those that are known where the
        bucket does not serve them within some seconds.
        """
        folder = self._folder(request)
        if folder not in self._known and len(self._known) >= _MOST_SHAPES:
            self._known.clear()
        known = self._known.setdefault(folder, _Known())
        try:
            async with asyncio.timeout(_SECONDS), known.lock:
                now = self._clock()
                if known.read_at is None or now - known.read_at >= _READ_AGAIN:
                    known.read_at = now
                    known.times = await self._read(folder, now)
        except Exception:
            _log.warning("task times cannot be read; polls go by what is known", exc_info=True)
        return known.times

    async def note(self, request: VideoRequest, task: Task) -> None:
        """Write how long a task took that has succeeded, if the day has few of its shape. Never raise."""
        seconds = task_time(task, self._clock())
        if seconds is None or task.updated_at is None:
            return
        day = f"{self._folder(request)}{datetime.fromtimestamp(task.updated_at, UTC):%Y-%m-%d}/"
        # All of the name follows from the task: written again, it is the same object.
        of_task = hashlib.sha256(task.id.encode()).hexdigest()[:16]
        try:
            async with asyncio.timeout(_SECONDS), self._turn:
                if day not in self._full:
                    await self._add(day, f"{day}{of_task}-{seconds}")
        except Exception:
            _log.warning("a task time was not written", exc_info=True)

    async def _add(self, day: str, name: str) -> None:
        stored = len(await self._bucket.list(day))
        if stored < MOST_A_DAY:
            await self._bucket.create(name, b"", seconds=_SECONDS)
        if stored + 1 >= MOST_A_DAY:
            if len(self._full) >= _MOST_SHAPES:
                self._full.clear()
            self._full.add(day)

    async def _read(self, folder: str, now: datetime) -> tuple[int, ...]:
        """Read the times of the newest days that have some, of this month and the one before."""
        by_day: dict[str, list[int]] = {}
        last_month = now.replace(day=1) - timedelta(days=1)
        for month in (now, last_month):
            if len(by_day) < _DAYS:
                by_day |= self._by_day(folder, [o.name for o in await self._bucket.list(f"{folder}{month:%Y-%m}-")])
        newest = sorted(by_day, reverse=True)[:_DAYS]
        return tuple(sorted(seconds for day in newest for seconds in by_day[day]))

    def _by_day(self, folder: str, names: list[str]) -> dict[str, list[int]]:
        """Sort the times by day. A name that is none of ours is no time."""
        matches = [match for name in names if (match := _NAME.fullmatch(name.removeprefix(folder)))]
        times = [(match["day"], int(match["seconds"])) for match in matches if int(match["seconds"]) <= _LONGEST_TASK]
        return {day: [of for _, of in islice(group, MOST_A_DAY)] for day, group in groupby(times, lambda each: each[0])}

    def _folder(self, request: VideoRequest) -> str:
        """Return the folder of a shape: all of a request that decides how long its task takes."""
        length = f"{request.duration}s" if request.duration > 0 else "auto"
        sound = "sound" if request.generate_audio else "silent"
        tier = request.service_tier if request.service_tier != "default" else None
        shape = "-".join(filter(None, [request.resolution, length, sound, tier, "draft" if request.draft else None]))
        return f"{self._prefix}/task-times/{request.route}/{quoted_id(request.model)}/{shape}/"


def task_time(task: Task, now: datetime) -> int | None:
    """Return the seconds from a task's creation to its success, by the provider's clock alone.

    None where it gives no usable times: a day of the calendar is named by them.
    """
    if task.created_at is None or task.updated_at is None:
        return None
    seconds = task.updated_at - task.created_at
    age = abs(now.timestamp() - task.updated_at)
    usable = 0 < seconds <= _LONGEST_TASK and age <= PROVIDER_FORGETS_AFTER.total_seconds()
    return seconds if usable else None
