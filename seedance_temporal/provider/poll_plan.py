"""When to poll a task, and when its video should be ready: by how long tasks of the same shape took.

Pure functions of the seconds since the task's creation. All ``times`` are task times in seconds, in ascending order;
fewer than :data:`LEAST_TIMES` of them say nothing, and the defaults hold.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from statistics import median

from seedance_temporal.request import VideoRequest

LEAST_TIMES = 10
# Each wait is drawn from a tenth less to a tenth more, so that jobs which began together are not polled together.
JITTER = 0.1
# A wait is that part of the time since the creation, so a video is noticed half as late on average.
_STEP = 0.07
# The first poll comes when that share of the tasks is done.
_FIRST_SHARE = 0.05
# However long tasks took: one that is quick again has a URL that lives for a day.
_LATEST_FIRST_SECONDS = 3_600.0
# The wait is shorter where more than the usual share of the tasks that are left ends within the next tenth of the time,
# and longer where fewer do. By the square root: that trades polls for delay best.
_WINDOW = 0.1
_USUAL_SHARE = 0.2
_SHORTEST, _LONGEST = 0.5, 2.0
# Fewer tasks that took longer than this one are chance.
_FEW = 5
# Timers of the server can be as late.
_LEAST_SECONDS = 1.0
# The first poll without times, by resolution: when the first videos of 5 seconds are done.
_TYPICAL_SECONDS = {"480p": 60.0, "720p": 100.0, "1080p": 150.0, "4k": 240.0}


def first_poll(request: VideoRequest, times: Sequence[float]) -> float:
    """Return the seconds from a task's creation to its first poll."""
    if len(times) >= LEAST_TIMES:
        return min(times[int(len(times) * _FIRST_SHARE)], _LATEST_FIRST_SECONDS)
    base = _TYPICAL_SECONDS.get(request.resolution, _TYPICAL_SECONDS["720p"])
    quick = 0.6 if "-fast" in request.model or "-mini" in request.model else 1.0
    return float(base * quick * max(1.0, request.duration / 5) ** 0.5)


def next_poll(elapsed: float, times: Sequence[float], *, first: float, longest: float) -> float:
    """Return the seconds until the next poll.

    Args:
        elapsed: Seconds since the task's creation.
        times: Of tasks of the same shape.
        first: Seconds from the creation to the first poll.
        longest: The longest wait after the first poll.
    """
    if elapsed < first * (1 - JITTER):
        return first - elapsed
    return min(longest, max(_LEAST_SECONDS, elapsed * _STEP * _stretch(elapsed, times)))


def expected_end(elapsed: float, times: Sequence[float]) -> float | None:
    """Return the seconds from a task's creation to its expected end: the median of the times that are still possible.

    None without enough times, or where no task took that long.
    """
    left = times[bisect_right(times, elapsed) :]
    return float(median(left)) if len(times) >= LEAST_TIMES and left else None


def _stretch(elapsed: float, times: Sequence[float]) -> float:
    """Return by how much the next wait is longer than usual."""
    left = len(times) - bisect_right(times, elapsed)
    if len(times) < LEAST_TIMES or left < _FEW:
        return 1.0
    soon = len(times) - left
    share = (bisect_right(times, elapsed * (1 + _WINDOW)) - soon) / left
    return min(_LONGEST, max(_SHORTEST, (_USUAL_SHARE / share) ** 0.5)) if share else _LONGEST
