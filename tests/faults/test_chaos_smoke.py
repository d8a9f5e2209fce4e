"""A little of ``make chaos`` in every run of the tests: some twenty jobs, and faults that show within a minute."""

from __future__ import annotations

import pytest

from tests.faults.chaos import run_chaos
from tests.faults.chaos_plan import make_plan
from tests.faults.chaos_report import Report

SEED = 7
JOBS = 20


# On an idle machine it takes less than a minute; its patience bounds its waits.
@pytest.mark.timeout(480)
async def test_chaos_smoke() -> None:
    report = await run_chaos(make_plan(SEED, JOBS, minutes=0.2, quick=True), patience=150)
    assert report.problems == []
    assert sum(report.outcomes.values()) == JOBS
    for on in ("create", "get", "download"):
        fired = sum(times for name, times in report.fired.items() if name.startswith(f"{on}: "))
        assert fired > 0, f"nothing went wrong with {on}"
    assert report.outcomes["stored"] >= JOBS / 3
    assert not any(name.startswith("open") for name in report.outcomes), report.outcomes


def test_seed_decides_plan() -> None:
    first, second = (make_plan(3, 50, 1) for _ in range(2))
    assert first == second
    assert make_plan(4, 50, 1) != first


def test_rounds_are_summed_up() -> None:
    first, second = (Report.of(make_plan(seed, 10, 1)) for seed in (3, 4))
    first.outcomes["stored"], second.outcomes["stored"], second.outcomes["failed"] = 7, 5, 1
    first.seconds["trouble"], second.seconds["trouble"] = 60.0, 61.0
    second.problems.append("invariant: x")
    first.add(second)
    assert (first.seeds, first.jobs, first.minutes) == ([3, 4], 20, 2)
    assert first.outcomes == {"stored": 12, "failed": 1}
    assert "Seeds 3, 4; 20 jobs, 2.0 minutes of trouble (trouble 121 s)" in first.markdown()
    assert "BROKEN: 1." in first.markdown()
