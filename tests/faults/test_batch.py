"""A batch of 1,000 lines, 10 of them bad, that is interrupted and run again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.batches import interrupted_and_run_again
from tests.faults.cases import Harness
from tests.faults.report import AddRow

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]
GOOD = 985  # and 10 bad ones, and 5 that repeat


async def test_interrupted_thousand_lines_run_again(served: Harness, report: AddRow, tmp_path: Path) -> None:
    ends = await interrupted_and_run_again(served.stack, tmp_path, GOOD, seconds=1500)
    what = "a batch of 1,000 lines, interrupted and run again"
    report("Concurrency", {"what": what, "jobs": GOOD, "paid": GOOD, "ends": ends})
