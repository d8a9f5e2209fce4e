"""An account that is closed for a day with many jobs waiting: few requests are refused, and every video is stored.

The first probe comes after 0.1 s instead of 30 s, so a day is scaled to 288 s. Pauses double up to 120 times
the first one, so a scaled day has as many probes as a real one, or fewer: a timer of Temporal takes a second at least.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from dev.stack import Stack, running_stack
from seedance_temporal import VideoJob
from tests.e2e.requests import a_request
from tests.faults.report import AddRow
from tests.support import polling

PROBE_SECONDS = 0.1
A_DAY = 86_400 / 30 * PROBE_SECONDS
MOST_REFUSED = 200
PER_MINUTE = 240
SIDE_BY_SIDE = 20


@pytest.mark.faults
@pytest.mark.timeout(600)
async def test_closed_account_smoke(report: AddRow) -> None:
    await close_for(jobs=30, seconds=10, places=None, report=report)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("places", [None, 40])
async def test_account_closed_for_a_day(places: int | None, report: AddRow) -> None:
    await close_for(jobs=1_000, seconds=A_DAY, places=places, report=report)


async def close_for(*, jobs: int, seconds: float, places: int | None, report: AddRow) -> None:
    """Close the account, submit jobs, open it after a time, and check what the provider got."""
    settings = {"SEEDANCE_CREATES_PER_MINUTE": str(PER_MINUTE), "SEEDANCE_PROBE_SECONDS": str(PROBE_SECONDS)}
    if places is not None:
        settings["SEEDANCE_TASKS_AT_ONCE"] = str(places)
    limit = ("--set", f"create_per_minute={PER_MINUTE}")
    async with running_stack(speed=60, settings=settings, ark_options=limit) as stack:
        await stack.ark.set_standing("byteplus", "AccountOverdueError")
        began = time.time()
        submitted = await submit(stack, jobs)
        await polling.until(lambda: stack.jobs.held("byteplus"), "creates are held", seconds=120)
        await asyncio.sleep(began + seconds - time.time())
        refused = [entry for entry in await stack.ark.ledger() if not entry.committed]
        waited = time.time() - began
        await stack.ark.set_standing("byteplus", "ok")
        opened = time.time()
        await stored(submitted, within=jobs + 300)
        entries = await stack.ark.ledger()
        created = [entry for entry in entries if entry.committed]
        late = [entry for entry in entries if not entry.committed and entry.time >= opened]
        row: dict[str, object] = {
            "jobs": jobs,
            "places": places or "any",
            "closed for": f"{waited:.0f} s",
            "refused": len(refused),
            "created": len(created),
            "refused after the reopening": len(late),
            "creates in each ten seconds": per_ten_seconds([entry.time - opened for entry in created]),
        }
        report("An account that is closed with jobs waiting", row)
        assert len(refused) <= MOST_REFUSED, row
        assert len(created) == jobs, row
        assert len({entry.body["safety_identifier"] for entry in created}) == jobs, "one paid POST each"
        assert len(late) <= jobs / 100 + 2, row
        if places is not None:
            assert (await stack.ark.requests()).most_alive["byteplus"] <= places


async def submit(stack: Stack, count: int) -> list[VideoJob]:
    side_by_side = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one() -> VideoJob:
        async with side_by_side:
            return await stack.jobs.submit(a_request())

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def stored(jobs: list[VideoJob], within: float) -> None:
    """Wait for each job's video."""
    async with asyncio.timeout(within):
        for job in jobs:
            await job.result()


def per_ten_seconds(times: list[float]) -> str:
    counts = [0] * (int(max(times) // 10) + 1)
    for at in times:
        counts[int(at // 10)] += 1
    return " ".join(map(str, counts))
