"""Temporal's database is deleted with jobs in every stage: every paid video is stored, and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import cycle, islice

import pytest

from dev.stack import Stack, running_stack
from seedance_temporal import VideoRequest
from seedance_temporal.identity import job_id_of
from tests.e2e.command import starter
from tests.e2e.invariants import check_invariants
from tests.e2e.lost_temporal import (
    ENDED,
    OPEN,
    WITHOUT_WORKER,
    Stage,
    lose_temporal,
    require_paid_stored,
    task_of_record,
)
from tests.e2e.operator import reset
from tests.e2e.requests import a_request, creates_of, until_ended

STAGES = ENDED | OPEN | WITHOUT_WORKER
# Copies that hang keep their places.
SETTINGS = {
    "SEEDANCE_CALLBACK_URL": "",
    "SEEDANCE_CREATE_TIMEOUT_SECONDS": "8",
    "SEEDANCE_RECOVERY_SECONDS": "30",
    "SEEDANCE_COPIES_AT_ONCE": "30",
}


async def reach(stack: Stack, stages: dict[str, tuple[Stage, str]], jobs: list[tuple[str, VideoRequest]]) -> None:
    await asyncio.gather(*(stages[name][0](stack, request) for name, request in jobs if name in stages))


LONG = [pytest.mark.faults, pytest.mark.timeout(900)]


# Stages that need no search for a task.
SMOKE = ("stored", "refused", "running", "copying", "not sent")


@pytest.mark.parametrize(
    ("count", "stages", "worker_outlives"),
    [
        pytest.param(len(SMOKE), SMOKE, False, id="smoke"),
        pytest.param(50, STAGES, False, id="fifty", marks=LONG),
        pytest.param(len(STAGES), ENDED | OPEN, True, id="worker outlives it", marks=LONG),
    ],
)
async def test_lost_database_is_recovered(count: int, stages: Iterable[str], worker_outlives: bool) -> None:
    jobs = [(name, a_request()) for name in islice(cycle(stages), count)]
    async with running_stack(speed=60, workers=False, settings=SETTINGS) as stack:
        await stack.ark.configure(list_per_second=None, get_per_second=None, running_limit=200, create_per_minute=None)
        worker = await stack.start_worker()
        await reach(stack, ENDED, jobs)
        await stack.ark.configure(list_echo=False)
        await reach(stack, OPEN, jobs)
        if not worker_outlives:
            await worker.kill()
            await reach(stack, WITHOUT_WORKER, jobs)
        await lose_temporal(stack)
        await stack.ark.clear_faults()
        await stack.ark.configure(list_echo=True)
        posts = len(await stack.ark.ledger())
        if not worker_outlives:
            await stack.start_worker()

        planned = await starter(stack, "recover", "--dry-run")
        assert planned.code == 0, planned
        assert (await stack.client.count_workflows("WorkflowType = 'GenerateVideo'")).count == 0
        assert set(_requests(planned.answer)) == {job_id_of(of) for name, of in jobs if name in OPEN}
        assert _requests(planned.answer) == {job_id_of(of): _shown(of) for name, of in jobs if name in OPEN}

        await stack.ark.release()
        # More patience than the workers' short search has: the machine can be busy.
        recovered = await starter(stack, "recover", SEEDANCE_RECOVERY_SECONDS="160")
        assert recovered.code == 0, recovered
        assert len(await stack.ark.ledger()) == posts, "something was sent"
        phases = {job["job_id"]: job["phase"] for job in recovered.answer["jobs"]}
        for name, request in jobs:
            await require_paid_stored(stack, request)
            is_stored = await task_of_record(stack, request) is not None
            assert is_stored == (STAGES[name][1] == "stored"), (name, phases.get(job_id_of(request)))

        again = await starter(stack, "recover")
        unpaid = {job_id_of(of) for name, of in jobs if STAGES[name][1] == "without a task"}
        assert set(_requests(again.answer)) == unpaid
        assert {(job["progress"], job["action"]) for job in again.answer["jobs"]} == {("not_created", None)}

        for request in [of for name, of in jobs if name == "claimed"][:1]:
            await _reset_sends_nothing(stack, request)
        resubmitted = await starter(stack, "recover", "--resubmit", "--yes")
        assert {job["action"] for job in resubmitted.answer["jobs"]} == {"resubmitted"}, resubmitted
        ended = await asyncio.gather(*(until_ended(stack, job_id) for job_id in unpaid))
        assert {state.phase for state in ended} == {"stored"}
        assert len(await stack.ark.ledger()) == posts + len(unpaid)
        await check_invariants(stack)


async def _reset_sends_nothing(stack: Stack, request: VideoRequest) -> None:
    """A run that was brought back cannot create, also where its ledger allows another attempt."""
    sent = len(await creates_of(stack, request))
    await reset(stack, job_id_of(request))
    state = await until_ended(stack, job_id_of(request))
    assert state.error is not None
    assert state.error.code == "may_not_create"
    assert len(await creates_of(stack, request)) == sent


def _requests(answer: dict[str, list[dict[str, object]]]) -> dict[object, object]:
    return {job["job_id"]: job["request"] for job in answer["jobs"]}


def _shown(request: VideoRequest) -> dict[str, object]:
    return request.model_dump(mode="json", exclude_none=True)
