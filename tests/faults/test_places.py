"""A thousand jobs of one user, then ten of another, for ten places; workers are killed, and runs reset."""

from __future__ import annotations

import pytest

from dev.stack import running_stack
from tests.e2e.crowd import crowded
from tests.faults.report import AddRow

pytestmark = [pytest.mark.faults, pytest.mark.timeout(5400)]


async def test_thousand_jobs_keep_limit_and_shares(report: AddRow) -> None:
    async with running_stack(speed=60, workers=False) as stack:
        await stack.start_relay()
        crowd = await crowded(stack, many=1_000, few=10, at_4k=20, places=10, trouble_every=30, seconds=5000)
    assert crowd.meanwhile < crowd.left / 10
    report(
        "Places",
        {
            "what": "1,020 jobs of one user, then 10 of another; 10 places, and one at 4k",
            "most tasks": crowd.most_alive["byteplus"],
            "at 4k": crowd.most_alive["byteplus 4k"],
            "left": crowd.left,
            "ended before the ten": crowd.meanwhile,
            "kills": crowd.kills,
            "resets": crowd.resets,
        },
    )
