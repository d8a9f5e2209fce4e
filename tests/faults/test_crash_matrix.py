"""The crash matrix: each named point of a job × what happens to its worker there.

The cases of one column run side by side, each in a namespace of its own. In every case, the video is stored and
paid for once; or an operator is needed, and it is stored after the answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence

import pytest

from tests.faults.cases import Case, Harness
from tests.faults.report import AddRow
from tests.faults.worker import POINTS

TITLE = "The crash matrix"
Column = Callable[[Case, str], Awaitable[None]]


async def _same_worker_back(case: Case, point: str) -> None:
    worker = await case.start_faulty(POINT=point, SIGNAL="SIGKILL")
    await case.submit()
    await _is_killed(case, worker.process)
    await case.start_worker()


async def _another_worker(case: Case, point: str) -> None:
    """The other worker is there before the first one dies."""
    worker = await case.start_faulty(POINT=point, SIGNAL="SIGKILL", HOLD="1")
    await case.submit()
    await case.until_fired()
    await case.start_worker()
    case.marker.with_suffix(".go").touch()
    await _is_killed(case, worker.process)


async def _sigterm(case: Case, point: str) -> None:
    worker = await case.start_faulty(POINT=point, SIGNAL="SIGTERM")
    await case.submit()
    await case.until_fired()
    assert await asyncio.wait_for(worker.process.wait(), 120) == 0, "it ends in order"
    await case.start_worker()


async def _frozen(case: Case, point: str) -> None:
    """Another worker takes over; then the frozen one goes on, as if no time had passed."""
    worker = await case.start_faulty(POINT=point, SIGNAL="SIGSTOP")
    await case.submit()
    await case.until_fired()
    await case.start_worker()
    await case.until_timed_out()
    os.kill(worker.process.pid, signal.SIGCONT)
    await asyncio.sleep(3)
    assert worker.process.returncode is None, "it goes on"


async def _frozen_for_long(case: Case, point: str) -> None:
    """The frozen worker goes on after the job has ended.

    Not between the head and the body of the POST: no process can notice that it was frozen between its last check of
    the clock and the body's first byte. Its connection would have to outlive the recovery window as well.
    """
    worker = await case.start_faulty(POINT=point, SIGNAL="SIGSTOP")
    await case.submit()
    await case.until_fired()
    await case.start_worker()
    await case.settle()
    os.kill(worker.process.pid, signal.SIGCONT)
    await asyncio.sleep(5)
    assert worker.process.returncode is None, "it goes on"


COLUMNS: dict[str, Column] = {
    "SIGKILL, the same worker back": _same_worker_back,
    "SIGKILL, another worker": _another_worker,
    "SIGTERM": _sigterm,
    "SIGSTOP, thawed after the time-out": _frozen,
    "SIGSTOP, thawed after the end": _frozen_for_long,
}


async def _is_killed(case: Case, process: asyncio.subprocess.Process) -> None:
    await case.until_fired()
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL, "the fault did not happen"


async def _case(
    harness: Harness, report: AddRow, what: str, point: str, play: Column, settings: dict[str, str] | None = None
) -> None:
    case = await harness.case(what[:7].strip(","))
    case.settings = settings or {}
    if point == "after the POST left":
        # Otherwise the answer could be there as soon as the request was sent.
        await harness.stack.ark.fault("create", "slow", contains=case.request.prompt, seconds=2)
    try:
        await play(case, point)
        row = await case.stored_once(await case.settle())
        report(TITLE, {"point": point, "what happens": what} | row)
        assert row["fired"]
    finally:
        await case.close()


async def _all(cases: Sequence[Awaitable[None]]) -> None:
    ended = await asyncio.gather(*cases, return_exceptions=True)
    wrong = [error for error in ended if isinstance(error, BaseException)]
    if wrong:
        raise BaseExceptionGroup(f"{len(wrong)} of {len(ended)} cases", wrong)


# A lost create is noticed after 35 seconds, when its window is over.
_SOON = {"SEEDANCE_CREATE_TIMEOUT_SECONDS": "5", "SEEDANCE_RECOVERY_SECONDS": "20"}


@pytest.mark.timeout(300)
async def test_smoke(harness: Harness, report: AddRow) -> None:
    """Six cases that need little time."""
    created = ["before the claim", "after the claim", "after the POST left", "after its answer"]
    cases = [_case(harness, report, "SIGKILL, the same worker back", p, _same_worker_back, _SOON) for p in created]
    cases += [_case(harness, report, "SIGTERM", p, _sigterm, _SOON) for p in ("mid-download", "before the record")]
    await _all(cases)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", COLUMNS)
async def test_column(harness: Harness, report: AddRow, what: str) -> None:
    points = [point for point in POINTS if not ("after the end" in what and point == "before the POST left")]
    await _all([_case(harness, report, what, point, COLUMNS[what]) for point in points])


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_killed_server_never_pays_twice(harness: Harness, report: AddRow) -> None:
    """Workers die first, then the server; it restarts with its database, and the workers after it."""
    dead: list[str] = []
    back = asyncio.Event()

    async def play(case: Case, point: str) -> None:
        worker = await case.start_faulty(POINT=point, SIGNAL="SIGKILL")
        await case.submit()
        await _is_killed(case, worker.process)
        dead.append(point)
        await back.wait()
        await case.start_worker()
        await case.until_known()

    async def server() -> None:
        async with asyncio.timeout(300):
            while len(dead) < len(POINTS):
                await asyncio.sleep(0.1)
        await harness.restart_temporal()
        back.set()

    what = "SIGKILL, the server as well"
    await _all([server(), *(_case(harness, report, what, point, play) for point in POINTS)])
