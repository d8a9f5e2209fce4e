"""Simulated time: an event loop whose clock jumps to its next timer, and the clocks of the product's modules.

Activities ask the interpreter for the time. They have no seam for it, so their modules' names for clock and calendar
are replaced while a model runs: hours then pass in milliseconds, for Temporal, bucket, provider and activities alike.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from types import SimpleNamespace
from typing import Any

START = datetime(2027, 1, 4, 9, tzinfo=UTC).timestamp()
_PARTS = ("activities.", "seedance_temporal.", "tests.support.memory_bucket", "tests.faults.simulated")
# One call of the model comes to rest long before; more turns without a moment passing are a livelock.
_MOST_TURNS = 200_000


class _Jumps(selectors.SelectSelector):
    """A selector that never waits: it moves the clock of its loop instead."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise AssertionError("the model waits for something that never comes")
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > _MOST_TURNS:
            raise AssertionError("the model does not come to rest")
        self.elapsed += max(0.0, timeout)
        return super().select(0)


class _Inline(ThreadPoolExecutor):
    """Runs calls at once: a thread would need real time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in simulated time. It begins at 0 seconds, which is :data:`START`."""

    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)
        self.set_default_executor(_Inline(max_workers=1))

    def time(self) -> float:
        return self._jumps.elapsed

    def now(self) -> float:
        """Return Unix seconds."""
        return START + self._jumps.elapsed


@contextmanager
def clocks_of(loop: JumpingLoop) -> Iterator[None]:
    """Let the product's modules read the time of a loop."""

    class Calendar(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.fromtimestamp(loop.now(), tz)

    clock = SimpleNamespace(monotonic=loop.time, time=loop.now)
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(_PARTS):
            continue
        for known, new in ((datetime, Calendar), (time, clock)):
            label = known.__name__
            if vars(module).get(label) is known:
                replaced.append((vars(module), label, known))
                vars(module)[label] = new
    try:
        yield
    finally:
        for names, label, known in replaced:
            names[label] = known
