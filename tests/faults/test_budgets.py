"""Hundreds of submissions at once, for a budget of a few videos."""

from __future__ import annotations

import pytest

from tests.e2e.racing_users import check_racing_users
from tests.faults.cases import Harness

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


async def test_fifty_racing_users_share_one_budget(served: Harness) -> None:
    await check_racing_users(served.stack, videos=10, submitted=200, users=50)
