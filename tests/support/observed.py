"""How long tasks take at the provider, as users observed it: 100 to 220 s, with a tail to 25 minutes under load."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from seedance_temporal.ledger.task_times import MOST_A_DAY, TaskTimes
from seedance_temporal.provider.task import SUCCEEDED, Task
from seedance_temporal.request import VideoRequest
from seedance_temporal.storage.bucket import Bucket

# Of the tasks.
_IN_THE_TAIL = 0.05
# The plan that is compared with: GET every five seconds.
FIXED_SECONDS = 5.0


def observed_seconds(count: int, seed: int, *, longest: float = 1_500) -> list[float]:
    """Draw how long so many tasks take."""
    draw = random.Random(seed)
    return [
        math.exp(draw.uniform(math.log(220), math.log(longest)))
        if draw.random() < _IN_THE_TAIL
        else draw.uniform(100, 220)
        for _ in range(count)
    ]


@dataclass(frozen=True)
class Polled:
    """A task that was polled until its end was seen: how long it took, its polls, and the time until they showed it."""

    seconds: float
    polls: int
    delay: float


def share_of_fixed(tasks: Iterable[Polled]) -> float:
    """Return the number of polls, as a part of those that fixed polling needs."""
    every = list(tasks)
    return sum(task.polls for task in every) / sum(math.ceil(task.seconds / FIXED_SECONDS) for task in every)


def median_delay(tasks: Iterable[Polled]) -> float:
    """Return the median delay, as a part of a task's own time."""
    return median(task.delay / task.seconds for task in tasks)


async def know_times(bucket: Bucket, request: VideoRequest, times: Iterable[float]) -> None:
    """Write task times of a request's shape, as copies of the days before today did."""
    known = TaskTimes(bucket, "seedance")
    for number, seconds in enumerate(times):
        ended_at = int(time.time()) - 86_400 * (1 + number // MOST_A_DAY)
        await known.note(request, a_success(f"cgt-known-{number}", ended_at, round(seconds)))


def a_success(task_id: str, ended_at: int, seconds: int) -> Task:
    """Return a task that took so many seconds."""
    return Task(id=task_id, status=SUCCEEDED, created_at=ended_at - seconds, updated_at=ended_at)
