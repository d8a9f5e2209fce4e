"""The crash matrix: each named point of a job × what happens to its worker there.

The cases of one column run side by side, each in a namespace of its own. In every case, the video is stored and
paid for once; or an operator is needed, and it is stored after the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.faults.cases import SOON, Case, Harness, all_of, is_killed
from tests.faults.report import AddRow
from tests.faults.worker import POINTS
from tests.support.polling import until

TITLE = "The crash matrix"
Column = Callable[[Case, str], Awaitable[None]]


async def _same_worker_back(case: Case, point: str) -> None:
    await case.crash(point)
    await case.start_worker()


async def _another_worker(case: Case, point: str) -> None:
    """The other worker is there before the first one dies."""
    process = await case.submit_to_faulty(point, "SIGKILL", HOLD="1")
    await case.start_worker()
    case.marker.with_suffix(".go").touch()
    await is_killed(process)


async def _sigterm(case: Case, point: str) -> None:
    process = await case.submit_to_faulty(point, "SIGTERM")
    assert await asyncio.wait_for(process.wait(), 120) == 0, "it ends in order"
    await case.start_worker()


async def _frozen(case: Case, point: str) -> None:
    """Another worker takes over; then the frozen one goes on, as if no time had passed."""
    process = await case.submit_to_faulty(point, "SIGSTOP")
    await case.start_worker()
    await case.until_timed_out()
    os.kill(process.pid, signal.SIGCONT)
    await asyncio.sleep(3)
    assert process.returncode is None, "it goes on"


async def _frozen_for_long(case: Case, point: str) -> None:
    """The frozen worker goes on after the job has ended.

    Not between the head and the body of the POST: no process can notice that it was frozen between its last check of
    the clock and the body's first byte. Its connection would have to outlive the recovery window as well.
    """
    process = await case.submit_to_faulty(point, "SIGSTOP")
    await case.start_worker()
    await case.settle()
    os.kill(process.pid, signal.SIGCONT)
    await asyncio.sleep(5)
    assert process.returncode is None, "it goes on"


COLUMNS: dict[str, Column] = {
    "SIGKILL, the same worker back": _same_worker_back,
    "SIGKILL, another worker": _another_worker,
    "SIGTERM": _sigterm,
    "SIGSTOP, thawed after the time-out": _frozen,
    "SIGSTOP, thawed after the end": _frozen_for_long,
}


async def _case(
    harness: Harness, report: AddRow, what: str, point: str, play: Column, settings: dict[str, str] | None = None
) -> None:
    async with harness.case(what[:7].strip(","), settings) as case:
        if point == "after the POST left":
            # Otherwise the answer could be there as soon as the request was sent.
            await harness.stack.ark.fault("create", "slow", contains=case.request.prompt, seconds=2)
        await play(case, point)
        row = await case.stored_once(await case.settle())
        report(TITLE, {"point": point, "what happens": what} | row)
        assert row["fired"]


@pytest.mark.timeout(300)
async def test_smoke(harness: Harness, report: AddRow) -> None:
    """Six cases that need little time."""
    created = ["before the claim", "after the claim", "after the POST left", "after its answer"]
    cases = [_case(harness, report, "SIGKILL, the same worker back", p, _same_worker_back, SOON) for p in created]
    cases += [_case(harness, report, "SIGTERM", p, _sigterm, SOON) for p in ("mid-download", "before the record")]
    await all_of(cases)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", COLUMNS)
async def test_column(harness: Harness, report: AddRow, what: str) -> None:
    points = [point for point in POINTS if not ("after the end" in what and point == "before the POST left")]
    await all_of([_case(harness, report, what, point, COLUMNS[what]) for point in points])


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_killed_server_never_pays_twice(harness: Harness, report: AddRow) -> None:
    """Workers die first, then the server; it restarts with its database, and the workers after it."""
    dead: list[str] = []
    back = asyncio.Event()

    async def play(case: Case, point: str) -> None:
        await case.crash(point)
        dead.append(point)
        await back.wait()
        await case.start_worker()
        await case.until_known()

    async def server() -> None:
        await until(lambda: len(dead) == len(POINTS), "all workers are dead", seconds=300, every=0.1)
        await harness.restart_temporal()
        back.set()

    what = "SIGKILL, the server as well"
    await all_of([server(), *(_case(harness, report, what, point, play) for point in POINTS)])
