"""The report of many jobs, by the command line."""

from __future__ import annotations

import pytest

from dev.stack import Stack
from tests.e2e.billing import check_billing


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_report_equals_billing_ledger(stack: Stack) -> None:
    """To the token, task by task; ``tests/faults/test_report.py`` does the same with 300 jobs."""
    assert "stored: 14; 16 tasks that were billed" in await check_billing(stack, 20)
