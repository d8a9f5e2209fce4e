"""A budget through the whole stack. ``tests/faults/test_budgets.py`` has more users."""

from __future__ import annotations

from dev.stack import Stack
from tests.e2e.racing_users import check_racing_users


async def test_racing_users_share_one_budget(stack: Stack) -> None:
    await check_racing_users(stack, videos=4, submitted=60, users=15)
