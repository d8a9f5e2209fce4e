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

from tests.faults.cells import Cell, Stage
from tests.faults.report import AddRow
from tests.faults.worker import POINTS

TITLE = "The crash matrix"
Column = Callable[[Cell, str], Awaitable[None]]


async def _same_worker_back(cell: Cell, point: str) -> None:
    worker = await cell.start_faulty(POINT=point, SIGNAL="SIGKILL")
    await cell.submit()
    await _is_killed(cell, worker.process)
    await cell.start_worker()


async def _another_worker(cell: Cell, point: str) -> None:
    """The other worker is there before the first one dies."""
    worker = await cell.start_faulty(POINT=point, SIGNAL="SIGKILL", HOLD="1")
    await cell.submit()
    await cell.until_fired()
    await cell.start_worker()
    cell.marker.with_suffix(".go").touch()
    await _is_killed(cell, worker.process)


async def _sigterm(cell: Cell, point: str) -> None:
    worker = await cell.start_faulty(POINT=point, SIGNAL="SIGTERM")
    await cell.submit()
    await cell.until_fired()
    assert await asyncio.wait_for(worker.process.wait(), 120) == 0, "it ends in order"
    await cell.start_worker()


async def _frozen(cell: Cell, point: str) -> None:
    """Another worker takes over; then the frozen one goes on, as if no time had passed."""
    worker = await cell.start_faulty(POINT=point, SIGNAL="SIGSTOP")
    await cell.submit()
    await cell.until_fired()
    await cell.start_worker()
    await cell.until_timed_out()
    os.kill(worker.process.pid, signal.SIGCONT)
    await asyncio.sleep(3)
    assert worker.process.returncode is None, "it goes on"


async def _frozen_for_long(cell: Cell, point: str) -> None:
    """The frozen worker goes on after the job has ended.

    Not between the head and the body of the POST: no process can notice that it was frozen between its last check of
    the clock and the body's first byte. Its connection would have to outlive the recovery window as well.
    """
    worker = await cell.start_faulty(POINT=point, SIGNAL="SIGSTOP")
    await cell.submit()
    await cell.until_fired()
    await cell.start_worker()
    await cell.settle()
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


async def _is_killed(cell: Cell, process: asyncio.subprocess.Process) -> None:
    await cell.until_fired()
    assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL, "the fault did not happen"


async def _cell(
    stage: Stage, report: AddRow, what: str, point: str, play: Column, settings: dict[str, str] | None = None
) -> None:
    cell = await stage.cell(what[:7].strip(","))
    cell.settings = settings or {}
    if point == "after the POST left":
        # Otherwise the answer could be there as soon as the request was sent.
        await stage.stack.ark.fault("create", "slow", contains=cell.request.prompt, seconds=2)
    try:
        await play(cell, point)
        row = await cell.stored_once(await cell.settle())
        report(TITLE, {"point": point, "what happens": what} | row)
        assert row["fired"]
    finally:
        await cell.close()


async def _all(cells: Sequence[Awaitable[None]]) -> None:
    ended = await asyncio.gather(*cells, return_exceptions=True)
    wrong = [error for error in ended if isinstance(error, BaseException)]
    if wrong:
        raise BaseExceptionGroup(f"{len(wrong)} of {len(ended)} cells", wrong)


# A lost create is noticed after 35 seconds, when its window is over.
_SOON = {"SEEDANCE_CREATE_TIMEOUT_SECONDS": "5", "SEEDANCE_RECOVERY_SECONDS": "20"}


@pytest.mark.timeout(300)
async def test_smoke(stage: Stage, report: AddRow) -> None:
    """Six cases that need little time."""
    created = ["before the claim", "after the claim", "after the POST left", "after its answer"]
    cells = [_cell(stage, report, "SIGKILL, the same worker back", p, _same_worker_back, _SOON) for p in created]
    cells += [_cell(stage, report, "SIGTERM", p, _sigterm, _SOON) for p in ("mid-download", "before the record")]
    await _all(cells)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", COLUMNS)
async def test_column(stage: Stage, report: AddRow, what: str) -> None:
    points = [point for point in POINTS if not ("after the end" in what and point == "before the POST left")]
    await _all([_cell(stage, report, what, point, COLUMNS[what]) for point in points])


@pytest.mark.faults
@pytest.mark.timeout(900)
async def test_killed_server_never_pays_twice(stage: Stage, report: AddRow) -> None:
    """Workers die first, then the server; it restarts with its database, and the workers after it."""
    dead: list[str] = []
    back = asyncio.Event()

    async def play(cell: Cell, point: str) -> None:
        worker = await cell.start_faulty(POINT=point, SIGNAL="SIGKILL")
        await cell.submit()
        await _is_killed(cell, worker.process)
        dead.append(point)
        await back.wait()
        await cell.start_worker()
        await cell.until_known()

    async def server() -> None:
        async with asyncio.timeout(300):
            while len(dead) < len(POINTS):
                await asyncio.sleep(0.1)
        await stage.restart_temporal()
        back.set()

    what = "SIGKILL, the server as well"
    await _all([server(), *(_cell(stage, report, what, point, play) for point in POINTS)])
