"""Many at once: submitters of one request, namespaces that want one claim, jobs of all kinds."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections import Counter

import pytest

from dev.stack import ROOT, Stack
from seedance_temporal import JobState, VideoRequest
from tests.e2e.requests import a_request, creates_of, until_ended
from tests.faults.cases import PATIENCE, Harness
from tests.faults.report import AddRow
from tests.support.jobs import detail_of

TITLE = "Concurrency"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
PROCESSES, EACH = 4, 50
JOBS = 500


async def _submitter(stack: Stack, request: VideoRequest) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.submitter", str(EACH)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=stack.environment,
        cwd=ROOT,
    )
    out, _ = await process.communicate(request.model_dump_json().encode())
    assert process.returncode == 0
    answer: dict[str, object] = json.loads(out)
    return answer


async def test_simultaneous_submits_of_one_request(served: Harness, report: AddRow) -> None:
    stack, request = served.stack, a_request()
    answers = await asyncio.gather(*(_submitter(stack, request) for _ in range(PROCESSES)))
    assert sum(int(str(answer["answers"])) for answer in answers) == PROCESSES * EACH
    assert sum(int(str(answer["new"])) for answer in answers) == 1, "one of them started it"
    (job_id,) = {str(job) for answer in answers for job in list(answer["jobs"])}  # type: ignore[call-overload]
    async with asyncio.timeout(PATIENCE):
        await stack.jobs.job(job_id).result()
    assert len(await creates_of(stack, request)) == 1
    what = f"{PROCESSES * EACH} submits by {PROCESSES} processes"
    report(TITLE, {"what": what, "jobs": 1, "paid": 1, "ends": "stored: 1"})


async def test_racing_namespaces_claim_once(served: Harness, report: AddRow) -> None:
    """The same requests at the same time, by two deployments that share nothing but bucket and account."""
    requests = [a_request() for _ in range(20)]
    async with served.case("race") as one, served.case("race") as other:
        cases = [one, other]
        await asyncio.gather(*(case.start_worker() for case in cases))
        await asyncio.gather(*(case.jobs.submit(request) for request in requests for case in cases))

        async def settled(request: VideoRequest) -> bool:
            """Assert that both have the same result; return whether they raced."""
            job_ids = [(await case.jobs.submit(request)).id for case in cases]
            assert len(set(job_ids)) == 1
            async with asyncio.timeout(PATIENCE):
                results = [await case.jobs.job(job_ids[0]).result() for case in cases]
            assert results[0] == results[1]
            assert len(await creates_of(served.stack, request)) == 1
            states = [await case.jobs.job(job_ids[0]).state() for case in cases]
            return any(event.event == "not_sent" for state in states for event in detail_of(state).timeline)

        raced = await asyncio.gather(*map(settled, requests))
    ends = f"stored: {len(requests)}, claims that were lost to the other: {sum(raced)}"
    report(TITLE, {"what": "two namespaces, the same requests", "jobs": 20, "paid": 20, "ends": ends})


def _mixed(number: int) -> dict[str, str]:
    """A tenth of the jobs suffers a fault."""
    faults = {
        0: {"on": "create", "fault": "lost_after_commit"},
        10: {"on": "create", "fault": "400"},
        20: {"on": "create", "fault": "429"},
        30: {"on": "task", "fault": "fail"},
        40: {"on": "create", "fault": "502_after_commit"},
    }
    return faults.get(number % 50, {})


async def test_many_unknown_creates_never_pay_twice(served: Harness, report: AddRow) -> None:
    """All answers get lost, and no callback comes: LIST, which is allowed once a second, serves all of them."""
    stack, mark = served.stack, uuid.uuid4().hex
    requests = [a_request(prompt=f"A kite over a field, {mark}, {number}.") for number in range(JOBS)]
    usual = await stack.ark.configure()
    await stack.ark.configure(callbacks="off", list_per_second=1.0)
    try:
        # Recovery needs a LIST that has shown an identifier.
        await (await stack.jobs.submit(a_request())).result()
        before = (await stack.ark.requests()).list.get("byteplus", 0)
        armed = await stack.ark.fault("create", "lost_after_commit", contains=mark, times=JOBS)
        began = time.monotonic()
        ended = await _ends(stack, requests)
        seconds = time.monotonic() - began
    finally:
        await stack.ark.configure(**{name: usual[name] for name in ("callbacks", "list_per_second")})
    assert len(await stack.ark.fired(armed)) == JOBS, "the faults did not happen"
    assert Counter(job.phase for job in ended) == Counter({"stored": JOBS})
    creates = [entry for entry in await stack.ark.ledger() if mark in str(entry.body["content"])]
    assert len(creates) == JOBS, "nothing was sent twice"
    assert {job.result.task_id for job in ended if job.result} == {entry.task_id for entry in creates}
    listings = (await stack.ark.requests()).list["byteplus"] - before
    ends = f"stored: {JOBS}, by {listings} listings in {seconds:.0f} s"
    report(TITLE, {"what": f"{JOBS} creates whose answer was lost", "jobs": JOBS, "paid": len(creates), "ends": ends})


async def _ends(stack: Stack, requests: list[VideoRequest]) -> list[JobState]:
    """Submit all requests, and return the ends of their jobs."""
    limit = asyncio.Semaphore(50)

    async def submit(request: VideoRequest) -> str:
        async with limit:
            return (await stack.jobs.submit(request)).id

    async def end(job_id: str) -> JobState:
        async with limit:
            return await until_ended(stack, job_id, every=30, seconds=800)

    job_ids = await asyncio.gather(*map(submit, requests))
    assert len(set(job_ids)) == len(requests)
    async with asyncio.timeout(800):
        return await asyncio.gather(*map(end, job_ids))


async def test_mixed_jobs_pay_once(served: Harness, report: AddRow) -> None:
    stack = served.stack
    requests = [a_request(return_last_frame=number % 7 == 0) for number in range(JOBS)]
    armed = []
    for number, request in enumerate(requests):
        if fault := _mixed(number):
            armed.append(await stack.ark.fault(**fault, contains=request.prompt))  # type: ignore[arg-type]
    ended = await _ends(stack, requests)
    for one in armed:
        assert await stack.ark.fired(one), "the fault did not happen"
    phases = Counter(job.phase for job in ended)
    assert phases == Counter({"stored": JOBS - JOBS // 25, "refused": JOBS // 50, "failed": JOBS // 50})
    wanted = {request.prompt for request in requests}
    committed = [entry for entry in await stack.ark.ledger() if entry.committed]
    paid = sum(any(content.get("text") in wanted for content in entry.body["content"]) for entry in committed)
    assert paid == JOBS - JOBS // 50
    ends = ", ".join(f"{phase}: {count}" for phase, count in sorted(phases.items()))
    report(TITLE, {"what": f"{JOBS} mixed jobs", "jobs": JOBS, "paid": paid, "ends": ends})
