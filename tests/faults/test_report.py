"""The report over 300 jobs of mixed outcomes, against the provider's own billing ledger."""

from __future__ import annotations

import pytest

from tests.e2e.billing import check_billing
from tests.faults.cases import Harness
from tests.faults.report import AddRow

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1200)]


async def test_report_of_300_jobs_equals_billing_ledger(served: Harness, report: AddRow) -> None:
    await served.stack.start_worker("worker-polling", ARK_ROUTE="volcengine", SEEDANCE_CALLBACK_URL="")
    what = await check_billing(served.stack, 300)
    report("The report", {"what": "report and billing ledger agree", "jobs": 300, "ends": what})
