"""The end of a total time."""

from __future__ import annotations

import time


class Deadline:
    """The end of a total time, on the monotonic and on the wall clock: it is over when either clock says so.

    A machine that sleeps stops the first one; setting the clock back misleads the second.
    """

    def __init__(self, seconds: float) -> None:
        self._monotonic = time.monotonic() + seconds
        self._wall = time.time() + seconds

    def remaining(self) -> float:
        """Return the seconds left, negative when it is over."""
        return min(self._monotonic - time.monotonic(), self._wall - time.time())
