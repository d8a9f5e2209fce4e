"""Wait for a condition, and tell when a history is long enough for a new run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import chain, islice, repeat

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows import policies


async def until(condition: Callable[[], bool], within: timedelta | None = None, summary: str | None = None) -> bool:
    """Wait for a condition; return whether it was met in time. A cancel of the run does not interrupt the wait.

    Only `GenerateVideo.run` hears such a cancel. From a coming version of the SDK on (its workflow logic flag 2), every
    wait of a run is interrupted by it, whichever asyncio task waits.

    Args:
        within: No longer than that; without it, for ever.
        summary: What the timer is for, in Temporal's UI.
    """
    if condition():
        return True
    end = workflow.now() + within if within is not None else None
    while True:
        left = max(end - workflow.now(), timedelta(0)) if end is not None else None
        was_cancelled = workflow.cancellation_reason() is not None
        try:
            await workflow.wait_condition(condition, timeout=left, timeout_summary=summary)
        except TimeoutError:
            # With the coming SDK, what meets the condition can come in one activation with the timer.
            return condition()
        except asyncio.CancelledError:
            # A run that is removed from a worker's cache ends all its tasks: only a new cancel is waited out.
            if was_cancelled or workflow.cancellation_reason() is None:
                raise
        else:
            return True


def patience_ends(since: datetime, wait_seconds: float) -> bool:
    """Return whether to call an operator before a wait in which the patience with a failure ends.

    Args:
        since: When it failed first. A single failure calls nobody, however long the wait.
    """
    now = workflow.now()
    return now > since and now + timedelta(seconds=wait_seconds) >= since + policies.PATIENCE


class Pauses:
    """The pauses between the questions for a task that was named.

    Args:
        later: The pause after the first ones, where the provider does not show the task.
        away: The same, again and again, where the provider or the bucket is away; without it, ``later``.
        not_yet: How many of the pauses after "not yet" are used up, by the run before.
        again: Whether the question was asked before, and is only taken up again.
    """

    def __init__(
        self, later: timedelta, *, away: timedelta | None = None, not_yet: int = 0, again: bool = False
    ) -> None:
        self._not_yet = islice((*policies.IDENTIFY_PAUSES, later), not_yet, None)
        self._away = chain(() if again else policies.IDENTIFY_PAUSES, repeat(away or later))

    def after(self, answer: str) -> timedelta | None:
        """Return the pause after an answer; None after the last "not yet".

        An outage says nothing of the task, so it uses up none of the pauses in which GET can still come to show it.
        """
        return next(self._not_yet if answer == "not_yet" else self._away, None)


def history_is_long(bytes_before: int = 0) -> bool:
    """Return whether a new run should take over, before replays become slow, or the server ends this one.

    Args:
        bytes_before: The size of what the run began with, where that can be large: it must not end the run at once.
    """
    info = workflow.info()
    return (
        info.is_continue_as_new_suggested()
        or info.get_current_history_length() >= policies.MOST_EVENTS
        or info.get_current_history_size() - bytes_before >= policies.MOST_HISTORY_BYTES
    )


def wait_is_flooded() -> bool:
    """Return whether callbacks have made the history so long that even a wait is to end, and a new run to take over."""
    return workflow.info().get_current_history_length() >= policies.MOST_EVENTS_OF_A_WAIT
