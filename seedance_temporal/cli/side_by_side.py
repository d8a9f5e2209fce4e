"""Do something with many jobs, a few at once, behind a progress bar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from seedance_temporal.cli.output import err

_T = TypeVar("_T")
_AT_ONCE = 20


async def side_by_side(title: str, work: Callable[[_T], Awaitable[None]], items: Sequence[_T], bar: Progress) -> None:
    """Process items in their order, a few at once, until the first error."""
    shown = bar.add_task(title, total=len(items))
    left = iter(items)

    async def worker() -> None:
        for item in left:
            await work(item)
            bar.advance(shown)

    workers = [asyncio.create_task(worker()) for _ in range(_AT_ONCE)]
    try:
        await asyncio.gather(*workers)
    finally:
        for each in workers:
            each.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def progress_bar() -> Progress:
    """Return a progress bar on stderr, which shows on a terminal alone."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=err, disable=not err.is_terminal)
