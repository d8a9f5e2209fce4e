"""Places through the whole stack: the limit holds while workers die, and each user has a share."""

from __future__ import annotations

import pytest

from dev.stack import running_stack
from tests.e2e.crowd import crowded


@pytest.mark.timeout(600)
async def test_crowd_keeps_limit_and_shares() -> None:
    """The same with a thousand jobs is a fault test."""
    async with running_stack(speed=60, workers=False) as stack:
        await stack.start_relay()
        crowd = await crowded(stack, many=24, few=1, at_4k=2, places=3, trouble_every=5, seconds=400, kind_to_few=True)
    assert crowd.most_alive["byteplus"] == 3, "the limit was never reached"
    # Those that had a place, and at most as many that took theirs.
    assert crowd.meanwhile <= 6
