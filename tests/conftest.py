"""Tests know no settings of the shell, which could spend real money, and end what they started.

Generated cases have no deadline.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import settings

for _name in list(os.environ):
    if _name.startswith(("ARK_", "SEEDANCE_", "TEMPORAL_", "GOOGLE_", "STORAGE_EMULATOR_")):
        del os.environ[_name]

settings.register_profile("busy", deadline=None)
settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "faults: takes long, as a part of the whole of what it tests (make faults)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests to ``make faults``, and cancel an asynchronous test before its time-out.

    The time-out itself would leave its tasks and processes behind.
    """
    if "faults" not in (config.option.markexpr or ""):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("faults")])
        items[:] = [item for item in items if not item.get_closest_marker("faults")]
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            mark = item.get_closest_marker("timeout")
            seconds = float(mark.args[0] if mark else config.getini("timeout"))
            item.obj = _cancelled_after(item.obj, 0.75 * seconds)


def _cancelled_after(test: Callable[..., Awaitable[Any]], seconds: float) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    return run
