"""Wait for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def until(
    condition: Callable[[], Any], description: str = "it is true", seconds: float = 40, every: float = 0.04
) -> Any:
    """Return the first true answer of a condition, which may be async.

    Raises:
        AssertionError: There was none in time.
    """
    try:
        async with asyncio.timeout(seconds):
            while True:
                answer = condition()
                if isinstance(answer, Awaitable):
                    answer = await answer
                if answer:
                    return answer
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"not within {seconds} s: {description}") from None
